//! The SQLite backend and what can be wrong with its file: full disk, failing commits, damage, strangers, neighbours.

use loopd_domain::SessionId;
use loopd_store::chain::{Broken, verify_session};
use loopd_store::conformance::sample::{Pen, at, message, session};
use loopd_store::hold::{Hold, Terms};
use loopd_store::sqlite::{Faults, SqliteStore};
use loopd_store::{AppendError, Redaction, Store, StoreError};
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("loopd.db");
    (directory, path)
}

fn open(path: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(path).expect("opens"))
}

fn refused(path: &Path) -> StoreError {
    SqliteStore::open(path).err().expect("refused")
}

/// While one commit is on its way to disk, the writes of other sessions gather for the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_share_a_commit() {
    const SESSIONS: usize = 32;
    let (_directory, path) = place();
    let (commits, (gate, closed)) = (Arc::new(AtomicI64::new(0)), std::sync::mpsc::channel::<()>());
    let (counted, closed) = (commits.clone(), std::sync::Mutex::new(closed));
    let before_commit = move |_: &Connection| {
        // Nobody sends: the first waits until the gate is gone, and the others find it gone.
        let _ = closed.lock().expect("whole").recv();
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    let faults = Faults { before_commit: Some(Arc::new(before_commit)) };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open_with(&path, faults).expect("opens"));
    let write = |store: Arc<dyn Store>| {
        tokio::spawn(async move { Pen::create(&store, session(at(0)), vec![message("a")]).await })
    };
    let all: Vec<_> = (0..SESSIONS).map(|_| write(store.clone())).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(gate);
    for written in all {
        written.await.expect("written");
    }
    let commits = commits.load(Ordering::SeqCst);
    assert!(commits < SESSIONS as i64 / 4, "{commits} commits for {SESSIONS} sessions");
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_acknowledged_and_space_heals_it() {
    let (_directory, path) = place();
    // The largest size of the database, in pages; 0 asks for what it is now.
    let pages = Arc::new(AtomicI64::new(1 << 20));
    let limit = pages.clone();
    let faults = Faults {
        before_commit: Some(Arc::new(move |db: &Connection| {
            let pages = limit.load(Ordering::Relaxed);
            db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).map_err(StoreError::from)
        })),
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open_with(&path, faults).expect("opens"));
    let mut pen = Pen::create(&store, session(at(0)), vec![message("before")]).await;
    pages.store(1, Ordering::Relaxed);
    pen.append(vec![message("small")]).await.expect("the limit holds from the next write on");
    let before = (pen.stored().await, pen.events().await);

    let large = "x".repeat(1 << 20);
    for _ in 0..3 {
        match pen.append(vec![message(&large)]).await {
            Err(AppendError::Store(StoreError::Unavailable(told))) => assert!(told.contains("disk is full"), "{told}"),
            other => panic!("{other:?}"),
        }
        assert_eq!((pen.stored().await, pen.events().await), before);
    }
    pages.store(1 << 20, Ordering::Relaxed);
    // A write that needs no page takes the new limit along.
    store.journal().renew(&loopd_store::OwnerId("nobody".to_owned()), at(0)).await.expect("written");
    pen.append(vec![message(&large)]).await.expect("there is space again");
    assert_eq!(pen.events().await.len(), 3);
}

#[tokio::test]
async fn a_commit_that_fails_has_no_effect_on_any_of_its_writes() {
    let (_directory, path) = place();
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let faults = Faults {
        before_commit: Some(Arc::new(move |_| match fails.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable("pulled the plug".to_owned())),
            false => Ok(()),
        })),
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open_with(&path, faults).expect("opens"));
    let mut pens = Vec::new();
    for n in 0..8 {
        pens.push(Pen::create(&store, session(at(n)), vec![message("a")]).await);
    }
    let mut hint = store.journal().watch(&pens[0].session.id);
    failing.store(true, Ordering::Relaxed);
    let appends = pens.iter().map(|pen| {
        let mut pen = pen.clone();
        tokio::spawn(async move { pen.append(vec![message("b")]).await })
    });
    for append in appends.collect::<Vec<_>>() {
        let told = append.await.expect("no panic").expect_err("failed");
        assert!(matches!(told, AppendError::Store(StoreError::Unavailable(_))), "{told:?}");
    }
    failing.store(false, Ordering::Relaxed);
    assert!(!hint.has_changed().expect("open"), "woken for what is not there");
    for pen in &mut pens {
        assert_eq!(pen.events().await.len(), 1);
        pen.append(vec![message("b")]).await.expect("tried afresh");
    }
    assert_eq!(*hint.borrow_and_update(), 2);
}

#[tokio::test]
async fn damage_is_named_and_a_broken_chain_is_found() {
    let (_directory, path) = place();
    let store = open(&path);
    let mut ids = Vec::new();
    for n in 0..4 {
        let pen = Pen::create(&store, session(at(n)), vec![message("a"), message("b"), message("c")]).await;
        ids.push(pen.session.id);
    }
    drop(store);
    let db = Connection::open(&path).expect("opens");
    let of = |n: usize| format!("place >> 32 = (SELECT key FROM sessions WHERE id = '{}')", ids[n]);
    let harm = |sql: String| assert_eq!(db.execute(&sql, []).expect("harmed"), 1);
    harm(format!("UPDATE events SET payload = '{{}}' WHERE {} AND place & 0xffffffff = 2", of(0)));
    harm(format!("UPDATE events SET payload = replace(payload, 'b', 'B') WHERE {} AND place & 0xffffffff = 2", of(1)));
    harm(format!("DELETE FROM events WHERE {} AND place & 0xffffffff = 3", of(2)));
    drop(db);

    let store = open(&path);
    let told = store.journal().read(&ids[0], 0, 10).await.expect_err("damaged").to_string();
    assert!(told.contains("damaged") && told.contains(ids[0].as_str()) && told.contains("entry 2"), "{told}");
    let verdict = async |id: &SessionId| verify_session(store.journal(), id).await.expect("readable").expect("there");
    assert_eq!(verdict(&ids[0]).await, Err(Broken::Changed { seq: 2 }));
    assert_eq!(verdict(&ids[1]).await, Err(Broken::Changed { seq: 2 }));
    assert_eq!(verdict(&ids[2]).await, Err(Broken::Cut { expected: 3, found: 2 }));
    assert!(verdict(&ids[3]).await.is_ok());
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let (directory, path) = place();
    let first = SqliteStore::open(&path).expect("opens");
    let told = refused(&path).to_string();
    assert!(told.contains("another loopd uses the directory"), "{told}");
    assert!(told.contains(&directory.path().display().to_string()), "{told}");
    drop(first);
    SqliteStore::open(&path).expect("free again");
}

/// Small and large, among neighbours that write in between: no file of the store holds the text afterwards.
#[tokio::test]
async fn what_was_redacted_is_in_no_file() {
    let (directory, path) = place();
    let store = open(&path);
    let mut pens = Vec::new();
    for n in 0..8 {
        pens.push(Pen::create(&store, session(at(n)), vec![message("hello")]).await);
    }
    let secret = |n: usize| format!("hunter2 {}", "correct horse battery staple ".repeat([1, 40, 4_000][n % 3]));
    for round in 0..12 {
        for (n, pen) in pens.iter_mut().enumerate() {
            let text = if n == 3 { secret(round) } else { format!("{n} {round} ").repeat(100) };
            pen.append(vec![message(&text)]).await.expect("appended");
        }
    }
    let holds = || {
        let files = std::fs::read_dir(directory.path()).expect("listed").map(|f| f.expect("a file").path());
        let has = |file: &PathBuf| {
            let bytes = std::fs::read(file).expect("readable");
            bytes.windows(7).any(|w| w == b"hunter2") || bytes.windows(13).any(|w| w == b"horse battery")
        };
        files.filter(has).collect::<Vec<_>>()
    };
    assert!(!holds().is_empty());
    let pen = &pens[3];
    for seq in 2..=13 {
        let (session, epoch) = (pen.session.id.clone(), pen.session.epoch);
        let redaction = Redaction { session, epoch, seq, tombstone: message("[redacted]") };
        assert!(store.journal().redact(redaction).await.expect("redacted").purged);
    }
    assert_eq!(holds(), Vec::<PathBuf>::new());
    for pen in &mut pens {
        assert_eq!(pen.events().await.len(), 13);
        pen.append(vec![message("on")]).await.expect("the log is taken up again");
    }
    drop((store, pens));
    assert_eq!(holds(), Vec::<PathBuf>::new());
}

#[test]
fn what_is_not_ours_is_left_as_it_is() {
    let (_directory, path) = place();
    std::fs::write(&path, "Dear diary, today I wrote a file that is no database at all.".repeat(100)).expect("written");
    let before = std::fs::read(&path).expect("readable");
    let told = refused(&path).to_string();
    assert!(told.contains("not a loopd store") && told.contains(&path.display().to_string()), "{told}");
    assert!(std::fs::read(&path).expect("readable") == before);

    let (_directory, path) = place();
    Connection::open(&path).expect("opens").execute_batch("CREATE TABLE recipes (name)").expect("a table");
    let before = std::fs::read(&path).expect("readable");
    assert!(matches!(refused(&path), StoreError::Damaged(told) if told.contains("not a loopd store")));
    assert!(std::fs::read(&path).expect("readable") == before);
}

/// A process that was stopped for long: somebody else has the directory when it goes on.
#[tokio::test]
async fn who_was_replaced_writes_nothing_and_says_of_nothing_that_it_did() {
    let (directory, path) = place();
    let hold = |lease| {
        let terms = Terms { lease, ..Terms::default() };
        Arc::new(Hold::take(directory.path(), &terms).expect("free, or without a sign of life"))
    };
    let long = Duration::from_secs(3_600);
    let zombie: Arc<dyn Store> = Arc::new(SqliteStore::open_in(&path, hold(long)).expect("opens"));
    let mut pen = Pen::create(&zombie, session(at(0)), vec![message("a")]).await;
    let lock = std::fs::File::open(directory.path().join("lock")).expect("there");
    lock.set_modified(lock.metadata().expect("read").modified().expect("a time") - long).expect("set");

    let heir: Arc<dyn Store> = Arc::new(SqliteStore::open_in(&path, hold(Duration::from_millis(100))).expect("opens"));
    let told = pen.append(vec![message("b")]).await.expect_err("refused");
    assert!(matches!(told, AppendError::Store(StoreError::Closed)), "{told:?}");
    let told = Pen::try_create(&zombie, session(at(1)), vec![], &loopd_store::OwnerId("z".to_owned()), None).await;
    assert!(matches!(told.err(), Some(AppendError::Store(StoreError::Closed))));
    let mut own = Pen { store: heir, ..pen.clone() };
    own.append(vec![message("of the heir")]).await.expect("the only writer");
    drop((zombie, pen));
    own.append(vec![message("and on")]).await.expect("unharmed");
    assert_eq!(own.events().await.len(), 3);
}

#[test]
fn a_newer_schema_is_refused() {
    let (_directory, path) = place();
    drop(SqliteStore::open(&path).expect("opens"));
    Connection::open(&path).expect("opens").pragma_update(None, "user_version", 99).expect("set");
    let told = refused(&path).to_string();
    assert!(told.contains("schema 99") && told.contains("schemas up to "), "{told}");
}

#[test]
fn an_absent_directory_and_a_directory_in_its_place_are_named() {
    let (directory, path) = place();
    let told = refused(&directory.path().join("absent/loopd.db")).to_string();
    assert!(told.contains(&directory.path().join("absent").display().to_string()), "{told}");
    std::fs::create_dir(&path).expect("made");
    let told = refused(&path).to_string();
    assert!(told.contains(&path.display().to_string()), "{told}");
}

#[test]
fn files_are_private() {
    let (directory, path) = place();
    let _store = SqliteStore::open(&path).expect("opens");
    let files: Vec<_> =
        std::fs::read_dir(directory.path()).expect("listed").map(|f| f.expect("a file").path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let mode = file.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn the_audit_log_cannot_be_rewritten() {
    let (_directory, path) = place();
    drop(SqliteStore::open(&path).expect("opens"));
    let db = Connection::open(&path).expect("opens");
    db.execute_batch("INSERT INTO audit (id, workspace, created_at, actor, action, resource, body) VALUES ('a', 'w', 1, '', '', '', '{}')")
        .expect("written");
    let told = db.execute_batch("UPDATE audit SET action = 'other'").expect_err("refused").to_string();
    assert!(told.contains("append-only"), "{told}");
}
