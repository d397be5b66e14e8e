//! Rooms made of virtual machines: the suite that every kind of room passes, and what is this kind's own.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

#[path = "microvm/support.rs"]
mod support;

use support::Ground;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let Some(ground) = Ground::with_test_cell() else { return };
    loopd_sandbox::conformance::all(&ground.subject()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stress() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let mut spec = subject.spec();
    spec.limits.cpu_millis = std::env::var("CPU").unwrap().parse().unwrap();
    drop(subject.sandbox().start(&spec).await);
    for number in 0..60 {
        let mut spec = subject.spec();
        spec.limits.cpu_millis = std::env::var("CPU").unwrap().parse().unwrap();
        let begun = std::time::Instant::now();
        let room = subject.sandbox().start(&spec).await;
        let started = begun.elapsed();
        match room {
            Ok(room) => {
                let mut room = loopd_sandbox::conformance::Visitor::greeted(room).await;
                let a = room.tool("date").await;
                println!("{number} {started:?} {:?} {}", begun.elapsed(), a.text.trim());
            }
            Err(fault) => println!("{number} {:?} {fault}", begun.elapsed()),
        }
    }
}
