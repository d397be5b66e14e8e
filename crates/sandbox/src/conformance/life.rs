//! How rooms begin and end, and what outlives them.

use super::Subject;
use crate::{RoomExit, SandboxError};
use std::time::Duration;

pub(super) async fn starts_and_talks_both_ways(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    let long = "0123456789".repeat(100_000);
    assert_eq!(room.ask("echo", &long).await.text, long);
    assert_eq!(room.tool("echo out; echo err >&2; exit 3").await.status, 3);
}

pub(super) async fn tells_how_it_ended(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    room.tell("exit", "7").await.expect("the cell listens");
    assert_eq!(room.exit().await, RoomExit::Code(7));
    let mut room = subject.enter(&subject.spec()).await;
    room.ask("echo", "here").await;
    room.room().guard.kill();
    assert_eq!(room.exit().await, RoomExit::Signal(9));
}

pub(super) async fn dropping_it_ends_every_process(subject: &Subject) {
    let mark = format!("31415.{}", std::process::id());
    let mut room = subject.enter(&subject.spec()).await;
    let started = room
        .tool(&format!("(trap '' TERM HUP INT; setsid sleep {mark} &) >/dev/null 2>&1; sleep {mark} >/dev/null 2>&1 &"))
        .await;
    assert_eq!(started.status, 0, "{started:?}");
    if subject.has_own_kernel() {
        // They are the guest's, and end with its machine.
        assert!(room.count(&mark).await >= 2);
        let machine = room.room().guard.pid().expect("a machine is a process");
        room.leave().await;
        assert!(until(|| !exists(machine)).await, "the machine {machine} outlived its room");
        return;
    }
    assert!(until(|| survivors(&mark) >= 2).await, "the host must see what it is about to look for");
    room.leave().await;
    assert!(until(|| survivors(&mark) == 0).await, "{} processes outlived their room", survivors(&mark));
}

pub(super) fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits for something to become true, for two seconds.
pub(super) async fn until(mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..100 {
        if holds() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Processes on the host that have this among their arguments.
pub(super) fn survivors(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let arguments = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    arguments.filter(|line| line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())).count()
}

pub(super) async fn files_outlive_the_room(subject: &Subject) {
    let spec = subject.spec();
    let places = ["/workspace/kept", "/home/agent/kept", "/mnt/session/outputs/kept"];
    let mut room = subject.enter(&spec).await;
    for place in places {
        let wrote = room.tool(&format!("echo precious > {place} && chmod 600 {place}")).await;
        assert_eq!(wrote.status, 0, "{place}: {wrote:?}");
    }
    assert_eq!(room.tool("echo fleeting > /tmp/lost").await.status, 0);
    room.leave().await;
    let mut room = subject.enter(&spec).await;
    for place in places {
        assert_eq!(room.tool(&format!("cat {place}")).await.text, "precious\n", "{place}");
    }
    assert_ne!(room.tool("cat /tmp/lost").await.status, 0);
    assert_eq!(room.tool("pwd").await.text, "/workspace\n");
}

pub(super) async fn removing_removes(subject: &Subject) {
    let spec = subject.spec();
    let mut room = subject.enter(&spec).await;
    let hostile =
        "mkdir -p a/b/c && ln -s / a/root && ln -s /etc/passwd a/b/link && touch a/b/c/f && chmod 0 a/b/c a/b";
    assert_eq!(room.tool(hostile).await.status, 0);
    room.leave().await;
    for _ in 0..2 {
        subject.sandbox().remove(&spec).await.expect("removing, also what is absent");
        assert!(!spec.directory.exists());
    }
    assert!(std::path::Path::new("/etc/passwd").exists());
}

pub(super) async fn many_start_at_once(subject: &Subject) {
    let crowd = subject.crowd();
    let specs: Vec<_> = (0..crowd).map(|_| subject.spec()).collect();
    let visit = |number: usize| {
        let spec = &specs[number];
        async move {
            let mut room = subject.enter(spec).await;
            assert_eq!(room.ask("echo", &number.to_string()).await.text, number.to_string());
            room
        }
    };
    // All at once, on one task: the backend must not need more.
    let mut rooms = Vec::new();
    for room in join_all((0..crowd).map(visit).collect()).await {
        rooms.push(room);
    }
    let mut seen: Vec<_> = rooms.iter_mut().map(|room| room.room().guard.pid()).collect();
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() == crowd || seen == [None], "{seen:?}");
    for room in rooms {
        assert_eq!(room.leave().await, RoomExit::Signal(9));
    }
}

/// Drives all futures together and answers in their order.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

pub(super) async fn a_room_that_cannot_be_built_says_why(subject: &Subject) {
    let spec = subject.spec();
    std::fs::create_dir_all(&spec.directory).expect("a directory for the session");
    // What the session's files are in, as something else.
    let (name, words) = match subject.has_own_kernel() {
        true => ("disk.ext4", ["mounting", "nvalid argument"]),
        false => ("workspace", ["workspace", "not a directory"]),
    };
    std::fs::write(spec.directory.join(name), "not what it should be").expect("a file in the way");
    let said = match subject.sandbox().start(&spec).await {
        Err(fault) => fault.to_string(),
        Ok(room) => {
            let mut exit = room.exit.clone();
            let gone = tokio::time::timeout(Duration::from_secs(10), exit.wait_for(Option::is_some)).await;
            match gone.expect("a failed room ends").expect("the sender tells").clone() {
                Some(RoomExit::Failed(cause) | RoomExit::Lost(cause)) => cause,
                other => panic!("it was built over a file: {other:?}"),
            }
        }
    };
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    let mut outside = subject.spec();
    outside.directory = "/etc/loopd-must-not-be-made".into();
    match subject.sandbox().start(&outside).await {
        Err(SandboxError::Directory { .. }) => assert!(!outside.directory.exists()),
        Err(other) => panic!("another error than expected: {other}"),
        Ok(_) => panic!("a directory outside the data directory was accepted"),
    }
}
