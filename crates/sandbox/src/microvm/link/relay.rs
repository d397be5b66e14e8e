//! A stream of the link joined to one end of a socket pair, each half until its own end.

use super::stream::LinkStream;
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::net::UnixStream;

/// Until both halves have ended, or nothing can come out of the link any more: then both sides are closed. What a guest has said before it
/// gave the stream up still arrives.
pub(super) async fn run(stream: LinkStream, socket: UnixStream) {
    let (mut from_link, mut to_link) = split(stream);
    let (mut from_local, mut to_local) = socket.into_split();
    let down = async {
        copy(&mut from_link, &mut to_local).await?;
        to_local.shutdown().await
    };
    let up = async {
        copy(&mut from_local, &mut to_link).await?;
        to_link.shutdown().await
    };
    tokio::pin!(down, up);
    // A fault is the end of one side, and is seen there by whoever holds the other end.
    let is_down_first = tokio::select! {
        ended = &mut down => match ended {
            Ok(()) => true,
            Err(_) => return,
        },
        _ = &mut up => false,
    };
    drop(if is_down_first { up.await } else { down.await });
}
