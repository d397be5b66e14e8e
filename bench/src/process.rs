//! What processes cost, as the kernel counts it (`/proc`).

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::path::Path;

/// Memory of a set of processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub processes: usize,
    /// Proportional set size: shared pages are divided among those who share them.
    pub pss_kb: u64,
}

/// A process and everything that it started, itself first.
pub fn tree(root: u32) -> Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
        // A process may end between the listing and the reading.
        if let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            children.entry(parent(&stat).with_context(|| format!("the parent in `{stat}`"))?).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

/// Those of the processes that live in another process namespace than `outside`: the inhabitants of rooms.
pub fn in_rooms(processes: &[u32], outside: u32) -> Result<Vec<u32>> {
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let home = namespace(outside).context("the server's process namespace")?;
    Ok(processes.iter().copied().filter(|pid| namespace(*pid).is_ok_and(|ns| ns != home)).collect())
}

/// Those that have come to live there: a room that waits for a session still runs the launcher's program.
pub fn settled(inhabitants: &[u32]) -> Vec<u32> {
    let waits =
        |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"loopd-jail"));
    inhabitants.iter().copied().filter(|pid| !waits(*pid)).collect()
}

/// Processes that ended meanwhile, or that have no memory any more, count as nothing.
pub fn memory(processes: &[u32]) -> Memory {
    let pss = processes.iter().filter_map(|pid| field(Path::new(&format!("/proc/{pid}/smaps_rollup")), "Pss:"));
    pss.fold(Memory::default(), |sum, kb| Memory { processes: sum.processes + 1, pss_kb: sum.pss_kb + kb })
}

/// Resident set now and at its highest, in KB.
pub fn resident(pid: u32) -> Result<(u64, u64)> {
    let status = format!("/proc/{pid}/status");
    let read = |name| field(Path::new(&status), name).with_context(|| format!("`{name}` in `{status}`"));
    Ok((read("VmRSS:")?, read("VmHWM:")?))
}

/// Processor time that the processes have used so far, user and system, in seconds.
pub fn processor(processes: &[u32]) -> f64 {
    let ticks_a_second = rustix::param::clock_ticks_per_second() as f64;
    let stats = processes.iter().filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    stats.filter_map(|stat| ticks(&stat)).sum::<u64>() as f64 / ticks_a_second
}

/// A program's name, for a table.
pub fn name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "?".to_owned(), |c| c.trim().to_owned())
}

fn field(file: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// The fourth field; the second is a name in brackets that may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Fields 14 and 15.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_the_parent() {
        assert_eq!(parent("12 (a) b) (c)) S 7 12 12 0"), Some(7));
        assert_eq!(parent("nonsense"), None);
        assert_eq!(ticks("12 (a) b) S 7 12 12 0 -1 4194304 1 2 3 4 30 12 0 0"), Some(42));
    }

    #[test]
    fn a_child_is_found_weighed_and_at_home() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        let found = tree(own).unwrap();
        let weight = memory(&[child.id()]);
        let strangers = in_rooms(&found, own).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found[0] == own && found.contains(&child.id()), "{found:?}");
        assert!(weight.processes == 1 && weight.pss_kb > 0, "{weight:?}");
        assert!(strangers.is_empty(), "{strangers:?}");
        let (now, highest) = resident(own).unwrap();
        assert!(now > 0 && highest >= now);
    }
}
