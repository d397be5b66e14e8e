//! What tests of machines put in the launcher's place: it is the launcher, and beside it a process of the guest's root, which does to its
//! machine what no room can, or tells what no room sees: the word in the file `doom` of the session's workspace says what.

use rustix::system::RebootCommand;
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// In the session's workspace, where the guest has it.
const DOOM: &str = "/loopd/data/sessions/s/workspace/doom";
const FACTS: &str = "/loopd/data/sessions/s/workspace/facts";
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("doom") {
        return wait();
    }
    let mut beside = Command::new("/proc/self/exe");
    beside.arg("doom").stdin(Stdio::null());
    if let Err(fault) = beside.spawn() {
        eprintln!("loopd-test-jail: {fault}");
        return ExitCode::FAILURE;
    }
    loopd_jail::launcher::main()
}

fn wait() -> ExitCode {
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Ok(word) = fs::read_to_string(DOOM) else { continue };
        // It is not for the session's next machine.
        if let Err(fault) = fs::remove_file(DOOM) {
            eprintln!("loopd-test-jail: {fault}");
        }
        rustix::fs::sync();
        let done = match word.trim() {
            // As with a fault of the kernel's own.
            "panic" => fs::write("/proc/sysrq-trigger", "c").map_err(|fault| fault.to_string()),
            "facts" => tell_facts().map_err(|fault| fault.to_string()),
            "off" => rustix::system::reboot(RebootCommand::PowerOff).map_err(|errno| errno.to_string()),
            "restart" => rustix::system::reboot(RebootCommand::Restart).map_err(|errno| errno.to_string()),
            _ => Ok(()),
        };
        if let Err(fault) = done {
            eprintln!("loopd-test-jail: {word}: {fault}");
            return ExitCode::FAILURE;
        }
    }
}

/// The machine's name, then its network interfaces, whole at once.
fn tell_facts() -> std::io::Result<()> {
    let mut facts = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Two lines of headings, then one for each interface.
    for line in fs::read_to_string("/proc/self/net/dev")?.lines().skip(2) {
        facts.push('\n');
        facts.push_str(line.split(':').next().unwrap_or_default().trim());
    }
    let draft = format!("{FACTS}.draft");
    fs::write(&draft, facts)?;
    fs::rename(&draft, FACTS)
}
