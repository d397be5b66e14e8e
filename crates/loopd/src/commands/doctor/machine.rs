//! Kernel, memory and disk.

use super::check;
use loopd_sandbox::port::{Check, CheckVerdict};
use std::path::Path;

/// Below this a session of a real agent soon finds no room.
const MEMORY_BYTES_LOW: u64 = 512 << 20;
const DISK_BYTES_LOW: u64 = 1 << 30;

pub fn checks(data: &Path) -> Vec<Check> {
    vec![kernel(), memory(), disk(data)]
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let detail = format!("{} {} on {}", text(uname.sysname()), text(uname.release()), text(uname.machine()));
    check("kernel", CheckVerdict::Works, detail, "")
}

fn memory() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let name = "memory and cores";
    let text = match std::fs::read_to_string("/proc/meminfo") {
        Ok(text) => text,
        Err(fault) => return check(name, CheckVerdict::Degraded, format!("/proc/meminfo: {fault}"), "mount /proc"),
    };
    let (Some(total), Some(free)) = (meminfo(&text, "MemTotal"), meminfo(&text, "MemAvailable")) else {
        return check(name, CheckVerdict::Degraded, "/proc/meminfo does not say what is available", "");
    };
    let detail = format!("{} of {} available, {cores} cores", size(free), size(total));
    match free < MEMORY_BYTES_LOW {
        true => check(
            name,
            CheckVerdict::Degraded,
            detail,
            format!("free some: rooms need at least {}", size(MEMORY_BYTES_LOW)),
        ),
        false => check(name, CheckVerdict::Works, detail, ""),
    }
}

/// Bytes of a row of /proc/meminfo.
fn meminfo(text: &str, field: &str) -> Option<u64> {
    let row = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = row.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn disk(data: &Path) -> Check {
    // What is not there yet will be made in the nearest directory that is.
    let there =
        data.ancestors().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p }).find(|p| p.exists());
    let there = there.unwrap_or(Path::new("/"));
    let stat = match rustix::fs::statvfs(there) {
        Ok(stat) => stat,
        Err(fault) => return check("disk", CheckVerdict::Degraded, format!("`{}`: {fault}", there.display()), ""),
    };
    let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    let detail = format!("{} of {} free at `{}`", size(free), size(total), there.display());
    match free < DISK_BYTES_LOW {
        true => {
            check("disk", CheckVerdict::Degraded, detail, "free some, or choose another data directory with --data")
        }
        false => check("disk", CheckVerdict::Works, detail, ""),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes >> 30, ((bytes & 0x3fff_ffff) * 10) >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       24683888 kB\nMemFree:         1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(meminfo(text, "MemAvailable"), Some(2 << 20));
        assert_eq!(meminfo(text, "Mem"), None);
        assert_eq!(meminfo("", "MemTotal"), None);
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!((size(512 << 20), size((3 << 30) + (1 << 29))), ("512 MiB".to_owned(), "3.5 GiB".to_owned()));
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_its_parent() {
        let root = tempfile::tempdir().expect("a directory");
        let found = disk(&root.path().join("not/yet"));
        assert!(found.detail.contains(&root.path().display().to_string()), "{}", found.detail);
    }
}
