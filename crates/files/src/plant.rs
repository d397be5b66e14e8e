//! Writes a tree that a stranger described: below the parts of one directory and nowhere else.
//!
//! Every name on the way is opened by itself and must be a directory, so no link leads anywhere; every entry must be new, so
//! nothing is written over. Nobody else may be at work in there.

use super::{Content, FileEntry, FileKind, FileSink, FileWriter, invalid};
use loopd_domain::limits::{FILE_DEPTH_MAX, FILE_PATH_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

const OPEN_PARENT: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Stretches of zeros of this length become holes again.
const BLOCK: usize = 64 << 10;

/// Fills the parts of one directory.
pub struct TreeWriter {
    parts: Vec<Part>,
    /// Modes and times are set at the end: a directory may forbid what is to be written into it.
    directories: Vec<(PathBuf, u32, i64)>,
    files: u64,
    bytes: u64,
}

struct Part {
    name: String,
    directory: OwnedFd,
    /// Whose everything in it is; `None`: the server's own.
    owner: Option<u32>,
}

impl TreeWriter {
    /// The parts are there already, with their owners.
    pub fn new(root: &Path, parts: &[(&str, Option<u32>)]) -> io::Result<Self> {
        let open = |(name, owner): &(&str, Option<u32>)| -> io::Result<Part> {
            let directory = rustix::fs::openat(CWD, root.join(name), OPEN_PARENT, Mode::empty())?;
            Ok(Part { name: (*name).to_owned(), directory, owner: *owner })
        };
        let parts = parts.iter().map(open).collect::<io::Result<_>>()?;
        Ok(TreeWriter { parts, directories: Vec::new(), files: 0, bytes: 0 })
    }

    /// The directory that an entry is to be made in, its owner, and the entry's name. `None`: the entry is a part itself.
    fn place(&self, path: &Path) -> io::Result<Option<(OwnedFd, Option<u32>, OsString)>> {
        let names = names(path)?;
        let (first, rest) = names.split_first().ok_or_else(|| invalid("a file without a name".to_owned()))?;
        let part = self.parts.iter().find(|p| OsStr::new(&p.name) == *first).ok_or_else(|| {
            let known: Vec<&str> = self.parts.iter().map(|p| p.name.as_str()).collect();
            invalid(format!("`{}` is in no part of a session; accepted: `{}`", path.display(), known.join("`, `")))
        })?;
        let Some((name, parents)) = rest.split_last() else { return Ok(None) };
        let mut at = part.directory.try_clone()?;
        for parent in parents {
            at = match rustix::fs::openat(&at, *parent, OPEN_PARENT, Mode::empty()) {
                Err(Errno::NOENT) => make_directory(&at, parent, part.owner)?,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let told =
                        format!("`{}` leads through `{}`, which is no directory", path.display(), parent.display());
                    return Err(invalid(told));
                }
                other => other?,
            };
        }
        Ok(Some((at, part.owner, (*name).to_owned())))
    }

    fn count(&mut self, entry: &FileEntry) -> io::Result<()> {
        self.files += 1;
        if let FileKind::File { bytes } = entry.kind {
            self.bytes = self.bytes.saturating_add(bytes);
        }
        match self.files > FILES_MAX || self.bytes > FILES_BYTES_MAX {
            true => Err(invalid(format!("too many files; accepted: up to {FILES_MAX} and {FILES_BYTES_MAX} bytes"))),
            false => Ok(()),
        }
    }
}

impl FileSink for TreeWriter {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        self.count(entry)?;
        let mode = entry.mode & 0o777;
        let Some((parent, owner, name)) = self.place(&entry.path)? else {
            return match entry.kind {
                FileKind::Directory => Ok(()),
                _ => Err(invalid(format!("`{}` is not a directory", entry.path.display()))),
            };
        };
        let twice = |fault: Errno| match fault {
            Errno::EXIST => invalid(format!("`{}` stands there twice", entry.path.display())),
            fault => fault.into(),
        };
        match &entry.kind {
            FileKind::Directory => {
                make_directory(&parent, &name, owner)?;
                self.directories.push((entry.path.clone(), mode, entry.modified_s));
            }
            FileKind::Link { target } => {
                rustix::fs::symlinkat(target, &parent, &name).map_err(twice)?;
                own(&parent, &name, owner)?;
            }
            FileKind::File { bytes } => {
                let file =
                    File::from(rustix::fs::openat(&parent, &name, NEW_FILE, Mode::RUSR | Mode::WUSR).map_err(twice)?);
                match content {
                    Content::File(from) => copy(from, &file, *bytes)?,
                    Content::Stream(from) => pour(from, &file, *bytes)?,
                    Content::None => {}
                }
                own(&parent, &name, owner)?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
                rustix::fs::futimens(&file, &times(entry.modified_s))?;
            }
        }
        Ok(())
    }
}

impl FileWriter for TreeWriter {
    fn finish(self: Box<Self>) -> io::Result<()> {
        for (path, mode, modified_s) in self.directories.iter().rev() {
            let Some((parent, _, name)) = self.place(path)? else { continue };
            // A handle is surely the directory that was made, and changing modes by name could follow nothing else.
            let made = rustix::fs::openat(&parent, &name, OPEN_PARENT, Mode::empty())?;
            rustix::fs::utimensat(&parent, &name, &times(*modified_s), AtFlags::SYMLINK_NOFOLLOW)?;
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&made));
            rustix::fs::chmod(path, Mode::from_raw_mode(*mode))?;
        }
        Ok(())
    }
}

/// The names of a path that stays below where it begins.
pub(crate) fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    let shown = || {
        let text = path.display().to_string();
        text.chars().take(80).collect::<String>()
    };
    if path.as_os_str().len() > FILE_PATH_BYTES_MAX {
        return Err(invalid(format!("`{}…` is too long; accepted: up to {FILE_PATH_BYTES_MAX} bytes", shown())));
    }
    let names: Option<Vec<&OsStr>> = path
        .components()
        .filter(|c| !matches!(c, Component::CurDir))
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    match names {
        Some(names) if names.len() <= FILE_DEPTH_MAX => Ok(names),
        Some(_) => Err(invalid(format!("`{}…` is too deep; accepted: up to {FILE_DEPTH_MAX} levels", shown()))),
        None => Err(invalid(format!("`{}` leads out; accepted: a path below the session's directory", shown()))),
    }
}

/// Makes a directory, or finds one that is there.
fn make_directory(parent: &OwnedFd, name: &OsStr, owner: Option<u32>) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => own(parent, name, owner)?,
        Err(Errno::EXIST) => {}
        Err(fault) => return Err(fault.into()),
    }
    rustix::fs::openat(parent, name, OPEN_PARENT, Mode::empty()).map_err(|fault| match fault {
        Errno::LOOP | Errno::NOTDIR => invalid(format!("`{}` is there already and is no directory", name.display())),
        fault => fault.into(),
    })
}

fn own(parent: &OwnedFd, name: &OsStr, owner: Option<u32>) -> io::Result<()> {
    let Some(id) = owner else { return Ok(()) };
    let (user, group) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
    Ok(rustix::fs::chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(modified_s: i64) -> Timestamps {
    let at = Timespec { tv_sec: modified_s, tv_nsec: 0 };
    Timestamps { last_access: at, last_modification: at }
}

/// Shares the blocks where the file system can, else copies what is there and leaves holes as holes.
fn copy(from: &File, to: &File, bytes: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_err() {
        let mut at = 0;
        while at < bytes {
            let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(data) if data < bytes => data,
                // Nothing but a hole follows.
                Ok(_) | Err(Errno::NXIO) => break,
                Err(fault) => return Err(fault.into()),
            };
            let end = rustix::fs::seek(from, SeekFrom::Hole(data)).unwrap_or(bytes).clamp(data, bytes);
            copy_range(from, to, data, end)?;
            at = end.max(data + 1);
        }
    }
    to.set_len(bytes)
}

fn copy_range(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX);
        let (mut source, mut target) = (at, at);
        match rustix::fs::copy_file_range(from.as_fd(), Some(&mut source), to.as_fd(), Some(&mut target), length) {
            // It became shorter meanwhile.
            Ok(0) => return Ok(()),
            Ok(copied) => at += copied as u64,
            // Between file systems that cannot.
            Err(_) => return copy_bytes(from, to, at, end),
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    while at < end {
        let most = block.len().min(usize::try_from(end - at).unwrap_or(BLOCK));
        let read = from.read_at(&mut block[..most], at)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all_at(&block[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

/// Writes a stream of `bytes` bytes; zeros are left out.
fn pour(from: &mut dyn Read, to: &File, bytes: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < bytes {
        let most = block.len().min(usize::try_from(bytes - at).unwrap_or(BLOCK));
        from.read_exact(&mut block[..most])?;
        if block[..most].iter().any(|byte| *byte != 0) {
            to.write_all_at(&block[..most], at)?;
        }
        at += most as u64;
    }
    to.set_len(bytes)
}
