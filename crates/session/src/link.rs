//! The host's end of the channel to a cell: frames in, frames out, everything bounded, every method safe to cancel.

use loopd_domain::limits::FRAME_BYTES_MAX;
use loopd_protocol::codec::{Decoder, FrameError, encode};
use loopd_protocol::{FromCell, ToCell};
use loopd_sandbox::Channel;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes taken from the socket at a time.
const READ_BYTES: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the cell closed its channel")]
    Closed,
    #[error("the cell sent {0}")]
    Frame(#[from] FrameError),
    #[error("the cell reads too slowly: {bytes} bytes wait for it")]
    Stalled { bytes: usize },
    #[error("the channel: {0}")]
    Io(#[from] io::Error),
}

pub struct Link {
    stream: Channel,
    decoder: Decoder,
    outbox: Vec<u8>,
    sent: usize,
    scratch: Box<[u8]>,
}

/// What the socket was ready for.
enum Moved {
    Read(usize),
    TakesMore,
}

impl Link {
    pub fn new(stream: Channel) -> Self {
        Link {
            stream,
            decoder: Decoder::default(),
            outbox: Vec::new(),
            sent: 0,
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
        }
    }

    /// The channel. What was not sent, or not read to its end, is forgotten: a cell says it again to its next host.
    pub fn into_channel(self) -> Channel {
        self.stream
    }

    /// Queues a frame and sends what the socket takes now; the rest goes out while [`Link::next`] waits.
    pub fn send(&mut self, frame: &ToCell) -> Result<(), LinkError> {
        encode(frame, &mut self.outbox)?;
        self.flush()?;
        let bytes = self.outbox.len() - self.sent;
        match bytes > 2 * FRAME_BYTES_MAX {
            true => Err(LinkError::Stalled { bytes }),
            false => Ok(()),
        }
    }

    /// The next frame.
    pub async fn next(&mut self) -> Result<FromCell, LinkError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            match self.move_on().await {
                Ok(Moved::TakesMore) => self.flush()?,
                Ok(Moved::Read(0)) => return Err(LinkError::Closed),
                Ok(Moved::Read(n)) => self.decoder.push(&self.scratch[..n]),
                Err(fault) if fault.kind() == ErrorKind::ConnectionReset => return Err(LinkError::Closed),
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// Until something was read, or, where something waits to go out, the socket takes more.
    async fn move_on(&mut self) -> io::Result<Moved> {
        let waits = self.sent < self.outbox.len();
        let Link { stream, scratch, .. } = self;
        poll_fn(|context| {
            if waits && let Poll::Ready(ready) = stream.poll_takes_more(context) {
                return Poll::Ready(ready.map(|()| Moved::TakesMore));
            }
            let mut buffer = ReadBuf::new(scratch);
            Pin::new(&mut *stream).poll_read(context, &mut buffer).map_ok(|()| Moved::Read(buffer.filled().len()))
        })
        .await
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        while self.sent < self.outbox.len() {
            match self.stream.try_write(&self.outbox[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::BrokenPipe => return Err(LinkError::Closed),
                Err(fault) => return Err(fault.into()),
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Ok(())
    }
}
