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
