//! The data directory: made, held by one process at a time, and passed on from one to the next.
//!
//! The hold itself (`<data>/lock`) is the store's, see [`loopd_store::hold`]. Here is how a command comes to it: what it waits
//! for, whom it asks to leave, and what it says when it must give up. What else lies in the directory belongs to the store and
//! to the rooms.
//!
//! ```text
//!  serve ─► free ──────────────────────────────────────► held
//!       ├─► the holder stops ──── wait up to WAIT ─────► held
//!       ├─► it works: `--take-over` asks it to stop ───► as above;  without that: refused
//!       └─► it shows no sign of life ── replaced ──────► held; the other ends when it finds out
//! ```

use crate::exit::Exit;
use loopd_store::hold::{Hold, HoldError, Holder, Terms};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The key that a running server takes as its operator's.
const OPERATOR_FILE: &str = "operator";
/// How long a server waits for one that stops.
const WAIT: Duration = Duration::from_secs(60);
/// How long a server that has been told to stop may take to say so, on a machine that is busy with the next one's start.
const HEARING: Duration = Duration::from_millis(500);
/// Between two looks whether it has stopped.
const LOOK: Duration = Duration::from_millis(50);

/// A data directory that this process holds until it ends or drops this.
pub struct DataDir {
    path: PathBuf,
    hold: Arc<Hold>,
    /// Somebody else had it until just now.
    inherited: bool,
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataDir({})", self.path.display())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("data directory `{path}`: {source}; accepted: a directory that this user may write, see --data")]
    Unusable { path: PathBuf, source: io::Error },
    #[error("data directory `{path}` is in use by {}", told(holder))]
    InUse { path: PathBuf, holder: Holder },
    #[error(
        "data directory `{path}` is in use by another loopd; wait for it to end, or choose another one with --data"
    )]
    InUseByUnknown { path: PathBuf },
    #[error("data directory `{path}`: process {} was to stop and has not within {} s; end it, or wait", holder.process.pid, WAIT.as_secs())]
    DoesNotStop { path: PathBuf, holder: Holder },
    #[error("data directory `{path}`: process {} cannot be asked to stop: {source}", holder.process.pid)]
    NotAsked { path: PathBuf, holder: Holder, source: io::Error },
}

fn told(holder: &Holder) -> String {
    let pid = holder.process.pid;
    match &holder.url {
        _ if holder.stopping => format!("a loopd (process {pid}) that is stopping; try again in a moment"),
        Some(url) => format!(
            "a loopd server (process {pid}) at {url}; set LOOPD_URL={url} to use that server, or choose another directory \
             with --data"
        ),
        None => format!(
            "another loopd command (process {pid}); wait for it to end, or choose another directory with --data"
        ),
    }
}

impl DataDir {
    /// Makes the directory if need be, readable by its owner only, and holds it if nobody does. Takes it from nobody.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::take(path, &Terms { replaces: false, on_lost: Arc::new(end), ..Terms::default() })
    }

    /// The same, patiently: waits for a holder that stops, asks one that works to stop if `take_over` says so, and replaces one
    /// that shows no sign of life.
    pub async fn succeed(path: &Path, lease: Duration, take_over: bool) -> Result<Self, DataError> {
        let terms = Terms { lease, replaces: true, on_lost: Arc::new(end) };
        let began = Instant::now();
        let deadline = began + WAIT;
        let mut waits_for: Option<Holder> = None;
        let mut had_holder = false;
        loop {
            let (place, terms) = (path.to_owned(), terms.clone());
            // Taking may watch a silent holder for some seconds.
            let taken = tokio::task::spawn_blocking(move || Self::take(&place, &terms)).await;
            let taken = taken.unwrap_or_else(|fault| {
                Err(DataError::Unusable { path: path.to_owned(), source: io::Error::other(fault) })
            });
            let holder = match taken {
                Err(DataError::InUse { holder, .. }) => holder,
                outcome => {
                    return outcome.map(|dir| DataDir { inherited: dir.inherited || had_holder, ..dir });
                }
            };
            had_holder = true;
            let path = path.to_owned();
            match &waits_for {
                None if holder.stopping => {
                    tracing::info!(pid = holder.process.pid, "the data directory's holder is stopping; waiting for it");
                }
                None if take_over => {
                    tracing::info!(pid = holder.process.pid, "asking the data directory's holder to stop");
                    if let Err(source) = holder.process.terminate() {
                        return Err(DataError::NotAsked { path, holder, source });
                    }
                }
                None if began.elapsed() < HEARING => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                // Whoever comes in between is not the one that was asked.
                Some(first) if first.process == holder.process || holder.stopping => {}
                _ => return Err(DataError::InUse { path, holder }),
            }
            if Instant::now() >= deadline {
                return Err(DataError::DoesNotStop { path, holder });
            }
            waits_for.get_or_insert(holder);
            tokio::time::sleep(LOOK).await;
        }
    }

    fn take(path: &Path, terms: &Terms) -> Result<Self, DataError> {
        let unusable = |source| DataError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let absolute = path.canonicalize().map_err(unusable)?;
        let hold = Hold::take(&absolute, terms).map_err(|fault| match fault {
            HoldError::Held { holder: Some(holder), .. } => DataError::InUse { path: path.to_owned(), holder },
            HoldError::Held { holder: None, .. } => DataError::InUseByUnknown { path: path.to_owned() },
            HoldError::Unusable { source, .. } => unusable(source),
        })?;
        let inherited = hold.replaced().is_some();
        if let Some(holder) = hold.replaced() {
            tracing::error!(
                pid = holder.process.pid,
                path = %absolute.display(),
                "the data directory's holder showed no sign of life; this process has the directory now, and the other one \
                 ends when it finds out"
            );
        }
        Ok(DataDir { path: absolute, hold: Arc::new(hold), inherited })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn hold(&self) -> Arc<Hold> {
        self.hold.clone()
    }

    /// Somebody else had the directory until just now, and may still have other things, such as an address.
    pub fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Who was replaced, and may still be there.
    pub fn replaced(&self) -> Option<&Holder> {
        self.hold.replaced()
    }

    /// Leaves the key of whoever runs the server where only this user can read it: for commands that find the directory in use.
    pub fn leave_operator_key(&self, key: &str) -> io::Result<()> {
        let path = self.path.join(OPERATOR_FILE);
        // Whatever lies there, and however it may be read, is of an earlier server.
        match std::fs::remove_file(&path) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key.as_bytes())
    }

    pub fn remove_operator_key(&self) {
        match std::fs::remove_file(self.path.join(OPERATOR_FILE)) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%fault, "the operator's key could not be removed; it opens nothing any more");
            }
            _ => {}
        }
    }

    /// The operator's key of the server that uses the directory.
    pub fn operator_key(path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path.join(OPERATOR_FILE))
    }

    /// Leaves word of where this process serves, for whoever wants the directory next.
    pub fn announce(&self, url: Option<String>) -> io::Result<()> {
        self.hold.say(url, false)
    }

    /// Tells whoever wants the directory next that it will be free soon.
    pub fn announce_stop(&self) {
        if let Err(fault) = self.hold.say(None, true) {
            tracing::warn!(%fault, "the next server cannot be told that this one stops");
        }
    }
}

/// This process was replaced: whatever it would still do is somebody else's by now. Called on the thread that finds out, which
/// may be about to acknowledge a write, so there is no orderly way to go from there.
fn end(lock: &Path) {
    let lock = lock.display();
    tracing::error!(%lock, "another loopd took the data directory over while this process showed no sign of life; ending");
    std::process::exit(i32::from(Exit::Replaced.code()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn one_holder_at_a_time_and_the_next_is_told_who() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("deep/data");
        let first = DataDir::open(&path).expect("free");
        assert_eq!(first.path(), path.canonicalize().expect("made"));
        let told = DataDir::open(&path).expect_err("held").to_string();
        assert!(told.contains("another loopd command"), "{told}");

        first.announce(Some("http://127.0.0.1:7007".to_owned())).expect("written");
        let told = DataDir::open(&path).expect_err("held").to_string();
        assert!(told.contains("set LOOPD_URL=http://127.0.0.1:7007"), "{told}");

        drop(first);
        DataDir::open(&path).expect("free again");
    }

    #[tokio::test]
    async fn a_server_waits_for_one_that_stops_and_for_no_other() {
        let root = tempfile::tempdir().expect("a directory");
        let first = DataDir::open(root.path()).expect("free");
        first.announce(Some("http://127.0.0.1:7007".to_owned())).expect("written");
        let told = DataDir::succeed(root.path(), LEASE, false).await.expect_err("it works");
        assert!(matches!(told, DataError::InUse { .. }), "{told}");

        first.announce_stop();
        let next = DataDir::succeed(root.path(), LEASE, false);
        let (second, ()) = tokio::join!(next, async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop(first);
        });
        assert!(second.expect("free by then").is_inherited());
    }

    #[test]
    fn is_private() {
        let root = tempfile::tempdir().expect("a directory");
        let data = DataDir::open(&root.path().join("data")).expect("free");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(data.path()), mode(&data.path().join("lock"))), (0o700, 0o600));
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        std::fs::write(&path, "").expect("written");
        let told = DataDir::open(&path).expect_err("a file").to_string();
        assert!(told.contains(&path.display().to_string()) && told.contains("--data"), "{told}");
    }
}
