//! The disk that a directory lies on, as cgroups name it: a whole one, never a partition.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `major:minor`, or why there is none to limit.
pub(super) fn of(directory: &Path) -> Result<String, String> {
    let found = fs::metadata(directory).map_err(|fault| format!("looking at the data directory: {fault}"))?;
    let mut device = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    if device.0 == 0 {
        // Such a file system names its disk only where it is mounted, if it has one.
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").map_err(|fault| format!("reading mountinfo: {fault}"))?;
        let source = source(&mounts, device).ok_or("the file system of the data directory has no disk of its own")?;
        let disk = fs::metadata(source).map_err(|fault| format!("looking at `{source}`: {fault}"))?;
        device = (rustix::fs::major(disk.rdev()), rustix::fs::minor(disk.rdev()));
    }
    whole(Path::new("/sys/dev/block"), device)
}

/// Where a file system without a device number of its own comes from.
fn source(mounts: &str, (major, minor): (u32, u32)) -> Option<&str> {
    let wanted = format!("{major}:{minor}");
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        (mount.split(' ').nth(2) == Some(&wanted)).then_some(())?;
        kind.split(' ').nth(1).filter(|source| source.starts_with("/dev/"))
    })
}

/// The disk that a partition is of; a disk is itself.
fn whole(devices: &Path, (major, minor): (u32, u32)) -> Result<String, String> {
    let entry = devices.join(format!("{major}:{minor}"));
    let unknown = |fault| format!("looking for block device {major}:{minor}: {fault}");
    if !entry.join("partition").exists() {
        return fs::metadata(&entry).map(|_| format!("{major}:{minor}")).map_err(unknown);
    }
    // Resolved first: above the name is a directory of links, above the device is its disk.
    let disk = fs::canonicalize(&entry).map_err(unknown)?;
    let number = disk.parent().map(|disk| fs::read_to_string(disk.join("dev")));
    number
        .ok_or_else(|| format!("partition {major}:{minor} is of no disk"))?
        .map(|text| text.trim().to_owned())
        .map_err(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_partition_stands_for_its_disk() {
        let sys = tempfile::tempdir().unwrap();
        let (disk, devices) = (sys.path().join("devices/vda"), sys.path().join("dev/block"));
        fs::create_dir_all(disk.join("vda1")).unwrap();
        fs::create_dir_all(&devices).unwrap();
        fs::write(disk.join("dev"), "254:0\n").unwrap();
        fs::write(disk.join("vda1/dev"), "254:1\n").unwrap();
        fs::write(disk.join("vda1/partition"), "1\n").unwrap();
        symlink("../../devices/vda", devices.join("254:0")).unwrap();
        symlink("../../devices/vda/vda1", devices.join("254:1")).unwrap();
        assert_eq!(whole(&devices, (254, 0)).unwrap(), "254:0");
        assert_eq!(whole(&devices, (254, 1)).unwrap(), "254:0");
        assert!(whole(&devices, (8, 0)).unwrap_err().contains("8:0"));
    }

    #[test]
    fn a_file_system_over_several_disks_names_one_where_it_is_mounted() {
        let mounts = "29 1 0:25 / /data rw shared:1 - btrfs /dev/sda2 rw\n30 1 0:26 / /o rw - overlay overlay rw\n";
        assert_eq!(source(mounts, (0, 25)), Some("/dev/sda2"));
        assert_eq!(source(mounts, (0, 26)), None);
        assert_eq!(source(mounts, (0, 27)), None);
    }
}
