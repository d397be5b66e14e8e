//! A process that is killed while it writes: what it was told is written is there, and every journal is whole.
//!
//! The test starts itself again as the writer, reads from its output what was acknowledged, and kills it.

use loopd_domain::{Seq, SessionId};
use loopd_store::Store;
use loopd_store::chain::verify_session;
use loopd_store::conformance::sample::{Pen, at, message, session};
use loopd_store::sqlite::SqliteStore;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Set in the child: where the store is.
const STORE: &str = "LOOPD_TEST_KILLED_STORE";
const SESSIONS: i64 = 16;
const ROUNDS: usize = 3;
/// Acknowledged appends after which the child is killed; differs from round to round.
const APPENDS: usize = 400;

fn open(path: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(path).expect("opens"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    if let Some(path) = std::env::var_os(STORE) {
        return write_until_killed(&PathBuf::from(path)).await;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("loopd.db");
    let mut acknowledged: HashMap<String, Seq> = HashMap::new();
    for round in 1..=ROUNDS {
        let told = run_and_kill(&path, APPENDS + 37 * round);
        assert!(told.len() >= APPENDS, "the child ended after {} appends", told.len());
        acknowledged.extend(told);
        // The lock of the dead is no lock.
        let store = open(&path);
        for (id, seq) in &acknowledged {
            let id = SessionId::parse("session", id).expect("an id");
            let proof = verify_session(store.journal(), &id).await.expect("readable").expect("there").expect("whole");
            let head = proof.head;
            assert!(head.seq >= *seq, "session `{id}` ends at {}, and {seq} had been acknowledged", head.seq);
        }
    }
    assert_eq!(acknowledged.len(), ROUNDS * SESSIONS as usize);
}

/// Lines `<session> <seq>`, in the order of acknowledgement, until there are enough.
fn run_and_kill(path: &Path, appends: usize) -> Vec<(String, Seq)> {
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "what_was_acknowledged_survives_kill_9", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let acknowledged = lines
        .map_while(Result::ok)
        .filter_map(|line| {
            let (id, seq) = line.strip_prefix("ack ")?.split_once(' ')?;
            Some((id.to_owned(), seq.parse().ok()?))
        })
        .take(appends)
        .collect();
    child.kill().expect("killed");
    child.wait().expect("reaped");
    acknowledged
}

async fn write_until_killed(path: &Path) {
    let store = open(path);
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..SESSIONS {
        let store = store.clone();
        writers.spawn(async move {
            // Ids of this process must differ from those of the rounds before.
            let mut session = session(at(n));
            session.id = SessionId::parse("session", &format!("sesn_{}n{n}", std::process::id())).expect("an id");
            let mut pen = Pen::create(&store, session, vec![]).await;
            for k in 0.. {
                pen.append(vec![message(&format!("{k}")), message(&"x".repeat(k % 3_000))]).await.expect("appended");
                writeln!(std::io::stdout(), "ack {} {}", pen.session.id, pen.session.fold.last_seq).expect("heard");
            }
        });
    }
    writers.join_all().await;
}
