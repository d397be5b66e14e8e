//! Facts of the machine, printed with every result.

use crate::wall;
use std::path::Path;
use std::process::Command;

/// One line: date, commit, processor, memory, system, file system of the data, load.
pub fn facts(root: &Path, work: &Path) -> String {
    let date = wall::now().to_string();
    let facts = [
        date.split('T').next().unwrap_or_default().to_owned(),
        format!("commit {}", said(Command::new("git").arg("-C").arg(root).args(["describe", "--always", "--dirty"]))),
        format!("{} of {}", cores(), proc_field("/proc/cpuinfo", "model name")),
        format!("{} memory", memory()),
        system(),
        format!("kernel {}", read("/proc/sys/kernel/osrelease")),
        format!("{} on disk", said(Command::new("findmnt").args(["-n", "-o", "FSTYPE", "--target"]).arg(work))),
        format!("load before {}", read("/proc/loadavg").split(' ').next().unwrap_or_default()),
    ];
    facts.join(", ")
}

fn cores() -> String {
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    if count == 1 { "1 core".to_owned() } else { format!("{count} cores") }
}

fn memory() -> String {
    let kb: f64 = proc_field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(f64::NAN);
    format!("{:.0} GB", kb / 1024.0 / 1024.0)
}

fn system() -> String {
    let text = read("/etc/os-release");
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("an unnamed system").trim_matches('"').to_owned()
}

fn proc_field(file: &str, name: &str) -> String {
    let text = read(file);
    let value = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
    value.map_or_else(|| format!("no `{name}`"), |(_, value)| value.trim().to_owned())
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).map_or_else(|fault| format!("`{file}`: {fault}"), |text| text.trim().to_owned())
}

fn said(command: &mut Command) -> String {
    match command.output() {
        Ok(done) if done.status.success() => String::from_utf8_lossy(&done.stdout).trim().to_owned(),
        Ok(done) => format!("unknown ({})", done.status),
        Err(fault) => format!("unknown ({fault})"),
    }
}
