//! A host is killed again and again while it starts rooms: whatever lives afterwards is on record, and can be found and ended.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

use loopd_domain::{Epoch, SessionId};
use loopd_sandbox::{NamespaceSandbox, RoomSpec, Sandbox};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const DATA: &str = "LOOPD_TEST_DATA";
/// Rooms of these hosts are told from all others by how long their cells would wait.
const MARK: &str = "LOOPD_TEST_MARK";
const SESSIONS: u32 = 3;
const KILLS: u32 = 40;

fn spec(data: &Path, number: u32) -> RoomSpec {
    let session = SessionId::parse("session", &format!("sesn_{number}")).unwrap();
    let directory = data.join("sessions").join(session.as_str());
    RoomSpec::plain(session, Epoch(1), directory)
}

fn sandbox(data: &Path) -> NamespaceSandbox {
    let cell = std::fs::read(env!("CARGO_BIN_EXE_loopd-test-cell")).unwrap();
    NamespaceSandbox::with_cell(data, &cell).unwrap()
}

/// The host's part: starts rooms, each in place of an older one, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of `no_room_lives_that_no_record_names`"]
async fn a_host_that_starts_rooms() {
    let data = PathBuf::from(std::env::var_os(DATA).unwrap());
    let sandbox = sandbox(&data).with_orphan_seconds(std::env::var(MARK).unwrap().parse().unwrap());
    for number in 0.. {
        let room = sandbox.start(&spec(&data, number % SESSIONS)).await.unwrap();
        if number == 0 {
            println!("\nstarting");
        }
        room.guard.leave();
    }
}

#[tokio::test]
async fn no_room_lives_that_no_record_names() {
    let data = tempfile::tempdir().unwrap();
    let mark = (1_000_000 + std::process::id()).to_string();
    let mut most = 0;
    for kill in 0..KILLS {
        let mut host = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "a_host_that_starts_rooms"])
            .env(DATA, data.path())
            .env(MARK, &mark)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(host.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "starting"));
        // Any step of a start, with and without a room that waits.
        tokio::time::sleep(Duration::from_micros(u64::from(kill) * 370)).await;
        host.kill().unwrap();
        host.wait().unwrap();
        let all_recorded = || living(&mark).is_subset(&recorded(data.path()));
        assert!(until(all_recorded).await, "{:?}, {:?}", living(&mark), recorded(data.path()));
        most = most.max(living(&mark).len());
    }
    assert!(most > 0, "no room outlived its host");
    let sandbox = sandbox(data.path());
    let found = sandbox.inventory().await.unwrap();
    assert_eq!(found.len(), SESSIONS as usize);
    assert_eq!(found.iter().filter(|found| found.room).count(), living(&mark).len());
    for number in 0..SESSIONS {
        sandbox.remove(&spec(data.path(), number)).await.unwrap();
    }
    assert!(sandbox.inventory().await.unwrap().is_empty());
    assert_eq!(living(&mark), BTreeSet::new());
}

/// First processes of rooms that have become cells.
fn living(mark: &str) -> BTreeSet<u32> {
    let mark = format!("LOOPD_ORPHAN_SECONDS={mark}");
    let has_mark = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_mark).collect()
}

/// What the records say.
fn recorded(data: &Path) -> BTreeSet<u32> {
    let below = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let waiting = below(data.join("spares")).flat_map(below);
    let places = below(data.join("rooms")).chain(waiting);
    let texts = places.filter_map(|path| std::fs::read_to_string(path.join("record")).ok());
    let pid =
        |text: String| text.lines().find_map(|line| line.strip_prefix("process ")?.split(' ').next()?.parse().ok());
    texts.filter_map(pid).collect()
}

/// Waits for something to become true, for five seconds: what was being built has to see that it is alone.
async fn until(mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if holds() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}
