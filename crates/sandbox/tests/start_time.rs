//! How long a room takes, in prints: `cargo test -p loopd-sandbox --test start_time -- --ignored --nocapture`. The test
//! cell is a dynamic program, which costs it a millisecond; `LOOPD_TEST_CELL` names another that writes a byte to descriptor 3.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

use loopd_domain::{Epoch, SessionId};
use loopd_sandbox::{NamespaceSandbox, Room, RoomSpec, Sandbox};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

const ROOMS: u32 = 300;

#[derive(Default)]
struct Figures {
    started: Vec<Duration>,
    heard: Vec<Duration>,
    gone: Vec<Duration>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures and asserts nothing"]
async fn one_after_the_other() {
    let data = tempfile::tempdir().unwrap();
    let cell = std::env::var_os("LOOPD_TEST_CELL").unwrap_or_else(|| env!("CARGO_BIN_EXE_loopd-test-cell").into());
    let cell = std::fs::read(cell).unwrap();
    let begun = Instant::now();
    let sandbox = NamespaceSandbox::with_cell(data.path(), &cell).unwrap();
    println!("sandbox ready to take orders after {:?}", begun.elapsed());
    visit(&sandbox, data.path(), 0, &mut Figures::default()).await;
    println!("first room heard and gone after {:?}", begun.elapsed());
    for (what, pause) in [("at once", Duration::ZERO), ("after a pause of 20 ms", Duration::from_millis(20))] {
        let (mut new, mut again) = (Figures::default(), Figures::default());
        for number in 1..=ROOMS {
            tokio::time::sleep(pause).await;
            let name = number + if pause.is_zero() { 0 } else { ROOMS };
            visit(&sandbox, data.path(), name, &mut new).await;
            tokio::time::sleep(pause).await;
            visit(&sandbox, data.path(), name, &mut again).await;
        }
        println!("next room {what}:");
        new.print("a new session");
        again.print("a session that had one before");
    }
}

async fn visit(sandbox: &NamespaceSandbox, data: &Path, number: u32, figures: &mut Figures) {
    let session = SessionId::parse("session", &format!("sesn_{number}")).unwrap();
    let directory = data.join("sessions").join(session.as_str());
    let spec = RoomSpec::plain(session, Epoch(1), directory);
    let begun = Instant::now();
    let Room { mut channel, mut exit, guard, .. } = sandbox.start(&spec).await.unwrap();
    figures.started.push(begun.elapsed());
    channel.read_u8().await.unwrap();
    figures.heard.push(begun.elapsed());
    let begun = Instant::now();
    drop(guard);
    exit.wait_for(Option::is_some).await.unwrap();
    figures.gone.push(begun.elapsed());
}

impl Figures {
    fn print(&mut self, what: &str) {
        for (name, times) in
            [("started", &mut self.started), ("first byte", &mut self.heard), ("kill to gone", &mut self.gone)]
        {
            times.sort_unstable();
            let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
            println!("  {what}: {name}: p50 {:.2} ms, p90 {:.2}, p99 {:.2}", at(50), at(90), at(99));
        }
    }
}
