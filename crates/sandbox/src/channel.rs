//! The host's end of a connection to a cell.
//!
//! It is watched for what there is to read, and only while something could not be written for what may be written too. The kernel says of
//! such a socket that it takes more whenever the other side has read something; whoever listened to that would be woken for every
//! frame that is sent.

#![allow(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::{Sleep, sleep};

#[derive(Debug)]
pub struct Channel {
    stream: AsyncFd<UnixStream>,
    /// There since a write found no room.
    full: Option<Full>,
}

/// How one learns that there is room again.
#[derive(Debug)]
enum Full {
    Heard(AsyncFd<UnixStream>),
    /// This process has no descriptor left to hear of it with.
    Tried(Pin<Box<Sleep>>),
}

/// How long to wait before it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(5);

impl Channel {
    /// In a tokio runtime.
    pub fn from_std(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Channel { stream: watch(stream, Interest::READABLE)?, full: None })
    }

    /// Two that are connected to each other.
    pub fn pair() -> io::Result<(Self, UnixStream)> {
        let (here, there) = UnixStream::pair()?;
        Ok((Channel::from_std(here)?, there))
    }

    /// What there is to read now, at most so much; `WouldBlock` where there is nothing.
    fn read_now(stream: &UnixStream, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut stream = stream;
        let n = stream.read(buffer.initialize_unfilled())?;
        buffer.advance(n);
        Ok(())
    }

    /// Writes what is taken now; `WouldBlock` where that is nothing.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.get_ref().write(bytes);
        if matches!(written, Ok(n) if n == bytes.len()) {
            self.full = None;
        }
        written
    }

    /// Waits until it may take more. Safe to cancel.
    pub fn poll_takes_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.stream.get_ref();
        let full = self.full.get_or_insert_with(|| {
            let heard = stream.try_clone().and_then(|stream| watch(stream, Interest::WRITABLE));
            heard.map_or_else(|_| Full::Tried(Box::pin(sleep(TRY_AGAIN))), Full::Heard)
        });
        match full {
            Full::Heard(heard) => heard.poll_write_ready(context).map_ok(|mut ready| ready.clear_ready()),
            Full::Tried(pause) => {
                ready!(pause.as_mut().poll(context));
                self.full = None;
                Poll::Ready(Ok(()))
            }
        }
    }
}

fn watch(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: a `UnixStream` is open and one and the same descriptor for as long as it lives, and nobody takes it out of there.
    Ok(unsafe { AsyncFd::register_with_interest(stream, interest) }?)
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.stream.poll_read_ready(context))?;
            match ready.try_io(|stream| Channel::read_now(stream.get_ref(), buffer)) {
                Ok(Err(fault)) if fault.kind() == ErrorKind::Interrupted => {}
                Ok(read) => return Poll::Ready(read),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            match this.try_write(bytes) {
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => ready!(this.poll_takes_more(context))?,
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(std::net::Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn both_directions_carry_more_than_the_kernel_keeps() {
        let (mut here, mut there) = Channel::pair().unwrap();
        let sent: Vec<u8> = (0..4 << 20).map(|n: u32| (n % 251) as u8).collect();
        let echo = std::thread::spawn(move || {
            let mut all = vec![0; 4 << 20];
            there.read_exact(&mut all).unwrap();
            there.write_all(&all).unwrap();
        });
        here.write_all(&sent).await.unwrap();
        assert!(here.full.is_none(), "it listens to what it no longer waits for");
        let mut back = vec![0; 4 << 20];
        here.read_exact(&mut back).await.unwrap();
        assert!(back == sent);
        echo.join().unwrap();
        assert_eq!(here.read(&mut [0]).await.unwrap(), 0, "the other side is gone");
    }

    #[tokio::test]
    async fn it_waits_for_room_only_while_there_is_none() {
        let (mut here, mut there) = Channel::pair().unwrap();
        let mut sent = 0;
        while let Ok(n) = here.try_write(&[7; 64 << 10]) {
            sent += n;
        }
        let waits = poll_fn(|context| Poll::Ready(here.poll_takes_more(context).is_pending())).await;
        assert!(waits, "a full socket takes more");
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; sent];
            there.read_exact(&mut all).unwrap();
            there
        });
        poll_fn(|context| here.poll_takes_more(context)).await.unwrap();
        assert_eq!(here.try_write(b"more").unwrap(), 4);
        let mut there = reader.join().unwrap();
        let mut more = [0; 4];
        there.read_exact(&mut more).unwrap();
        assert_eq!(&more, b"more");
    }
}
