//! Reads a tree that a stranger wrote, and may be writing now.

use super::{Content, FileEntry, FileKind, FileSink, FilesRead};
use loopd_domain::limits::{FILE_DEPTH_MAX, FILE_PATH_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Opening must not wait for the other end of a pipe that took a file's place.
const OPEN_FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Hands everything in the `parts` of `root` to `sink`, sorted by name. A part that is not there is empty.
pub fn read_tree(root: &Path, parts: &[&str], sink: &mut dyn FileSink) -> io::Result<FilesRead> {
    let mut walk = Walk { sink, read: FilesRead::default() };
    for part in parts {
        match rustix::fs::openat(CWD, root.join(part), OPEN_DIRECTORY, Mode::empty()) {
            Ok(directory) => walk.descend(&directory, Path::new(part), 1)?,
            Err(Errno::NOENT) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(walk.read)
}

struct Walk<'a> {
    sink: &'a mut dyn FileSink,
    read: FilesRead,
}

impl Walk<'_> {
    fn descend(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        for name in names(directory)? {
            let path = path.join(OsStr::from_bytes(name.as_bytes()));
            match self.visit(directory, &name, &path, depth) {
                // It went away, became something else, or is closed to us.
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::ACCESS) => self.read.skipped += 1,
                Err(fault) => return Err(io::Error::from(fault)),
                Ok(Visited::Skipped) => self.read.skipped += 1,
                Ok(Visited::Directory(inner, stat)) => {
                    self.put(entry(path.clone(), FileKind::Directory, &stat), Content::None)?;
                    self.descend(&inner, &path, depth + 1)?;
                }
                Ok(Visited::Link(target, stat)) => {
                    self.put(entry(path, FileKind::Link { target }, &stat), Content::None)?;
                }
                Ok(Visited::File(file, stat)) => {
                    let kind = FileKind::File { bytes: stat.st_size.max(0) as u64 };
                    self.put(entry(path, kind, &stat), Content::File(&file))?;
                }
            }
        }
        Ok(())
    }

    fn visit(&self, directory: &OwnedFd, name: &CString, path: &Path, depth: usize) -> Result<Visited, Errno> {
        let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if depth >= FILE_DEPTH_MAX || path.as_os_str().len() > FILE_PATH_BYTES_MAX {
            return Ok(Visited::Skipped);
        }
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let inner = rustix::fs::openat(directory, name, OPEN_DIRECTORY, Mode::empty())?;
                let stat = rustix::fs::fstat(&inner)?;
                Ok(Visited::Directory(inner, stat))
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                Ok(Visited::Link(OsString::from_vec(target.into_bytes()), found))
            }
            FileType::RegularFile => {
                let file = rustix::fs::openat(directory, name, OPEN_FILE, Mode::empty())?;
                let stat = rustix::fs::fstat(&file)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => Ok(Visited::File(File::from(file), stat)),
                    _ => Ok(Visited::Skipped),
                }
            }
            _ => Ok(Visited::Skipped),
        }
    }

    fn put(&mut self, entry: FileEntry, content: Content<'_>) -> io::Result<()> {
        self.read.files += 1;
        if let FileKind::File { bytes } = entry.kind {
            self.read.bytes = self.read.bytes.saturating_add(bytes);
        }
        if self.read.files > FILES_MAX || self.read.bytes > FILES_BYTES_MAX {
            let told =
                format!("the session has too many files; accepted: up to {FILES_MAX} and {FILES_BYTES_MAX} bytes");
            return Err(super::invalid(told));
        }
        self.sink.put(&entry, content)
    }
}

enum Visited {
    Directory(OwnedFd, Stat),
    Link(OsString, Stat),
    File(File, Stat),
    Skipped,
}

fn entry(path: PathBuf, kind: FileKind, stat: &Stat) -> FileEntry {
    FileEntry { path, kind, mode: stat.st_mode & 0o777, modified_s: stat.st_mtime }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for found in Dir::read_from(directory)? {
        let name = found?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
        if names.len() as u64 > FILES_MAX {
            return Err(super::invalid(format!("a directory has too many files; accepted: up to {FILES_MAX}")));
        }
    }
    names.sort();
    Ok(names)
}
