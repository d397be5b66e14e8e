//! Rooms made of namespaces, tried as whoever runs the tests; as root, tried again as an ordinary user.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

use loopd_sandbox::conformance::{self, Subject};
use loopd_sandbox::{CheckVerdict, NamespaceSandbox, RoomExit};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the test cell lies, for a copy of this program that cannot read the build directory.
const CELL: &str = "LOOPD_TEST_CELL";
/// The data directory of a host that is to be killed.
const DATA: &str = "LOOPD_TEST_DATA";
/// `nobody`: no files, no rights, on every machine.
const ORDINARY: u32 = 65534;

fn cell() -> PathBuf {
    std::env::var_os(CELL).map_or_else(|| env!("CARGO_BIN_EXE_loopd-test-cell").into(), PathBuf::from)
}

fn subject(data: &Path) -> Subject {
    let cell = std::fs::read(cell()).unwrap();
    Subject::new(Box::new(NamespaceSandbox::with_cell(data, &cell).unwrap()), data)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let data = tempfile::tempdir().unwrap();
    conformance::all(&subject(data.path())).await;
}

#[tokio::test]
async fn a_new_launcher_follows_one_that_died() {
    let data = tempfile::tempdir().unwrap();
    let subject = subject(data.path());
    let mut room = subject.enter(&subject.spec()).await;
    let first = room.room().guard.pid().unwrap();
    let launcher = rustix::process::Pid::from_raw(parent_of(first)).unwrap();
    rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
    let exit = room.exit().await;
    assert!(matches!(&exit, RoomExit::Failed(cause) if cause.contains("launcher")), "{exit:?}");
    let gone = || !Path::new(&format!("/proc/{first}/exe")).exists();
    for _ in 0..100 {
        if gone() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(gone(), "a room outlived its launcher");
    let mut room = subject.enter(&subject.spec()).await;
    assert_eq!(room.ask("echo", "again").await.text, "again");
}

#[tokio::test]
async fn the_probe_tries_everything() {
    let data = tempfile::tempdir().unwrap();
    let checks = subject(data.path()).sandbox().probe().await;
    for check in &checks {
        println!("{check:?}");
        assert_ne!(check.verdict, CheckVerdict::Broken, "{check:?}");
        assert_eq!(check.verdict == CheckVerdict::Works, check.remedy.is_empty(), "{check:?}");
    }
    assert_eq!(checks.len(), 13);
    assert!(checks.last().unwrap().detail.contains(" ms"), "{checks:?}");
    let left = std::fs::read_dir(data.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn a_cell_that_cannot_be_started_says_why() {
    let data = tempfile::tempdir().unwrap();
    // A cell that cannot be executed fails at the last step of all.
    let sandbox = NamespaceSandbox::with_cell(data.path(), b"not a program").unwrap();
    let subject = Subject::new(Box::new(sandbox), data.path());
    let mut room = subject.sandbox().start(&subject.spec()).await.unwrap();
    let exit = room.exit.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(exit, Some(RoomExit::Failed("starting the cell: exec format error".to_owned())));
    let checks = subject.sandbox().probe().await;
    let room = checks.iter().find(|check| check.name == "a whole room").unwrap();
    assert_eq!(room.verdict, CheckVerdict::Broken);
    assert!(room.detail.contains("starting the cell") && !room.remedy.is_empty(), "{room:?}");
}

/// The host's part in the test below: has a room, says which, and waits to be killed.
#[tokio::test]
#[ignore = "a part of `rooms_end_with_a_host_that_is_killed`"]
async fn a_host_that_waits() {
    let data = PathBuf::from(std::env::var_os(DATA).unwrap());
    let subject = subject(&data);
    let mut room = subject.enter(&subject.spec()).await;
    println!("room {}", room.room().guard.pid().unwrap());
    std::future::pending::<()>().await;
}

#[test]
fn rooms_end_with_a_host_that_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "a_host_that_waits"])
        .env(DATA, data.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    // The harness prints on the same line before it.
    let room = lines.map_while(Result::ok).find_map(|line| Some(line.rsplit_once("room ")?.1.parse::<u32>().unwrap()));
    let process = format!("/proc/{}/stat", room.unwrap());
    assert!(Path::new(&process).exists());
    host.kill().unwrap();
    host.wait().unwrap();
    let gone = || !Path::new(&process).exists();
    for _ in 0..200 {
        if gone() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("a room outlived its host");
}

/// All of the above but this, by somebody who may nothing.
#[test]
fn an_ordinary_user_gets_rooms_too() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test here has shown it.
        return;
    }
    let place = tempfile::tempdir().unwrap();
    for name in ["program", "cell", "tmp"] {
        let path = place.path().join(name);
        match name {
            "program" => drop(std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap()),
            "cell" => drop(std::fs::copy(cell(), &path).unwrap()),
            _ => std::fs::create_dir(&path).unwrap(),
        }
        chown(&path, Some(ORDINARY), Some(ORDINARY)).unwrap();
    }
    chown(place.path(), Some(ORDINARY), Some(ORDINARY)).unwrap();
    let output = Command::new(place.path().join("program"))
        .args(["--skip", "an_ordinary_user", "--test-threads", "1"])
        .env(CELL, place.path().join("cell"))
        .env("TMPDIR", place.path().join("tmp"))
        .current_dir(place.path())
        .uid(ORDINARY)
        .gid(ORDINARY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("test result: ok. 5 passed"), "{said}");
}

fn parent_of(pid: u32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}
