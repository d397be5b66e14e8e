//! Signals as counts: how often somebody asked this process to end.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Watches SIGINT and SIGTERM from now on; the value is how many have come.
pub fn watch_ends() -> io::Result<watch::Receiver<u32>> {
    let (count, seen) = watch::channel(0);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            let came = tokio::select! {
                came = interrupt.recv() => came,
                came = terminate.recv() => came,
            };
            if came.is_none() || count.is_closed() {
                return;
            }
            count.send_modify(|n| *n += 1);
        }
    });
    Ok(seen)
}

/// Returns when at least `n` signals have come. Never returns when no more can come.
pub async fn nth(ends: &mut watch::Receiver<u32>, n: u32) {
    if ends.wait_for(|count| *count >= n).await.is_err() {
        std::future::pending::<()>().await;
    }
}
