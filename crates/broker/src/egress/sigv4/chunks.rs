//! `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`: a body in chunks, each with a signature that names the one before.
//!
//! A chunk's signature stands before its data and is made of it: one chunk is held at a time. What is signed again has the length
//! of what was sent. Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>.

use super::key::{self, SigningKey};
use bytes::{Buf, Bytes, BytesMut};
use loopd_domain::limits::EGRESS_SIGNED_CHUNK_BYTES_MAX;

pub(super) const STREAMING: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";

/// Longest line before a chunk: a length, and a signature of 64 digits.
const LINE_BYTES_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChunkFault {
    #[error("a signed chunk is malformed")]
    Malformed,
    #[error("a signed chunk of {bytes} bytes is too long; accepted: at most {EGRESS_SIGNED_CHUNK_BYTES_MAX}")]
    Long { bytes: usize },
    #[error("the signature of a chunk was not made with the placeholder as secret key")]
    Mismatch,
    #[error("the body ends before its last chunk")]
    Short,
}

#[derive(Debug)]
pub(crate) struct Rechunk {
    date: String,
    scope: String,
    /// Of the placeholder, of the secret.
    keys: [SigningKey; 2],
    /// Of the chunk before, under each.
    before: [String; 2],
    held: BytesMut,
    is_done: bool,
}

impl Rechunk {
    pub(super) fn new(date: String, scope: String, keys: [SigningKey; 2], before: [String; 2]) -> Self {
        Rechunk { date, scope, keys, before, held: BytesMut::new(), is_done: false }
    }

    /// Takes what came, gives what is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Bytes, ChunkFault> {
        self.held.extend_from_slice(bytes);
        let mut made = BytesMut::new();
        while self.one(&mut made)? {}
        Ok(made.freeze())
    }

    pub(crate) fn finish(&self) -> Result<(), ChunkFault> {
        if self.is_done && self.held.is_empty() { Ok(()) } else { Err(ChunkFault::Short) }
    }

    /// `size;chunk-signature=…\r\n` data `\r\n`. Is there perhaps another?
    fn one(&mut self, made: &mut BytesMut) -> Result<bool, ChunkFault> {
        if self.is_done {
            return if self.held.is_empty() { Ok(false) } else { Err(ChunkFault::Malformed) };
        }
        let Some(end) = self.held.windows(2).take(LINE_BYTES_MAX).position(|window| window == b"\r\n") else {
            return if self.held.len() > LINE_BYTES_MAX { Err(ChunkFault::Malformed) } else { Ok(false) };
        };
        let line = std::str::from_utf8(&self.held[..end]).map_err(|_| ChunkFault::Malformed)?;
        let (size, signature) = line.split_once(";chunk-signature=").ok_or(ChunkFault::Malformed)?;
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ChunkFault::Malformed);
        }
        let length = usize::from_str_radix(size, 16).map_err(|_| ChunkFault::Malformed)?;
        if length > EGRESS_SIGNED_CHUNK_BYTES_MAX {
            return Err(ChunkFault::Long { bytes: length });
        }
        let start = end + 2;
        if self.held.len() < start + length + 2 {
            return Ok(false);
        }
        if &self.held[start + length..start + length + 2] != b"\r\n" {
            return Err(ChunkFault::Malformed);
        }
        let hash = key::hash(&self.held[start..start + length]);
        let [old, new] = [0, 1].map(|which| {
            let (before, empty) = (&self.before[which], key::hash(b""));
            let (date, scope) = (&self.date, &self.scope);
            let text = format!("AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{scope}\n{before}\n{empty}\n{hash}");
            self.keys[which].sign(&text)
        });
        if old != signature {
            return Err(ChunkFault::Mismatch);
        }
        made.extend_from_slice(format!("{size};chunk-signature={new}\r\n").as_bytes());
        made.extend_from_slice(&self.held[start..start + length + 2]);
        self.held.advance(start + length + 2);
        self.before = [old, new];
        self.is_done = length == 0;
        Ok(true)
    }
}
