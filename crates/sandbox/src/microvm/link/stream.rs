//! One stream of the link, to be read and written like a socket. Dropping it closes it, as with a socket: what was written still arrives.

use super::shared::{Local, Shared, State};
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

/// A stream's entry; an error when the link is over.
fn local(state: &mut State, id: StreamId) -> io::Result<&mut Local> {
    match (&state.dead, state.streams.get_mut(&id)) {
        (Some(dead), _) => Err(dead.clone().into()),
        (None, Some(local)) => Ok(local),
        (None, None) => Err(aborted(ErrorKind::NotConnected)),
    }
}

fn aborted(kind: ErrorKind) -> io::Error {
    io::Error::new(kind, "the guest has given the stream up")
}

impl AsyncRead for LinkStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.state();
        let local = local(&mut state, self.id)?;
        let (bytes, _) = local.inbox.as_slices();
        let taken = bytes.len().min(into.remaining());
        if taken > 0 {
            into.put_slice(&bytes[..taken]);
            local.inbox.drain(..taken);
            if local.inbox.is_empty() && local.inbox.capacity() > KEPT_BYTES {
                local.inbox = VecDeque::new();
            }
            state.link.take(self.id, taken);
            self.shared.pump.notify_one();
            return Poll::Ready(Ok(()));
        }
        if local.is_ended || into.remaining() == 0 {
            return Poll::Ready(Ok(()));
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
        let state = &mut *state;
        if local(state, self.id)?.is_aborted || self.is_ended {
            return Poll::Ready(Err(aborted(ErrorKind::BrokenPipe)));
        }
        let written = state.link.write(self.id, bytes);
        if written == 0 && !bytes.is_empty() {
            local(state, self.id)?.writer = Some(cx.waker().clone());
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
        let mut state = self.shared.state();
        let is_over = state.streams.remove(&self.id).is_none_or(|local| local.is_ended) && self.is_ended;
        // The last words of a stream that has ended on both sides may still wait to be sent.
        if !is_over {
            state.link.abort(self.id);
            self.shared.pump.notify_one();
        }
    }
}
