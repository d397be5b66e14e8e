//! One connection to a host: frames in, frames out, never waiting.
//!
//! Results are never dropped; they are bounded by the calls that run. Previews are dropped as soon as the host is slow.

use crate::limits::OUTBOX_PREVIEW_BYTES_MAX;
use loopd_protocol::codec::{Decoder, FrameError, encode};
use loopd_protocol::{FromCell, ToCell};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const READ_BYTES: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the channel: {0}")]
    Socket(#[from] Errno),
    #[error("the channel: {0}")]
    Frame(#[from] FrameError),
}

#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    decoder: Decoder,
    outbox: Vec<u8>,
    sent: usize,
    open: bool,
}

impl Channel {
    /// Takes over a connected stream socket that does not block and that no tool inherits.
    pub fn new(socket: OwnedFd) -> Self {
        Channel { socket, decoder: Decoder::default(), outbox: Vec::new(), sent: 0, open: true }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether bytes wait for the host to read on.
    pub fn is_full(&self) -> bool {
        self.sent < self.outbox.len()
    }

    /// Whether the host still holds its end.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether [`Channel::next`] has something to say, be it a fault.
    pub fn has_frame(&self) -> bool {
        self.decoder.is_ready()
    }

    /// Says why, as far as the other end still listens, and hangs up.
    pub fn close(&mut self, why: &str) {
        // Whoever is told off may be gone already; then there is nobody to tell.
        let _ = self.send(&FromCell::Log { message: why.to_owned() });
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        self.open = false;
        self.decoder = Decoder::default();
    }

    /// Takes in what has arrived.
    pub fn read(&mut self) -> Result<(), ChannelError> {
        let mut bytes = [0; READ_BYTES];
        loop {
            match recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => {
                    self.open = false;
                    return Ok(());
                }
                Ok((read, _)) => {
                    self.decoder.push(&bytes[..read]);
                    if read < READ_BYTES {
                        return Ok(());
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// The next frame that has arrived whole.
    pub fn next(&mut self) -> Result<Option<ToCell>, ChannelError> {
        Ok(self.decoder.next()?)
    }

    /// Sends, or keeps for later what the host does not take now.
    pub fn send(&mut self, frame: &FromCell) -> Result<(), ChannelError> {
        encode(frame, &mut self.outbox)?;
        self.flush()
    }

    /// Sends unless the host is behind.
    pub fn send_preview(&mut self, frame: &FromCell) -> Result<(), ChannelError> {
        match self.outbox.len() - self.sent > OUTBOX_PREVIEW_BYTES_MAX {
            true => Ok(()),
            false => self.send(frame),
        }
    }

    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while self.is_full() {
            match send(&self.socket, &self.outbox[self.sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(bytes) => self.sent += bytes,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.open = false;
                    return Ok(());
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        // A large result must not stay in memory for the rest of the session.
        self.outbox.clear();
        self.outbox.shrink_to(READ_BYTES);
        self.sent = 0;
        Ok(())
    }
}
