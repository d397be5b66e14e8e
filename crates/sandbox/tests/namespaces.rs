//! Rooms made of namespaces, tried as whoever runs the tests; as root, tried again as an ordinary user.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

#[path = "namespaces/waiting.rs"]
mod waiting;

use loopd_domain::limits::{ROOMS_PARKED_MAX, ROOMS_WAITING_MIN};
use loopd_sandbox::conformance::{self, Subject, Visitor};
use loopd_sandbox::{CheckVerdict, NamespaceSandbox, RoomExit, Sandbox};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;

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
    with_cell(data, std::fs::read(cell()).unwrap())
}

fn with_cell(data: &Path, cell: Vec<u8>) -> Subject {
    let place = data.to_owned();
    let make = move || -> Box<dyn Sandbox> {
        let sandbox = NamespaceSandbox::with_cell(&place, &cell).unwrap();
        Box::new(sandbox.with_orphan_seconds(conformance::ORPHAN_SECONDS))
    };
    Subject::new(Box::new(make), data)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let data = tempfile::tempdir().unwrap();
    conformance::all(&subject(data.path())).await;
}

#[tokio::test]
async fn rooms_outlive_a_launcher_and_a_new_one_follows() {
    let data = tempfile::tempdir().unwrap();
    let subject = subject(data.path());
    waiting::filled(&subject, ROOMS_WAITING_MIN).await;
    let mut room = subject.enter(&subject.spec()).await;
    let first = room.room().guard.pid().unwrap();
    let launcher = parent_of(first);
    let count = 1 + ROOMS_PARKED_MAX + ROOMS_WAITING_MIN;
    assert!(until(|| children_of(launcher).len() == count).await, "{:?}", children_of(launcher));
    let complete = waiting::filled(&subject, ROOMS_WAITING_MIN).await;
    let parked = children_of(launcher).into_iter().filter(|pid| *pid != first && !complete.contains(pid));
    let parked: Vec<u32> = parked.collect();
    assert_eq!((complete.len(), parked.len()), (ROOMS_WAITING_MIN, ROOMS_PARKED_MAX));
    kill_launcher_of(&mut room);
    // Those that are parked end, all of them; those that are complete do not notice.
    assert!(until(|| !parked.iter().any(|pid| lives(*pid))).await, "{parked:?}");
    assert!(complete.iter().all(|pid| lives(*pid)));
    assert_eq!(room.ask("echo", "here").await.text, "here");
    for _ in 0..ROOMS_WAITING_MIN {
        let mut waited = subject.enter(&subject.spec()).await;
        assert!(complete.contains(&waited.room().guard.pid().unwrap()));
        assert_eq!(waited.leave().await, RoomExit::Gone);
    }
    let mut other = subject.enter(&subject.spec()).await;
    assert_eq!(other.ask("echo", "again").await.text, "again");
    assert_ne!(parent_of(other.room().guard.pid().unwrap()), launcher);
    // A start that comes before the news of its death is none the wiser, or its room is seen to be gone.
    kill_launcher_of(&mut other);
    let spec = subject.spec();
    let mut room_at_once = subject.sandbox().start(&spec).await.unwrap();
    let mut third = match room_at_once.channel.read_u8().await {
        Ok(_) => Visitor::met(room_at_once),
        Err(_) => {
            assert_eq!(*room_at_once.exit.wait_for(Option::is_some).await.unwrap(), Some(RoomExit::Gone));
            subject.enter(&spec).await
        }
    };
    assert_eq!(third.ask("echo", "at once").await.text, "at once");
    // How they ended nobody can tell any more, but that they did.
    assert_eq!(room.leave().await, RoomExit::Gone);
    assert_eq!(other.leave().await, RoomExit::Gone);
    // It may be one that had waited.
    assert!(matches!(third.leave().await, RoomExit::Signal(9) | RoomExit::Gone));
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
    assert_eq!(checks.len(), 17);
    assert!(checks.last().unwrap().detail.contains(" ms"), "{checks:?}");
    let left = |directory: &Path| std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut directories: Vec<_> = left(data.path()).filter(|name| data.path().join(name).is_dir()).collect();
    directories.sort();
    assert_eq!(directories, ["rooms", "spares"]);
    assert_eq!(left(&data.path().join("rooms")).count(), 0);
}

#[tokio::test]
async fn a_cell_that_cannot_be_started_says_why() {
    let data = tempfile::tempdir().unwrap();
    // A cell that cannot be executed fails at the last step of all.
    let subject = with_cell(data.path(), b"not a program".to_vec());
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
#[ignore = "a part of `a_room_outlives_a_host_that_is_killed`"]
async fn a_host_that_waits() {
    let data = PathBuf::from(std::env::var_os(DATA).unwrap());
    let subject = subject(&data);
    waiting::filled(&subject, ROOMS_WAITING_MIN).await;
    let mut room = subject.enter(&subject.spec()).await;
    assert_eq!(room.tool("echo remembered > /tmp/kept").await.status, 0);
    waiting::filled(&subject, ROOMS_WAITING_MIN).await;
    println!("room {}", room.room().guard.pid().unwrap());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_room_outlives_a_host_that_is_killed() {
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
    let room = room.unwrap();
    let launcher = parent_of(room);
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(until(|| children_of(launcher).is_empty() && !lives(launcher as u32)).await, "its launcher lives");
    let (waited, theirs) = (waiting::waiting(data.path()), waiting::cgroups(data.path()));
    assert_eq!(waited.len(), ROOMS_WAITING_MIN);
    let subject = subject(data.path());
    assert!(!waited.iter().any(|pid| lives(*pid)), "rooms that waited outlive the next start");
    assert!(!theirs.iter().any(|path| path.exists()), "{theirs:?}");
    let mut spec = subject.spec();
    spec.epoch.0 += 1;
    let mut adopted = Visitor::greeted(subject.sandbox().adopt(&spec).await.unwrap().unwrap()).await;
    assert_eq!(adopted.room().guard.pid(), Some(room));
    assert_eq!(adopted.tool("cat /tmp/kept").await.text, "remembered\n");
    let cgroups = cgroups_of(room);
    assert_eq!(adopted.leave().await, RoomExit::Gone);
    assert!(until(|| !lives(room)).await);
    // Nor does the dead host leave anything behind.
    assert!(until(|| !cgroups.iter().any(|path| path.exists())).await, "{cgroups:?}");
    let spares = std::fs::read_dir(data.path().join("spares")).unwrap();
    assert_eq!(spares.count(), 1, "those of this host");
}

/// Directories of this process's cgroup mounts that hold a process, two levels: of the room, and of its host.
fn cgroups_of(pid: u32) -> Vec<PathBuf> {
    let memberships = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let rooms = memberships.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controller, path) = (fields.next()?, fields.next()?, fields.next()?.trim_start_matches('/'));
        let directory = Path::new("/sys/fs/cgroup").join(controller).join(path);
        path.contains("loopd-").then_some(directory)
    });
    rooms.flat_map(|room| [room.parent().unwrap().to_owned(), room]).collect()
}

/// Waits for something to become true, for five seconds.
async fn until(mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if holds() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
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
    assert!(said.contains("test result: ok. 10 passed"), "{said}");
}

fn parent_of(pid: u32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

fn kill_launcher_of(room: &mut Visitor) {
    let launcher = rustix::process::Pid::from_raw(parent_of(room.room().guard.pid().unwrap())).unwrap();
    rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
}

fn children_of(parent: i32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Whether it is there and has not ended.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
