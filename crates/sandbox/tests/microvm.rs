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
async fn scratch() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let mut room = subject.enter(&subject.spec()).await;
    println!("{:?}", room.tool("python3 -c 'import ctypes; print(ctypes.CDLL(None).syscall(444,None,0,1))'; ls -la /proc/self/attr; cat /proc/self/status").await);
}
