//! The directory of a session on the host: what outlives its rooms.
//!
//! ```text
//!  <directory>/workspace   /workspace              tools
//!              home        /home/agent             tools
//!              outputs     /mnt/session/outputs    tools
//!              uploads     /mnt/session/uploads    cell: tools may read only
//!              memory      /mnt/memory             cell: tools may read only
//! ```
//!
//! An ordinary user has but one id, and then all of it is writable to the tools.
//!
//! The session sees what is in these five and nothing above, so the names themselves are safe to follow; what is below them
//! was written by a stranger and is never followed.

use crate::room::ids::{self, Ids};
use loopd_jail::ids::PARTS;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Whether it is a directory of ours, made to its end.
pub(super) fn is_complete(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join("workspace")).is_ok()
}

/// The ids of a session whose directory is complete; `None` when there is something to [`prepare`].
pub(super) fn known(directory: &Path, has_ids: bool) -> io::Result<Option<Option<u32>>> {
    match fs::symlink_metadata(directory.join("workspace")) {
        Ok(_) if !has_ids => Ok(Some(None)),
        Ok(found) => Ok(ids::first_of(found.uid()).map(Some)),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Makes what is missing. Answers the first of the session's ids; `ids: None` when there are none to give (ordinary user).
pub(super) fn prepare(directory: &Path, ids: Option<&Ids>) -> io::Result<Option<u32>> {
    if let Some(known) = known(directory, ids.is_some())? {
        return Ok(known);
    }
    let first = ids.map(Ids::allocate).transpose()?;
    furnish(directory, first)?;
    Ok(first)
}

fn furnish(directory: &Path, first: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for (name, whose) in PARTS {
        let part = directory.join(name);
        match fs::create_dir(&part) {
            Ok(()) => fs::set_permissions(&part, Permissions::from_mode(0o755))?,
            Err(fault) if fault.kind() == ErrorKind::AlreadyExists => {}
            Err(fault) => return Err(fault),
        }
        if let Some(first) = first {
            give(&part, first + whose)?;
        }
    }
    Ok(())
}

/// Gives a tree to an owner. It is empty but for a session that was begun by an ordinary user, or restored from a copy.
fn give(path: &Path, owner: u32) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), owner)?;
        }
    }
    lchown(path, Some(owner), Some(owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_jail::ids::AGENT_OFFSET;

    #[test]
    fn a_session_keeps_its_ids() {
        let data = tempfile::tempdir().unwrap();
        let root = rustix::process::geteuid().is_root();
        let ids = root.then(|| Ids::in_directory(data.path()));
        let first = prepare(&data.path().join("a"), ids.as_ref()).unwrap();
        assert_eq!(first.is_some(), root);
        assert_eq!(prepare(&data.path().join("a"), ids.as_ref()).unwrap(), first);
        if root {
            assert_ne!(prepare(&data.path().join("b"), ids.as_ref()).unwrap(), first);
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_taken_over_whole() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let workspace = data.path().join("a/workspace");
        fs::create_dir_all(workspace.join("deep")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", workspace.join("deep/link")).unwrap();
        let first = prepare(&data.path().join("a"), Some(&Ids::in_directory(data.path()))).unwrap().unwrap();
        for path in ["", "deep", "deep/link"] {
            let owner = fs::symlink_metadata(workspace.join(path)).unwrap().uid();
            assert_eq!(owner, first + AGENT_OFFSET, "{path}");
        }
        assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
    }
}
