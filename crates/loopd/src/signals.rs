//! Signals as counts: how often somebody asked this process to end, and who asked first.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What has come so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    pub count: u32,
    /// The first was SIGTERM: a supervisor's or a successor's, who means this process and not what it works at.
    pub handed_over: bool,
}

/// Watches SIGINT and SIGTERM from now on.
pub fn watch_ends() -> io::Result<watch::Receiver<Ends>> {
    let (count, seen) = watch::channel(Ends::default());
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            let (came, is_terminate) = tokio::select! {
                came = interrupt.recv() => (came, false),
                came = terminate.recv() => (came, true),
            };
            if came.is_none() || count.is_closed() {
                return;
            }
            count.send_modify(|ends| {
                ends.handed_over |= ends.count == 0 && is_terminate;
                ends.count += 1;
            });
        }
    });
    Ok(seen)
}

/// Returns when at least `n` signals have come. Never returns when no more can come.
pub async fn nth(ends: &mut watch::Receiver<Ends>, n: u32) {
    if ends.wait_for(|ends| ends.count >= n).await.is_err() {
        std::future::pending::<()>().await;
    }
}
