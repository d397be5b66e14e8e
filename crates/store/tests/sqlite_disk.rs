//! A disk that fills up under an open store: a small file system in memory, mounted by the test.

use loopd_store::chain::verify_session;
use loopd_store::conformance::sample::{Pen, at, message, session};
use loopd_store::sqlite::SqliteStore;
use loopd_store::{AppendError, Store, StoreError};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Unmounted when it is dropped.
struct Disk(TempDir);

impl Disk {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let size = c"size=24m";
        match mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), size) {
            Ok(()) => Some(Disk(directory)),
            Err(fault) => {
                skip(&format!("a file system of its own cannot be mounted: {fault}"));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves not a byte.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).expect("made");
        for block in [1 << 20, 4_096, 1] {
            while file.write_all(&vec![0x6c; block]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).expect("unmounted");
    }
}

/// There is no silent pass: see `tests/src/lib.rs`.
fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("E2E_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "sqlite_disk: {reason}"))
            .expect("the list of skipped tests is writable");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_space_heals_it() {
    let Some(disk) = Disk::new() else { return };
    let path = disk.path().join("loopd.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).expect("opens"));
    let mut pens = Vec::new();
    for n in 0..4 {
        pens.push(Pen::create(&store, session(at(n)), vec![message("before")]).await);
    }
    for round in 0..3 {
        let ballast = disk.fill();
        let text = "x".repeat(256 << 10);
        let mut refusals = 0;
        while refusals < 8 {
            for pen in &mut pens {
                let before = pen.clone();
                match pen.append(vec![message(&text), message("small")]).await {
                    Ok(()) => {}
                    Err(AppendError::Store(StoreError::Unavailable(told))) => {
                        refusals += 1;
                        assert!(told.contains("disk is full"), "{told}");
                        assert_eq!(
                            pen.stored().await.as_ref(),
                            Some(&before.session),
                            "reads go on, and nothing moved"
                        );
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
        std::fs::remove_file(ballast).expect("removed");
        for pen in &mut pens {
            pen.append(vec![message(&format!("after {round}"))]).await.expect("there is space again");
        }
    }
    drop(store);
    let acknowledged: Vec<_> = pens.iter().map(|pen| (pen.session.id.clone(), pen.session.fold.last_seq)).collect();
    drop(pens);
    let store = SqliteStore::open(&path).expect("opens again");
    for (id, seq) in acknowledged {
        let proof = verify_session(store.journal(), &id).await.expect("readable").expect("there").expect("whole");
        assert_eq!(proof.head.seq, seq);
    }
}
