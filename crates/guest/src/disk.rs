//! The machine's disks: the base, the session's, and layers, in the order in which the VMM attached them.

use crate::fault::{Fault, While};
use crate::{clock, sys};
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long after its driver a device may take to be there. Emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(1);
/// Read-only disks are never written to, not even to mend what a crash left: nothing was written when they were made.
const FIXED: &str = "noload";
/// - `nobarrier`: a flush tells the VMM nothing, as what it has taken is in the host's page cache (ADR 8);
/// - `noinit_itable`: what is not used stays a hole in the host's file, and `discard` makes holes of what is used no more;
/// - `errors`: a file system that is damaged is no reason for the machine to end.
const WRITABLE: &str = "nobarrier,noinit_itable,discard,errors=remount-ro";
/// Where ext4 says what it is.
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
/// How long a driver may take to hear that its disk has grown.
const GROWTH_PATIENCE: Duration = Duration::from_secs(5);
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// What a disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Base,
    Session,
    /// Counted from the uppermost.
    Layer(u32),
}

impl Disk {
    fn place(self) -> u32 {
        match self {
            Disk::Base => 0,
            Disk::Session => 1,
            Disk::Layer(number) => number.saturating_add(2),
        }
    }

    pub fn device(self) -> PathBuf {
        Path::new("/dev").join(name(self.place()))
    }

    pub fn mount(self, at: &Path) -> Result<(), Fault> {
        let device = self.device();
        let doing = format!("mounting {} at {}", device.display(), at.display());
        let (flags, options) = match self {
            Disk::Base | Disk::Layer(_) => (PLAIN | MountFlags::RDONLY, FIXED),
            Disk::Session => (PLAIN | MountFlags::NOATIME, WRITABLE),
        };
        let options = CString::new(options).map_err(|fault| Fault::new(&doing, fault.to_string()))?;
        appears(&device)?;
        fs::create_dir_all(at).while_doing(&doing)?;
        rustix::mount::mount(&device, at, "ext4", flags, &*options).while_doing(&doing)
    }
}

impl Disk {
    /// As many blocks as the disk has, if it has more than its file system.
    pub fn blocks_to_grow_to(self) -> Result<Option<u64>, Fault> {
        let device = self.device();
        let doing = format!("looking how large {} is", device.display());
        let mut file = File::open(&device).while_doing(&doing)?;
        let mut block = [0; SUPERBLOCK_BYTES];
        file.read_exact_at(&mut block, SUPERBLOCK_AT).while_doing(&doing)?;
        let bytes = file.seek(SeekFrom::End(0)).while_doing(&doing)?;
        Ok(larger(&block, bytes))
    }

    /// Waits until the kernel knows that it has so many bytes.
    pub fn has_grown_to(self, bytes: u64) -> Result<(), Fault> {
        let device = self.device();
        let doing = format!("waiting for {} to grow", device.display());
        let begun = clock::now();
        while File::open(&device).and_then(|mut file| file.seek(SeekFrom::End(0))).while_doing(&doing)? < bytes {
            if begun.elapsed() > GROWTH_PATIENCE {
                return Err(Fault::new(doing, format!("it has no {bytes} bytes after {GROWTH_PATIENCE:?}")));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The blocks of a disk with so many bytes, if its file system, which begins so, has fewer.
fn larger(superblock: &[u8; SUPERBLOCK_BYTES], bytes: u64) -> Option<u64> {
    let number = |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|next| superblock[at + next])));
    // `s_log_block_size`, `s_blocks_count_lo` and `s_blocks_count_hi`. No block is larger than a page.
    let (shift, blocks) = (10 + number(24).min(2), number(4) | number(336) << 32);
    Some(bytes >> shift).filter(|all| *all > blocks)
}

/// Waits for a file that the kernel is about to make.
pub fn appears(path: &Path) -> Result<(), Fault> {
    let begun = clock::now();
    while !path.exists() {
        if begun.elapsed() > PATIENCE {
            return Err(Fault::new(format!("waiting for {}", path.display()), format!("not there after {PATIENCE:?}")));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// The kernel's name of a disk: `vda` to `vdz`, `vdaa` and on.
fn name(mut place: u32) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(b'a' + (place % 26) as u8);
        if place < 26 {
            break;
        }
        place = place / 26 - 1;
    }
    letters.iter().rev().fold("vd".to_owned(), |name, letter| name + &char::from(*letter).to_string())
}

/// Writes to the log what of the machine's disks is there, when one is missing.
pub fn tell_what_is_there() {
    let names: Vec<String> = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    sys::say(&format!("disks: {}", names.join(" ")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_named_as_the_kernel_does() {
        let named = |disk: Disk| disk.device().display().to_string();
        assert_eq!(named(Disk::Base), "/dev/vda");
        assert_eq!(named(Disk::Session), "/dev/vdb");
        assert_eq!(named(Disk::Layer(0)), "/dev/vdc");
        assert_eq!(named(Disk::Layer(23)), "/dev/vdz");
        assert_eq!(named(Disk::Layer(24)), "/dev/vdaa");
        assert_eq!(named(Disk::Layer(24 + 26)), "/dev/vdba");
        assert_eq!(name(26 + 26 * 26), "vdaaa");
    }

    #[test]
    fn a_file_system_grows_when_its_disk_has_more_blocks() {
        let mut superblock = [0; SUPERBLOCK_BYTES];
        superblock[24] = 2;
        superblock[4..8].copy_from_slice(&100_u32.to_le_bytes());
        assert_eq!(larger(&superblock, 100 * 4096), None);
        assert_eq!(larger(&superblock, 101 * 4096 - 1), None);
        assert_eq!(larger(&superblock, 101 * 4096), Some(101));
        superblock[336] = 1;
        assert_eq!(larger(&superblock, 101 * 4096), None);
    }
}
