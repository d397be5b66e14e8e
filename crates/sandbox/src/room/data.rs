//! The data directory: where sessions' directories and the places of their rooms lie.

use crate::{RoomSpec, SandboxError};
use loopd_domain::SessionId;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// Where sessions' directories lie in it.
pub(crate) const SESSIONS: &str = "sessions";
/// Where places of rooms lie in it.
const ROOMS: &str = "rooms";

#[derive(Debug, Clone)]
pub(crate) struct Data {
    /// Absolute, without symbolic links.
    pub path: PathBuf,
    /// As the caller names it.
    named: PathBuf,
}

impl Data {
    /// Made when it is not there.
    pub(crate) fn open(data: &Path) -> io::Result<Self> {
        let named = std::path::absolute(data)?;
        if !data.exists() {
            fs::create_dir_all(data)?;
            fs::set_permissions(data, Permissions::from_mode(0o700))?;
        }
        let path = fs::canonicalize(data)?;
        let places = path.join(ROOMS);
        fs::create_dir_all(&places)?;
        fs::set_permissions(&places, Permissions::from_mode(0o700))?;
        Ok(Data { path, named })
    }

    /// The session's directory: below the data directory, and named as everybody will find it.
    pub(crate) fn locate(&self, spec: &RoomSpec) -> Result<PathBuf, SandboxError> {
        let path = std::path::absolute(&spec.directory)
            .map_err(|source| SandboxError::Directory { path: spec.directory.clone(), source })?;
        let path = match path.strip_prefix(&self.named) {
            Ok(rest) => self.path.join(rest),
            Err(_) => path,
        };
        self.relative(&path)?;
        Ok(path)
    }

    /// The path of a session's directory relative to the data directory; only what lies below that can get into a room.
    pub(crate) fn relative(&self, directory: &Path) -> Result<Vec<u8>, SandboxError> {
        let rest = directory.strip_prefix(&self.path).ok();
        let rest = rest.filter(|rest| rest.components().all(|part| matches!(part, Component::Normal(_))));
        match rest {
            Some(rest) if !rest.as_os_str().is_empty() => Ok(rest.as_os_str().as_bytes().to_vec()),
            _ => {
                let accepted =
                    format!("not below the data directory; accepted: a path below `{}`", self.path.display());
                let source = io::Error::new(ErrorKind::InvalidInput, accepted);
                Err(SandboxError::Directory { path: directory.to_owned(), source })
            }
        }
    }

    /// Where the session's room is recorded.
    pub(crate) fn place(&self, session: &SessionId) -> PathBuf {
        self.path.join(ROOMS).join(session.as_str())
    }

    /// Sessions that have a directory. Blocks.
    pub(crate) fn with_files(&self) -> Result<Vec<SessionId>, SandboxError> {
        let directory = self.path.join(SESSIONS);
        let mut found = sessions(&directory)?;
        found.retain(|session| directory.join(session.as_str()).is_dir());
        Ok(found)
    }

    /// Sessions that have a place. Blocks.
    pub(crate) fn with_places(&self) -> Result<Vec<SessionId>, SandboxError> {
        sessions(&self.path.join(ROOMS))
    }
}

/// What in a directory has a session's name.
fn sessions(directory: &Path) -> Result<Vec<SessionId>, SandboxError> {
    let fault = |source| SandboxError::Directory { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(absent) if absent.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(other) => return Err(fault(other)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(fault)?.file_name();
        found.extend(name.to_str().and_then(|name| SessionId::parse("session", name).ok()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_data_directory_are_taken() {
        let data = Data { path: "/data".into(), named: "/data".into() };
        assert_eq!(data.relative(Path::new("/data/sessions/a")).unwrap(), b"sessions/a");
        for path in ["/data", "/elsewhere/a", "/data/../etc", "/data/a/../../etc", "sessions/a"] {
            assert!(data.relative(Path::new(path)).is_err(), "{path}");
        }
    }
}
