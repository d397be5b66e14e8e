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
    /// What no other process has: the same however many share the rest.
    pub private_kb: u64,
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

/// First processes of rooms, from the records in these places.
pub fn recorded(places: &Path) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(places).with_context(|| format!("`{}`", places.display()))? {
        // One that was just removed, or that never had a room, has none.
        let Ok(text) = std::fs::read_to_string(entry?.path().join("record")) else { continue };
        let process = text.lines().find_map(|line| line.strip_prefix("process ")?.split(' ').next());
        found.extend(process.and_then(|pid| pid.parse::<u32>().ok()));
    }
    // Records outlive their rooms.
    found.retain(|pid| Path::new(&format!("/proc/{pid}")).exists());
    Ok(found)
}

/// Processes that ended meanwhile, or that have no memory any more, count as nothing.
pub fn memory(processes: &[u32]) -> Memory {
    let weights = processes.iter().filter_map(|pid| weight(Path::new(&format!("/proc/{pid}/smaps_rollup"))));
    weights.fold(Memory::default(), |sum, (pss_kb, private_kb)| Memory {
        processes: sum.processes + 1,
        pss_kb: sum.pss_kb + pss_kb,
        private_kb: sum.private_kb + private_kb,
    })
}

/// Proportional set size, and what is private of it.
fn weight(rollup: &Path) -> Option<(u64, u64)> {
    // Read once: it takes the kernel a walk over all pages.
    let text = std::fs::read_to_string(rollup).ok()?;
    Some((number(&text, "Pss:")?, number(&text, "Private_Clean:")? + number(&text, "Private_Dirty:")?))
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
    number(&std::fs::read_to_string(file).ok()?, name)
}

fn number(text: &str, name: &str) -> Option<u64> {
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
    fn a_record_names_a_room_as_long_as_that_lives() {
        let places = tempfile::tempdir().unwrap();
        for (name, pid) in [("living", std::process::id()), ("gone", 4_194_305)] {
            std::fs::create_dir(places.path().join(name)).unwrap();
            std::fs::write(places.path().join(name).join("record"), format!("loopd room 1\nprocess {pid} 7\n"))
                .unwrap();
        }
        std::fs::create_dir(places.path().join("empty")).unwrap();
        assert_eq!(recorded(places.path()).unwrap(), [std::process::id()]);
    }

    #[test]
    fn a_child_is_found_and_weighed() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        let found = tree(own).unwrap();
        let weight = memory(&[child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found[0] == own && found.contains(&child.id()), "{found:?}");
        assert!(weight.processes == 1 && 0 < weight.private_kb && weight.private_kb <= weight.pss_kb, "{weight:?}");
        let (now, highest) = resident(own).unwrap();
        assert!(now > 0 && highest >= now);
    }
}
