//! Removing a tree that a stranger made: as deep as it likes, with directories that forbid entry, and symbolic links.
//!
//! No recursion: directories found below the top are moved up beside it and emptied there, so depth costs neither stack nor
//! descriptors, and no path grows longer than two names.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Removes `directory` and all below it. Absent is fine. Nobody else may be writing in there.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    let top = match open(CWD, directory) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut moved = 0u64;
    loop {
        let (files, directories) = list(&top)?;
        for name in &files {
            rustix::fs::unlinkat(&top, name, AtFlags::empty())?;
        }
        if directories.is_empty() {
            break;
        }
        for name in &directories {
            flatten(&top, name, &mut moved)?;
        }
    }
    rustix::fs::rmdir(directory)
}

/// Removes one directory right below the top, moving what directories it has up to the top.
fn flatten(top: &OwnedFd, name: &CStr, moved: &mut u64) -> Result<()> {
    let directory = open(top, name)?;
    let (files, directories) = list(&directory)?;
    for file in &files {
        rustix::fs::unlinkat(&directory, file, AtFlags::empty())?;
    }
    for inner in &directories {
        // To move a directory is to write in it, as its entry `..` changes.
        open(&directory, inner.as_c_str())?;
        loop {
            *moved += 1;
            let place = format!(".removed-{moved}");
            match rustix::fs::renameat_with(&directory, inner, top, place, rustix::fs::RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => continue,
                other => break other?,
            }
        }
    }
    rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR)
}

/// Opens a directory; one of ours that forbids entry is made to allow it.
fn open(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(
        &parent,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode);
    if !rustix::process::geteuid().is_root() && !mode.contains(Mode::RWXU) {
        // The handle is surely a directory, which the name might no longer be.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        rustix::fs::chmod(path, Mode::RWXU)?;
    }
    rustix::fs::openat(&handle, c".", flags, Mode::empty())
}

/// Names in a directory: what can be unlinked, and directories.
fn list(directory: &OwnedFd) -> Result<(Vec<CString>, Vec<CString>)> {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(found.st_mode)
            }
            known => known,
        };
        match kind {
            FileType::Directory => directories.push(name.to_owned()),
            _ => files.push(name.to_owned()),
        }
    }
    Ok((files, directories))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn deep_forbidden_and_linked_trees_go_and_what_links_point_at_stays() {
        let data = tempfile::tempdir().unwrap();
        let (tree, other) = (data.path().join("tree"), data.path().join("other"));
        fs::create_dir_all(tree.join("forbidden/inner")).unwrap();
        fs::create_dir_all(tree.join(".removed-1/inner")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        symlink(&other, tree.join("link")).unwrap();
        symlink(&other, tree.join("forbidden/inner/link")).unwrap();
        fs::set_permissions(tree.join("forbidden"), fs::Permissions::from_mode(0o0)).unwrap();
        // Deeper than any path may be long, and than a process may hold descriptors.
        let mut at = rustix::fs::open(&tree, OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(other.join("kept").exists());
        remove(&tree).unwrap();
    }
}
