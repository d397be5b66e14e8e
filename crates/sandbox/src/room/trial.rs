//! What trials of every kind of room have in common: whether a whole room's cell is heard, and how a finding is told.

use crate::{Check, CheckVerdict, Room, RoomExit, RoomSpec};
use loopd_protocol::{ToCell, VERSION, codec};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// Says to the cell who asks, as a host does; waits for its first byte, then for the room's end. Answers how long the first took.
pub(crate) async fn hear(room: Room, spec: &RoomSpec, begun: Instant, patience: Duration) -> Result<Duration, String> {
    let Room { mut channel, mut exit, guard, .. } = room;
    let attach = ToCell::Attach { version: VERSION, session: spec.session.clone(), epoch: spec.epoch };
    let mut frame = Vec::new();
    codec::encode(&attach, &mut frame).map_err(|fault| fault.to_string())?;
    let heard = tokio::time::timeout(patience, async {
        channel.write_all(&frame).await?;
        channel.read(&mut [0]).await
    })
    .await;
    let took = begun.elapsed();
    guard.kill();
    let ended = tokio::time::timeout(patience, exit.wait_for(Option::is_some)).await;
    match (heard, ended) {
        (_, Err(_)) => Err(format!("it was killed and did not end in {patience:?}")),
        (Ok(Ok(1..)), _) => Ok(took),
        (Err(_), _) => Err(format!("its cell said nothing in {patience:?}")),
        (Ok(_), Ok(exit)) => Err(match exit.ok().and_then(|exit| exit.clone()) {
            Some(RoomExit::Failed(cause) | RoomExit::Lost(cause)) => cause,
            other => format!("its cell said nothing before it ended: {other:?}"),
        }),
    }
}

pub(crate) fn works(name: &str, detail: String) -> Check {
    Check { name: name.to_owned(), verdict: CheckVerdict::Works, detail, remedy: String::new() }
}

pub(crate) fn degraded(name: &str, detail: String, remedy: &str) -> Check {
    Check { name: name.to_owned(), verdict: CheckVerdict::Degraded, detail, remedy: remedy.to_owned() }
}

pub(crate) fn broken(name: &str, detail: String, remedy: &str) -> Check {
    Check { name: name.to_owned(), verdict: CheckVerdict::Broken, detail, remedy: remedy.to_owned() }
}
