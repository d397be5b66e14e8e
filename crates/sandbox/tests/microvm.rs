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
    use tokio::io::AsyncReadExt;
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    for number in 0..100 {
        let spec = subject.spec();
        let mut room = subject.sandbox().start(&spec).await.unwrap();
        let got = tokio::time::timeout(std::time::Duration::from_secs(3), room.channel.read_u8()).await;
        println!("{number} {got:?}");
        if got.is_err() {
            println!("STUCK {:?} {}", room.guard.pid(), ground.data().join("rooms").join(spec.session.as_str()).display());
            tokio::time::sleep(std::time::Duration::from_secs(200)).await;
            return;
        }
    }
}
