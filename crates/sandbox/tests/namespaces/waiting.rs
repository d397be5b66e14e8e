//! Rooms that wait complete: given to one session each, never when they have died, and nothing is left of them.

use super::{children_of, lives, parent_of, subject, until};
use loopd_domain::limits::ROOMS_WAITING_MIN;
use loopd_sandbox::RoomSpec;
use loopd_sandbox::conformance::{Subject, Visitor};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// First processes of rooms that wait on this data, from their records.
pub(super) fn waiting(data: &Path) -> BTreeSet<u32> {
    records(data).iter().filter_map(|path| field(path, "process ")?.split(' ').next()?.parse().ok()).collect()
}

/// Control groups of rooms that wait on this data.
pub(super) fn cgroups(data: &Path) -> Vec<PathBuf> {
    let texts = records(data).into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let paths = |text: String| text.lines().filter_map(|line| Some(line.strip_prefix("cgroup ")?.into())).collect();
    texts.flat_map(|text| -> Vec<PathBuf> { paths(text) }).collect()
}

fn records(data: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    below(data.join("spares")).flat_map(below).map(|spare| spare.join("record")).filter(|path| path.exists()).collect()
}

fn field(path: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.to_owned()))
}

/// Waits until so many wait, all complete.
pub(super) async fn filled(subject: &Subject, count: usize) -> BTreeSet<u32> {
    let data = subject.data();
    let is_cell =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.starts_with(b"loopd-cell"));
    assert!(until(|| waiting(data).len() == count && waiting(data).iter().all(is_cell)).await, "{:?}", waiting(data));
    // The keeper looks as well, every millisecond, and only then gives it away.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    waiting(data)
}

async fn pid_of(subject: &Subject, spec: &RoomSpec) -> (Visitor, u32) {
    let mut room = subject.enter(spec).await;
    let pid = room.room().guard.pid().unwrap();
    (room, pid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_come_at_once_get_a_room_each_and_their_own_directory() {
    let data = tempfile::tempdir().unwrap();
    let subject = subject(data.path());
    let ready = filled(&subject, ROOMS_WAITING_MIN).await;
    // More than wait.
    let specs: Vec<RoomSpec> = (0..ROOMS_WAITING_MIN + 3).map(|_| subject.spec()).collect();
    let mut starting = Vec::new();
    for spec in &specs {
        starting.push(pid_of(&subject, spec));
    }
    let [a, b, c, d, e]: [_; 5] = starting.try_into().ok().unwrap();
    let (a, b, c, d, e) = tokio::join!(a, b, c, d, e);
    let mut seen = BTreeSet::new();
    for ((mut room, pid), spec) in [a, b, c, d, e].into_iter().zip(&specs) {
        assert!(seen.insert(pid), "{pid} twice");
        let name = spec.session.as_str();
        assert_eq!(room.tool(&format!("echo {name} >/workspace/mine; ls /workspace")).await.text, "mine\n");
        let written = std::fs::read_to_string(spec.directory.join("workspace/mine")).unwrap();
        assert_eq!(written.trim_end(), name);
        let record = data.path().join("rooms").join(name).join("record");
        assert_eq!(field(&record, "process ").unwrap().split(' ').next().unwrap(), pid.to_string());
        assert_eq!(field(&record, "epoch ").unwrap(), "1");
        room.leave().await;
    }
    assert!(ready.is_subset(&seen), "{ready:?} waited, {seen:?} were given");
    assert!(ready.iter().all(|pid| !lives(*pid)), "one room serves one session");
}

#[tokio::test]
async fn one_that_died_while_it_waited_is_given_to_nobody_and_replaced() {
    let data = tempfile::tempdir().unwrap();
    let subject = subject(data.path());
    let ready = filled(&subject, ROOMS_WAITING_MIN).await;
    for pid in &ready {
        let pid = rustix::process::Pid::from_raw(*pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    assert!(until(|| ready.iter().all(|pid| !lives(*pid))).await);
    let (mut room, pid) = pid_of(&subject, &subject.spec()).await;
    assert!(!ready.contains(&pid));
    assert_eq!(room.ask("echo", "here").await.text, "here");
    let replaced = || waiting(data.path()).len() >= ROOMS_WAITING_MIN && waiting(data.path()).is_disjoint(&ready);
    // What has failed fails again for a while: the pool rests before it tries again.
    assert!(until(replaced).await || until(replaced).await, "{:?}", waiting(data.path()));
    room.leave().await;
}

#[tokio::test]
async fn a_shape_that_was_asked_for_waits_for_the_next_session_with_its_limits() {
    let data = tempfile::tempdir().unwrap();
    let subject = subject(data.path());
    filled(&subject, ROOMS_WAITING_MIN).await;
    let small = |mut spec: RoomSpec| {
        spec.limits.open_files = 321;
        spec
    };
    let (first, pid) = pid_of(&subject, &small(subject.spec())).await;
    assert!(!waiting(data.path()).contains(&pid));
    let ready = filled(&subject, ROOMS_WAITING_MIN + 1).await;
    let (mut second, pid) = pid_of(&subject, &small(subject.spec())).await;
    assert!(ready.contains(&pid), "{pid} is not of {ready:?}");
    assert_eq!(second.tool("ulimit -n").await.text, "321\n");
    let (mut usual, pid) = pid_of(&subject, &subject.spec()).await;
    assert!(ready.contains(&pid));
    assert_ne!(usual.tool("ulimit -n").await.text, "321\n");
    for room in [first, second, usual] {
        room.leave().await;
    }
}

#[tokio::test]
async fn a_session_that_has_something_already_gets_another_room_on_what_it_has() {
    let data = tempfile::tempdir().unwrap();
    let subject = subject(data.path());
    let spec = subject.spec();
    let (mut room, _) = pid_of(&subject, &spec).await;
    assert_eq!(room.tool("echo -n old >/workspace/kept").await.status, 0);
    room.leave().await;
    // As a copy of the data directory that was made without records.
    std::fs::remove_dir_all(data.path().join("rooms").join(spec.session.as_str())).unwrap();
    assert!(until(|| waiting(data.path()).len() >= ROOMS_WAITING_MIN).await);
    let ready = waiting(data.path());
    let (mut room, pid) = pid_of(&subject, &spec).await;
    assert!(!ready.contains(&pid));
    assert_eq!(room.tool("cat /workspace/kept").await.text, "old");
    assert!(ready.iter().all(|pid| lives(*pid)), "those that wait were not touched");
    room.leave().await;
}

#[tokio::test]
async fn those_that_wait_go_with_their_server() {
    let data = tempfile::tempdir().unwrap();
    let subject = subject(data.path());
    let ready = filled(&subject, ROOMS_WAITING_MIN).await;
    let launcher = parent_of(*ready.first().unwrap());
    let cgroups = cgroups(data.path());
    drop(subject);
    assert!(until(|| ready.iter().all(|pid| !lives(*pid)) && children_of(launcher).is_empty()).await);
    assert_eq!(std::fs::read_dir(data.path().join("spares")).unwrap().count(), 0);
    assert!(until(|| !cgroups.iter().any(|path| path.exists())).await, "{cgroups:?}");
}
