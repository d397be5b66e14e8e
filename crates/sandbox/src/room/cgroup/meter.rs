//! What a room's cgroups say about limits that were reached: counters that only rise.
//!
//! Their files stay open: they are read with every result, and to find and open them costs several times what reading does.

use crate::port::Reached;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// File, and the name of its counter: memory in both versions, then processes.
const KILLS: [(&str, &str); 2] = [("memory.events", "oom_kill"), ("memory.oom_control", "oom_kill")];
const REFUSALS: [(&str, &str); 1] = [("pids.events", "max")];

/// Bytes of such a file: a few short lines.
const COUNTERS_BYTES_MAX: usize = 1_024;

/// The counters of one room.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    kills: Counter,
    refusals: Counter,
}

#[derive(Debug, Default)]
struct Counter {
    /// `None` where nothing counts.
    of: Option<(File, &'static str)>,
    seen: u64,
}

impl Counters {
    /// Those of a room that has just been started: nothing has been counted yet.
    pub(crate) fn new(cgroups: &[PathBuf]) -> Self {
        Counters { kills: Counter::find(cgroups, &KILLS), refusals: Counter::find(cgroups, &REFUSALS) }
    }

    /// Those of a room that has lived; what was counted is somebody else's.
    pub(crate) fn adopted(cgroups: &[PathBuf]) -> Self {
        let mut counters = Self::new(cgroups);
        counters.reached();
        counters
    }

    /// What has been reached since the last time.
    pub(crate) fn reached(&mut self) -> Reached {
        Reached { memory: self.kills.rose(), processes: self.refusals.rose() }
    }
}

impl Counter {
    fn find(cgroups: &[PathBuf], names: &[(&str, &'static str)]) -> Self {
        let mut files = cgroups.iter().flat_map(|cgroup| names.iter().map(|(file, key)| (cgroup.join(file), *key)));
        Counter { of: files.find_map(|(file, key)| Some((File::open(file).ok()?, key))), seen: 0 }
    }

    fn rose(&mut self) -> bool {
        let Some((file, key)) = &self.of else { return false };
        let count = count(file, key).unwrap_or(self.seen);
        std::mem::replace(&mut self.seen, count) < count
    }
}

/// The value of `key` among lines of "key value". `None` where the room is gone, or an old kernel does not count.
fn count(file: &File, key: &str) -> Option<u64> {
    let mut bytes = [0; COUNTERS_BYTES_MAX];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let text = str::from_utf8(&bytes[..length]).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_rises_is_told_once() {
        let place = tempfile::tempdir().unwrap();
        let [memory, pids] = ["memory", "pids"].map(|name| place.path().join(name));
        for directory in [&memory, &pids] {
            fs::create_dir(directory).unwrap();
        }
        for (file, before, after) in [
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
            (
                "memory.events",
                "low 0\noom 9\noom_kill 0\noom_group_kill 7\n",
                "low 0\noom 9\noom_kill 1\noom_group_kill 7\n",
            ),
        ] {
            fs::write(memory.join(file), before).unwrap();
            fs::write(pids.join("pids.events"), "max 0\n").unwrap();
            let cgroups = [pids.clone(), memory.clone()];
            let mut counters = Counters::new(&cgroups);
            assert_eq!(counters.reached(), Reached::default());
            fs::write(memory.join(file), after).unwrap();
            assert_eq!(counters.reached(), Reached { memory: true, processes: false });
            fs::write(pids.join("pids.events"), "max 40\n").unwrap();
            assert_eq!(counters.reached(), Reached { memory: false, processes: true });
            assert_eq!(counters.reached(), Reached::default());
            assert_eq!(Counters::adopted(&cgroups).reached(), Reached::default());
            fs::remove_file(memory.join(file)).unwrap();
            assert_eq!(counters.reached(), Reached::default());
        }
        assert_eq!(Counters::new(&[]).reached(), Reached::default());
    }
}
