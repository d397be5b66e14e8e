//! Between a task and a thread that blocks: bytes one way, bounded, and an end that says whether it was one.

use bytes::Bytes;
use std::io::{self, Read, Write};
use tokio::sync::mpsc;

const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for a slow reader.
pub(super) const CHUNKS_MAX: usize = 16;

pub(super) type Chunk = io::Result<Bytes>;

/// Writes into a channel from a thread. What is left when it is dropped is not sent: see [`ChannelWriter::finish`].
pub(super) struct ChannelWriter {
    sender: mpsc::Sender<Chunk>,
    buffer: Vec<u8>,
}

impl ChannelWriter {
    pub(super) fn new(sender: mpsc::Sender<Chunk>) -> Self {
        ChannelWriter { sender, buffer: Vec::with_capacity(CHUNK_BYTES) }
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.sender.blocking_send(Ok(full.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads from a channel on a thread.
pub(super) struct ChannelReader {
    receiver: mpsc::Receiver<Chunk>,
    chunk: Bytes,
}

impl ChannelReader {
    pub(super) fn new(receiver: mpsc::Receiver<Chunk>) -> Self {
        ChannelReader { receiver, chunk: Bytes::new() }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.chunk.len());
        into[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
