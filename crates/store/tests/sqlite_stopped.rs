//! A process that is stopped in the middle of a transaction keeps SQLite's lock: who takes the directory over ends it.
//!
//! The test starts itself again as that process. It stops itself between its writes and their commit.

use loopd_store::Store;
use loopd_store::chain::verify_session;
use loopd_store::conformance::sample::{Pen, at, message, session};
use loopd_store::hold::{Hold, Terms};
use loopd_store::sqlite::{Faults, SqliteStore};
use rustix::process::{Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Set in the child: where the store is.
const STORE: &str = "LOOPD_TEST_STOPPED_STORE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_sleeps_in_a_transaction_is_ended() {
    if let Some(path) = std::env::var_os(STORE) {
        return write_until_stopped(&PathBuf::from(path)).await;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("loopd.db");
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "one_that_sleeps_in_a_transaction_is_ended", "--nocapture"])
        .env(STORE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let id = lines.filter_map(|line| line.strip_prefix("wrote ").map(str::to_owned)).next().expect("it wrote");
    let stat = format!("/proc/{}/stat", child.id());
    while !std::fs::read_to_string(&stat).expect("there").contains(") T ") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lock = std::fs::File::open(directory.path().join("lock")).expect("there");
    let long_ago = lock.metadata().expect("read").modified().expect("a time") - Duration::from_secs(3_600);
    lock.set_modified(long_ago).expect("set");

    let terms = Terms { lease: Duration::from_millis(200), ..Terms::default() };
    let hold = Hold::take(directory.path(), &terms).expect("it shows no sign of life");
    assert_eq!(hold.replaced().map(|holder| holder.process.pid), Some(child.id()));
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open_in(&path, Arc::new(hold)).expect("its locks are gone"));
    assert_eq!(child.wait().expect("it ended").signal(), Some(Signal::KILL.as_raw()));

    let id = loopd_domain::SessionId::parse("session", &id).expect("an id");
    let proof = verify_session(store.journal(), &id).await.expect("readable").expect("there").expect("whole");
    assert_eq!(proof.head.seq, 1, "what was acknowledged, and nothing of what was not committed");
    // Ids of this process and of that one are the same numbers.
    let mut next = session(at(5));
    next.id = loopd_domain::SessionId::parse("session", "sesn_next").expect("an id");
    Pen::create(&store, next, vec![message("on")]).await;
}

async fn write_until_stopped(path: &Path) {
    let stops = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let armed = stops.clone();
    let faults = Faults {
        before_commit: Some(Arc::new(move |_| {
            if armed.load(std::sync::atomic::Ordering::SeqCst) {
                kill_process(rustix::process::getpid(), Signal::STOP).expect("stopped");
                // The signal may be another thread's to take, and this one would go on for a moment.
                std::thread::sleep(Duration::from_secs(60));
            }
            Ok(())
        })),
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open_with(path, faults).expect("opens"));
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    stops.store(true, std::sync::atomic::Ordering::SeqCst);
    println!("wrote {}", pen.session.id);
    pen.append(vec![message("never acknowledged")]).await.expect("never");
}
