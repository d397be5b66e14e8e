//! Rooms made of virtual machines: the suite that every kind of room passes, and what is this kind's own.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

#[path = "microvm/support.rs"]
mod support;

use support::Ground;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let begun = std::time::Instant::now();
    let mut room = subject.enter(&subject.spec()).await;
    println!("entered after {:?}", begun.elapsed());
    println!("{:?}", room.tool("id; uname -a; df -h /workspace; mount; echo hi > x; ls -la; date").await);
    println!("{:?}", room.cell("ps ax").await);
    println!("{:?}", room.leave().await);
    let begun = std::time::Instant::now();
    let mut room = subject.enter(&subject.spec()).await;
    println!("entered after {:?}", begun.elapsed());
    println!("{:?}", room.tool("date").await);
}
