//! A host is killed in the midst of all that it does with a machine: nothing is left behind that nobody knows of, and the session goes on.

use super::support::Ground;
use loopd_domain::environment::Isolation;
use loopd_domain::{Epoch, SessionId};
use loopd_sandbox::conformance::Visitor;
use loopd_sandbox::{RoomSpec, Sandbox};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DATA: &str = "LOOPD_TEST_DATA";
const SESSION: &str = "sesn_KILLED";

fn spec(data: &Path, epoch: u64) -> RoomSpec {
    let session = SessionId::parse("session", SESSION).unwrap();
    let directory = data.join("sessions").join(SESSION);
    RoomSpec { isolation: Isolation::Microvm, ..RoomSpec::plain(session, Epoch(epoch), directory) }
}

/// The host's part: a session begins, sleeps, wakes and is removed, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of `whoever_is_killed_leaves_a_session_that_goes_on`"]
async fn a_host_with_a_session() {
    let data = PathBuf::from(std::env::var_os(DATA).unwrap());
    let sandbox = Ground::sandbox_on(&data);
    let spec = spec(&data, 1);
    loop {
        say("starting");
        let mut room = Visitor::greeted(sandbox.start(&spec).await.unwrap()).await;
        room.tool("echo kept > kept; echo remembered > /tmp/memory").await;
        say("written");
        sandbox.suspend(&spec, room.into_room()).await.unwrap();
        say("waking");
        let room = Visitor::greeted(sandbox.adopt(&spec).await.unwrap().expect("it sleeps")).await;
        say("removing");
        room.leave().await;
        sandbox.remove(&spec).await.unwrap();
    }
}

fn say(step: &str) {
    println!("\n{step}");
    std::io::stdout().flush().unwrap();
}

/// When it is killed: after a step has begun, as soon as its traces are there.
struct Moment {
    name: &'static str,
    step: &'static str,
    is_there: fn(&Path) -> bool,
    /// What is found of what was written.
    kept: Kept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    /// At least: QEMU may have been faster than who kills.
    Files,
    /// The machine is the same one, with its memory.
    All,
    Either,
}

const MOMENTS: [Moment; 10] = [
    Moment {
        name: "its place is there",
        step: "starting",
        is_there: |data| place(data, "made").exists(),
        kept: Kept::Nothing,
    },
    Moment {
        name: "its machine is on record",
        step: "starting",
        is_there: |data| recorded(data).is_some(),
        kept: Kept::Nothing,
    },
    Moment {
        name: "it has become its session's",
        step: "starting",
        is_there: |data| place(data, "token").exists(),
        kept: Kept::Nothing,
    },
    Moment { name: "it has written", step: "written", is_there: |_| true, kept: Kept::All },
    Moment {
        name: "its sleep is noted",
        step: "written",
        is_there: |data| place(data, "suspension").exists(),
        kept: Kept::All,
    },
    Moment {
        name: "it stands still, and its memory is half written",
        step: "written",
        is_there: |data| draft_bytes(data) > DRAFT_HEAD_BYTES,
        kept: Kept::All,
    },
    Moment { name: "it sleeps", step: "written", is_there: |data| memory(data).exists(), kept: Kept::All },
    Moment {
        name: "it is about to wake",
        step: "waking",
        is_there: |data| note(data).contains("reviving"),
        kept: Kept::Files,
    },
    Moment { name: "it is awake", step: "waking", is_there: |data| !memory(data).exists(), kept: Kept::All },
    Moment {
        name: "its disk is gone",
        step: "removing",
        is_there: |data| !data.join("sessions").join(SESSION).exists(),
        kept: Kept::Either,
    },
];

/// How long one stands still before somebody comes: its clock would be late by as much.
const STOOD: Duration = Duration::from_secs(4);

fn place(data: &Path, name: &str) -> PathBuf {
    data.join("rooms").join(SESSION).join(name)
}

fn memory(data: &Path) -> PathBuf {
    data.join("sessions").join(SESSION).join("machine.suspended")
}

/// What is there before QEMU writes to a draft, which it does while the machine stands still.
const DRAFT_HEAD_BYTES: u64 = 4 << 10;

fn draft_bytes(data: &Path) -> u64 {
    let entries = fs::read_dir(data.join("sessions").join(SESSION)).into_iter().flatten().flatten();
    let mut drafts = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".machine.suspended."));
    drafts.next().and_then(|draft| Some(draft.metadata().ok()?.len())).unwrap_or_default()
}

fn note(data: &Path) -> String {
    fs::read_to_string(place(data, "suspension")).unwrap_or_default()
}

fn recorded(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(place(data, "record")).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("process ")?.split(' ').next()?.parse().ok());
    pid.filter(|pid| *pid != 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_leaves_a_session_that_goes_on() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let data = ground.data();
    for (number, Moment { name, step, is_there, kept }) in MOMENTS.into_iter().enumerate() {
        let mut host = host(data);
        let mut lines = BufReader::new(host.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == step), "{name}");
        while !is_there(data) {
            assert!(host.try_wait().unwrap().is_none(), "{name}");
            std::thread::sleep(Duration::from_micros(500));
        }
        host.kill().unwrap();
        host.wait().unwrap();
        if draft_bytes(data) > 0 {
            std::thread::sleep(STOOD);
        }

        let (spec, next) = (spec(data, number as u64 + 2), Ground::sandbox_on(data));
        let room = match next.adopt(&spec).await.unwrap() {
            Some(room) => room,
            None => next.start(&spec).await.unwrap(),
        };
        let mut room = Visitor::greeted(room).await;
        let files = room.tool("cat kept").await.text == "kept\n";
        let memory = room.tool("cat /tmp/memory").await.text == "remembered\n";
        let found = match (files, memory) {
            (true, true) => Kept::All,
            (true, false) => Kept::Files,
            (false, false) => Kept::Nothing,
            (false, true) => panic!("{name}: its memory, and none of its files"),
        };
        let is_more = (kept, found) == (Kept::Files, Kept::All);
        assert!(kept == Kept::Either || kept == found || is_more, "{name}: {found:?}");
        assert_eq!(draft_bytes(data), 0, "{name}: nothing half written is left");
        let before = seconds();
        let there: u64 = room.tool("date +%s").await.text.trim().parse().unwrap();
        let after = seconds();
        assert!((before - 1..=after + 1).contains(&there), "{name}: {there}, and here {before} to {after}");
        assert_eq!(room.tool("echo x > more && cat more").await.text, "x\n", "{name}");
        assert_eq!(machines(data).len(), 1, "{name}: no machine lives but this one");
        room.leave().await;
        next.remove(&spec).await.unwrap();
        assert!(next.inventory().await.unwrap().is_empty(), "{name}");
        let directories = |path: &str| {
            let all = fs::read_dir(data.join(path)).into_iter().flatten().flatten();
            all.filter(|entry| entry.path().is_dir()).count()
        };
        let left = (directories("rooms"), directories("sessions"), directories("machines"));
        assert_eq!(left, (0, 0, 1), "{name}: there is the ground of one server");
        assert_eq!(machines(data), Vec::<u32>::new(), "{name}");
    }
}

#[allow(clippy::disallowed_methods, reason = "a guest's clock is compared with the host's")]
fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn host(data: &Path) -> Child {
    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args(["--ignored", "--exact", "--nocapture", "killed::a_host_with_a_session"]);
    host.env(DATA, data).stdout(Stdio::piped()).spawn().unwrap()
}

/// Processes that have one of the data directory's disks open and are not this one: VMMs.
fn machines(data: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_disk = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        open.any(|path| path.starts_with(data) && path.to_string_lossy().contains("disk.ext4"))
    };
    pids.filter(|pid| *pid != std::process::id()).filter(has_disk).collect()
}
