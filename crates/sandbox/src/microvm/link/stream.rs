//! One stream of the link, to be read and written like a socket. Dropping it closes it, as with a socket: what was written still arrives.

use super::shared::{Shared, State};
use loopd_protocol::link::StreamId;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An inbox that has grown larger gives its memory back when it is empty.
const KEPT_BYTES: usize = 16 << 10;

pub(super) struct LinkStream {
    shared: Arc<Shared>,
    id: StreamId,
    /// Nothing more will be written.
    is_ended: bool,
}

impl LinkStream {
    /// The stream has its entry among [`State::streams`].
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        LinkStream { shared, id, is_ended: false }
    }
}

fn aborted(kind: ErrorKind) -> io::Error {
    io::Error::new(kind, "the guest has given the stream up")
}

impl AsyncRead for LinkStream {
    /// What has come is read to its end, whatever became of the stream or the link since: a machine's last words come just before its end.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.state();
        let State { link, streams, dead, .. } = &mut *state;
        let Some(local) = streams.get_mut(&self.id) else { return Poll::Ready(Err(aborted(ErrorKind::NotConnected))) };
        let (bytes, _) = local.inbox.as_slices();
        let taken = bytes.len().min(into.remaining());
        if taken > 0 {
            into.put_slice(&bytes[..taken]);
            local.inbox.drain(..taken);
            if local.inbox.is_empty() && local.inbox.capacity() > KEPT_BYTES {
                local.inbox = VecDeque::new();
            }
            link.take(self.id, taken);
            self.shared.pump.notify_one();
            return Poll::Ready(Ok(()));
        }
        if local.is_ended || into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(dead) = dead {
            return Poll::Ready(Err(dead.clone().into()));
        }
        if local.is_aborted {
            return Poll::Ready(Err(aborted(ErrorKind::ConnectionReset)));
        }
        local.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.state();
        let State { link, streams, dead, .. } = &mut *state;
        if let Some(dead) = dead {
            return Poll::Ready(Err(dead.clone().into()));
        }
        let local = streams.get_mut(&self.id).filter(|local| !local.is_aborted && !self.is_ended);
        let Some(local) = local else { return Poll::Ready(Err(aborted(ErrorKind::BrokenPipe))) };
        let written = link.write(self.id, bytes);
        if written == 0 && !bytes.is_empty() {
            local.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.shared.pump.notify_one();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_ended = true;
        self.shared.state().link.end(self.id);
        self.shared.pump.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.shared.state().close(self.id);
        self.shared.pump.notify_one();
    }
}
