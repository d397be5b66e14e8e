//! What has lost its session is found when a server starts, and removed; what has not is left alone.

use loopd_tests::Server;
use loopd_tests::http::{fenced, text};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a text")).collect()
}

#[tokio::test]
async fn a_directory_without_a_session_goes_and_a_sleeping_session_keeps_its_own() {
    let mut server = Server::start();
    let answer = server.http().shell("echo mine > note").await;
    let session = answer["session_id"].as_str().expect("a session").to_owned();
    server.kill();
    let orphan = server.data().join("sessions/sesn_01ARZ3NDEKTSV4RRFFQ69G5FAV/workspace/deep");
    fs::create_dir_all(&orphan).expect("made");
    fs::write(orphan.join("file"), "left").expect("written");
    server.start_again();
    let sessions = server.data().join("sessions");
    eventually("only the session's directory is left", || names(&sessions) == [session.clone()]).await;
    let next = json!({"session": session, "input": fenced("cat note")});
    assert!(text(&server.http().invoke(next).await["output"]).contains("mine"));
}

#[tokio::test]
async fn a_room_whose_session_is_gone_ends() {
    let mut server = Server::start();
    let answer = server.http().shell("sleep 4242 & echo started").await;
    let session = answer["session_id"].as_str().expect("a session").to_owned();
    server.kill();
    assert_eq!(sleepers(), 1, "the room lives on without its server");
    // As if the session had been deleted by somebody who then lost power before the room's end.
    let database = server.data().join("loopd.sqlite");
    let forgotten = std::process::Command::new("python3")
        .args(["-c", FORGET])
        .arg(&database)
        .arg(&session)
        .status()
        .expect("python3");
    assert!(forgotten.success());
    server.start_again();
    eventually("its processes are gone", || sleepers() == 0).await;
    eventually("its directories are gone", || {
        ["sessions", "rooms"].iter().all(|kind| !names(&server.data().join(kind)).contains(&session))
    })
    .await;
}

const FORGET: &str = "import sqlite3, sys\n\
                      db = sqlite3.connect(sys.argv[1])\n\
                      db.execute('PRAGMA foreign_keys = ON')\n\
                      assert db.execute('DELETE FROM sessions WHERE id = ?', [sys.argv[2]]).rowcount == 1\n\
                      db.commit()\n";

/// Processes of this test's command, on the whole machine.
fn sleepers() -> usize {
    let is_ours = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == b"sleep\x004242\0"
    };
    let all = names(Path::new("/proc"));
    all.iter().filter(|name| name.parse::<u32>().is_ok()).filter(|pid| is_ours(pid)).count()
}
