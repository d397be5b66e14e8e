//! The room's cgroup: its limits, and what the kernel says of them.

use crate::fault::{Fault, While};
use loopd_protocol::guest::BindRoom;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const TREE: &str = "/sys/fs/cgroup";
const ROOM: &str = "/sys/fs/cgroup/room";
/// Bytes of a file of counters.
const COUNTERS_BYTES: usize = 1 << 10;

pub fn make() -> Result<(), Fault> {
    fs::write(Path::new(TREE).join("cgroup.subtree_control"), "+memory +pids")
        .while_doing("switching memory and pids on")?;
    fs::create_dir(ROOM).while_doing("making the room's cgroup")
}

/// The file into which a room's first process writes itself.
pub fn processes() -> Result<File, Fault> {
    OpenOptions::new().write(true).open(Path::new(ROOM).join("cgroup.procs")).while_doing("opening the room's cgroup")
}

pub fn limit(room: &BindRoom) -> Result<(), Fault> {
    for (file, value) in [("memory.max", room.memory_bytes), ("pids.max", room.pids)] {
        fs::write(Path::new(ROOM).join(file), value.to_string()).while_doing(&format!("writing {value} to {file}"))?;
    }
    Ok(())
}

/// Ends all that is in it.
pub fn kill() -> Result<(), Fault> {
    fs::write(Path::new(ROOM).join("cgroup.kill"), "1").while_doing("ending the room's processes")
}

/// A counter of the kernel that only rises.
pub struct Counter {
    file: File,
    key: &'static str,
    seen: u64,
}

impl Counter {
    /// Processes that were ended to get their memory back.
    pub fn kills() -> Result<Self, Fault> {
        Counter::open(&Path::new(ROOM).join("memory.events"), "oom_kill")
    }

    /// Processes that could not be started.
    pub fn refusals() -> Result<Self, Fault> {
        Counter::open(&Path::new(ROOM).join("pids.events"), "max")
    }

    fn open(path: &Path, key: &'static str) -> Result<Self, Fault> {
        let file = File::open(path).while_doing(&format!("opening {}", path.display()))?;
        let mut counter = Counter { file, key, seen: 0 };
        counter.rose();
        Ok(counter)
    }

    /// The kernel says on it, as an exceptional condition, that something has changed since it was read.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it rose since it was last asked.
    pub fn rose(&mut self) -> bool {
        let mut bytes = [0; COUNTERS_BYTES];
        // What cannot be read has not risen: it is the kernel's own file.
        let length = self.file.read_at(&mut bytes, 0).unwrap_or(0);
        let count = count(&String::from_utf8_lossy(&bytes[..length]), self.key).unwrap_or(self.seen);
        std::mem::replace(&mut self.seen, count) < count
    }
}

/// The value of `key` among lines of "key value".
fn count(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rises_is_told_once() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("memory.events");
        fs::write(&path, "low 0\noom 9\noom_kill 3\noom_group_kill 7\n").unwrap();
        let mut counter = Counter::open(&path, "oom_kill").unwrap();
        assert!(!counter.rose(), "what was counted before is not ours");
        fs::write(&path, "low 0\noom 9\noom_kill 4\noom_group_kill 9\n").unwrap();
        assert!(counter.rose());
        assert!(!counter.rose());
        fs::write(&path, "low 0\n").unwrap();
        assert!(!counter.rose());
    }
}
