//! A room's limits as a cgroup is told them: which file, which value, in which order.

use super::files::Files;
use super::tree::Version;
use loopd_domain::environment::RoomLimits;
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// Of `cpu.max` and `cpu.cfs_quota_us`: the kernel's own default, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub controller: &'static str,
    pub file: &'static str,
    pub value: String,
    may: May,
}

/// When a setting that the kernel does not take is fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// Never.
    Not,
    /// Not every kernel has the file.
    BeAbsent,
    /// Whoever set this server's own limit set a lower one, which holds for its rooms too.
    BeAboveParents,
}

/// What a tree of this version with these controllers is told. `device`: of the disk that sessions lie on.
pub(super) fn of(version: Version, controllers: &[&str], limits: &RoomLimits, device: Option<&str>) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |controller, file, value: String, may| settings.push(Setting { controller, file, value, may });
    let memory = limits.memory_bytes.to_string();
    let quota = limits.cpu_millis * CPU_PERIOD_US / 1_000;
    let rate = limits.io_bytes_per_second;
    for controller in controllers {
        match (*controller, version) {
            ("memory", Version::One) => {
                set("memory", "memory.limit_in_bytes", memory.clone(), May::Not);
                // Memory and swap together: as much as memory alone, so there is no swap.
                set("memory", "memory.memsw.limit_in_bytes", memory.clone(), May::BeAbsent);
            }
            ("memory", Version::Two) => {
                set("memory", "memory.max", memory.clone(), May::Not);
                set("memory", "memory.swap.max", "0".to_owned(), May::BeAbsent);
            }
            ("pids", _) => set("pids", "pids.max", limits.pids.to_string(), May::Not),
            ("cpu", Version::One) => {
                set("cpu", "cpu.cfs_quota_us", quota.to_string(), May::BeAboveParents);
                set("cpu", "cpu.shares", (limits.cpu_millis * 1_024 / 1_000).clamp(2, 262_144).to_string(), May::Not);
            }
            ("cpu", Version::Two) => {
                set("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_US}"), May::Not);
                set("cpu", "cpu.weight", (limits.cpu_millis / 10).clamp(1, 10_000).to_string(), May::Not);
            }
            ("io", version) => {
                let Some(device) = device else { continue };
                match version {
                    Version::One => {
                        set("io", "blkio.throttle.read_bps_device", format!("{device} {rate}"), May::Not);
                        set("io", "blkio.throttle.write_bps_device", format!("{device} {rate}"), May::Not);
                    }
                    Version::Two => set("io", "io.max", format!("{device} rbps={rate} wbps={rate}"), May::Not),
                }
            }
            _ => {}
        }
    }
    settings
}

/// Tells a room's cgroup. Of two limits of which one may not be above the other, which goes first depends on which way they
/// move, so one that is refused is tried again after the others.
pub(super) fn apply(files: &dyn Files, directory: &Path, settings: &[Setting]) -> io::Result<()> {
    let mut refused = Vec::new();
    for setting in settings {
        if setting.tell(files, directory).is_err() {
            refused.push(setting);
        }
    }
    for setting in refused {
        setting.tell(files, directory).map_err(|fault| {
            io::Error::new(fault.kind(), format!("writing `{}` to {}: {fault}", setting.value, setting.file))
        })?;
    }
    Ok(())
}

impl Setting {
    fn tell(&self, files: &dyn Files, directory: &Path) -> io::Result<()> {
        match files.write(&directory.join(self.file), &self.value) {
            Err(fault) if self.may == May::BeAbsent && fault.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(fault) if self.may == May::BeAboveParents && Errno::from_io_error(&fault) == Some(Errno::INVAL) => {
                Ok(())
            }
            other => other,
        }
    }

    /// Whether a cgroup has the file at all.
    pub(super) fn look(&self, files: &dyn Files, directory: &Path) -> Result<(), String> {
        match files.read(&directory.join(self.file)) {
            Err(fault) if self.may != May::BeAbsent && fault.kind() == io::ErrorKind::NotFound => {
                Err(format!("this kernel has no {}", self.file))
            }
            _ => Ok(()),
        }
    }

    /// What the kernel says of it, when it is not what it was told: for `loopd doctor`.
    pub(super) fn check(&self, files: &dyn Files, directory: &Path) -> Result<(), String> {
        let held = match files.read(&directory.join(self.file)) {
            Ok(held) => held,
            Err(fault) if self.may == May::BeAbsent && fault.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(fault) => return Err(format!("reading {}: {fault}", self.file)),
        };
        // The kernel adds what it was not told, and may round; a device has a line of its own.
        let told: Vec<&str> = self.value.split(' ').collect();
        let holds = held.lines().any(|line| told.iter().all(|word| line.split(' ').any(|have| have == *word)));
        match holds || self.may == May::BeAboveParents {
            true => Ok(()),
            false => Err(format!("{} was told `{}` and holds `{}`", self.file, self.value, held.trim())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(version: Version, limits: &RoomLimits, device: Option<&str>) -> Vec<String> {
        let settings = of(version, &["memory", "pids", "cpu", "io"], limits, device);
        settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    #[test]
    fn each_version_is_told_in_its_own_words() {
        let limits = RoomLimits {
            memory_bytes: 1 << 30,
            pids: 50,
            cpu_millis: 1_500,
            io_bytes_per_second: 7 << 20,
            ..RoomLimits::default()
        };
        assert_eq!(
            said(Version::Two, &limits, Some("254:0")),
            [
                "memory.max=1073741824",
                "memory.swap.max=0",
                "pids.max=50",
                "cpu.max=150000 100000",
                "cpu.weight=150",
                "io.max=254:0 rbps=7340032 wbps=7340032",
            ]
        );
        assert_eq!(
            said(Version::One, &limits, Some("254:0")),
            [
                "memory.limit_in_bytes=1073741824",
                "memory.memsw.limit_in_bytes=1073741824",
                "pids.max=50",
                "cpu.cfs_quota_us=150000",
                "cpu.shares=1536",
                "blkio.throttle.read_bps_device=254:0 7340032",
                "blkio.throttle.write_bps_device=254:0 7340032",
            ]
        );
    }

    #[test]
    fn extremes_stay_within_what_the_kernel_takes() {
        for (cpu_millis, quota, weight, shares) in
            [(10, "1000 100000", "1", "10"), (1_024_000, "102400000 100000", "10000", "262144")]
        {
            let limits = RoomLimits { cpu_millis, ..RoomLimits::default() };
            let two = said(Version::Two, &limits, None);
            assert!(
                two.contains(&format!("cpu.max={quota}")) && two.contains(&format!("cpu.weight={weight}")),
                "{two:?}"
            );
            assert!(said(Version::One, &limits, None).contains(&format!("cpu.shares={shares}")));
            assert!(!two.iter().any(|one| one.starts_with("io")), "there is no device to limit: {two:?}");
        }
    }
}
