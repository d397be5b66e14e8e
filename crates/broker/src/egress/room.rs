//! The room's end of a connection: bytes are counted, and may be looked at before they are read.

use super::RoomStream;
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Bytes that crossed the room's end, both ways.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    out: AtomicU64,
    into: AtomicU64,
}

impl Traffic {
    /// Counts what did not pass through a stream of its own.
    pub(crate) fn add(&self, out: u64, into: u64) {
        self.out.fetch_add(out, Relaxed);
        self.into.fetch_add(into, Relaxed);
    }

    /// From the room, and to it.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.out.load(Relaxed), self.into.load(Relaxed))
    }
}

pub(crate) struct RoomIo {
    inner: Box<dyn RoomStream>,
    /// Received, and not yet read.
    ahead: BytesMut,
    traffic: Arc<Traffic>,
}

impl RoomIo {
    pub(crate) fn new(inner: Box<dyn RoomStream>, traffic: Arc<Traffic>) -> Self {
        RoomIo { inner, ahead: BytesMut::new(), traffic }
    }

    /// What was received and not read.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Takes `count` bytes off what is ahead.
    pub(crate) fn skip(&mut self, count: usize) {
        self.ahead.advance(count);
    }

    /// Receives more without reading it; 0 at the end. Nothing is lost when it is dropped.
    pub(crate) async fn receive(&mut self) -> io::Result<usize> {
        self.ahead.reserve(4_096);
        let count = self.inner.read_buf(&mut self.ahead).await?;
        self.traffic.out.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

impl AsyncRead for RoomIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..count]);
            self.ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.traffic.out.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        read
    }
}

impl AsyncWrite for RoomIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = written {
            self.traffic.into.fetch_add(count as u64, Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
