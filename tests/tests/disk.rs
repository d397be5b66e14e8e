//! A disk that fills up while turns run: clear errors, nothing acknowledged lost, and on it goes when there is space.

use loopd_tests::http::{fenced, text};
use loopd_tests::script::{invocation, runs, says};
use loopd_tests::server::Options;
use loopd_tests::{Http, Server, skip};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A small file system in memory; unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn at(path: PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).expect("made");
        match mount("tmpfs", &path, "tmpfs", MountFlags::empty(), c"size=48m,mode=700") {
            Ok(()) => Some(Disk(path)),
            Err(fault) => {
                skip(&format!("a file system of its own cannot be mounted: {fault}"));
                None
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).expect("unmounted");
    }
}

/// Leaves not a byte.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("ballast");
    let mut file = File::create(&path).expect("made");
    for block in [1 << 20, 4_096, 1] {
        while file.write_all(&vec![0x6c; block]).is_ok() {}
    }
    path
}

/// Agents with prompts of this length, until one is refused: the ids of those that were taken.
async fn agents_until_refused(http: &Http, chars: usize) -> Vec<String> {
    let mut taken = Vec::new();
    loop {
        let body = json!({"name": "a", "model": "builtin/shell", "system": "x".repeat(chars)});
        let answer = http.post("/v1/agents", body).await;
        if answer.status >= 300 {
            answer.refused(503, "api_error");
            assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
            return taken;
        }
        taken.push(answer.body["id"].as_str().expect("an id").to_owned());
        assert!(taken.len() < 2_000, "the disk is not full");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_space_heals_it() {
    let root = TempDir::with_prefix("loopd-test-").expect("a directory");
    let Some(disk) = Disk::at(root.path().join("data")) else { return };
    let server = Server::on(root, Options::default());
    let http = server.http();
    let first = http.shell("echo kept > /workspace/note").await;
    let idle = first["session_id"].as_str().expect("a session").to_owned();
    let mut steps: Vec<Value> = (1..=8).map(|n| runs(&format!("sleep 0.3; echo {n}"))).collect();
    steps.push(says("the end"));
    let mut body = invocation(steps);
    body["background"] = json!(true);
    let running = http.invoke(body).await["session_id"].as_str().expect("a session").to_owned();

    let ballast = fill(&disk.0);
    let mut taken = agents_until_refused(&http, 90_000).await;
    taken.extend(agents_until_refused(&http, 1).await);
    // The running turn meets it as well.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Whoever asks for work is told, and what is there can be read.
    let told = http.post("/v1/invoke", json!({"session": idle, "input": "hello"})).await;
    assert_eq!(told.status, 503, "{}", told.text);
    assert_eq!(http.status(&idle).await, "idle");
    assert!(http.events(&running).await.len() >= 2);
    let until_now = http.events(&idle).await;

    std::fs::remove_file(ballast).expect("removed");
    for id in &taken {
        http.get(&format!("/v1/agents/{id}")).await.ok();
    }
    http.post("/v1/agents", json!({"name": "b", "model": "builtin/shell"})).await.ok();
    http.until_idle(&running).await;
    let events = http.events(&running).await;
    assert_eq!(events.last().expect("events")["stop_reason"]["type"], "end_turn");
    assert_eq!(http.events(&idle).await, until_now, "what was refused left nothing");
    let answer = http.invoke(json!({"session": idle, "input": fenced("cat /workspace/note")})).await;
    assert!(text(&answer["output"]).contains("kept"), "{answer}");
    drop((server, disk));
}

/// A directory in which nothing can be made or removed, not even by root; writable again when it is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn make(path: PathBuf) -> Option<Self> {
        if chattr("+i", &path) {
            return Some(Immutable(path));
        }
        skip("`chattr +i` does not work here: it needs root and a file system that knows it");
        None
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        assert!(chattr("-i", &self.0), "writable again");
    }
}

fn chattr(change: &str, path: &Path) -> bool {
    std::process::Command::new("chattr").arg(change).arg(path).output().is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn a_directory_that_becomes_read_only_is_said_and_what_was_accepted_stays() {
    let server = Server::start();
    let http = server.http();
    let first = http.shell("echo kept > /workspace/note").await;
    let known = first["session_id"].as_str().expect("a session").to_owned();
    let Some(sessions) = Immutable::make(server.data().join("sessions")) else { return };
    // The journal takes it; a room cannot be had, and the turn says so and gives up.
    let refused = http.invoke(json!({"model": "builtin/shell", "input": fenced("echo new")})).await;
    assert_eq!(refused["stop_reason"]["type"], "retries_exhausted", "{refused}");
    let events = http.events(refused["session_id"].as_str().expect("a session")).await;
    let said = |kind: &str| events.iter().filter(|e| e["type"] == kind).map(Value::to_string).collect::<String>();
    assert!(said("session.error").contains("sessions"), "it names the place: {}", said("session.error"));
    // A session that has its directory goes on.
    let next = json!({"session": known, "input": fenced("cat note")});
    assert!(text(&http.invoke(next).await["output"]).contains("kept"));
    drop(sessions);
    let again = json!({"session": refused["session_id"], "input": fenced("echo again")});
    assert!(text(&http.invoke(again).await["output"]).contains("again"), "nothing needs to be restarted");
}
