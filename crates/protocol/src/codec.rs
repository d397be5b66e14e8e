//! One frame to bytes and back, without I/O: both ends feed it what they read.

use loopd_domain::limits::FRAME_BYTES_MAX;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes; at most {FRAME_BYTES_MAX} are accepted")]
    TooLarge { bytes: usize },
    #[error("a frame that cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Appends one frame to `out`.
pub fn encode<T: Serialize>(frame: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    if let Err(fault) = serde_json::to_writer(&mut *out, frame) {
        out.truncate(start);
        return Err(fault.into());
    }
    let bytes = out.len() - start - 4;
    if bytes > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(FrameError::TooLarge { bytes });
    }
    out[start..start + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
    Ok(())
}

/// Collects bytes until they make frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    read: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether [`Decoder::next`] would give a frame, or an error.
    pub fn is_ready(&self) -> bool {
        let rest = &self.buffer[self.read..];
        rest.split_first_chunk::<4>().is_some_and(|(head, body)| {
            let bytes = u32::from_le_bytes(*head) as usize;
            bytes > FRAME_BYTES_MAX || body.len() >= bytes
        })
    }

    /// The next whole frame, if it has arrived. After an error the channel is of no more use.
    #[allow(clippy::should_implement_trait, reason = "the caller chooses the type; no iterator can")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let rest = &self.buffer[self.read..];
        let Some((head, body)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let bytes = u32::from_le_bytes(*head) as usize;
        if bytes > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes });
        }
        if body.len() < bytes {
            return Ok(None);
        }
        let frame = serde_json::from_slice(&body[..bytes])?;
        self.read += 4 + bytes;
        if self.read == self.buffer.len() {
            // One large frame must not cost its size for the rest of a session.
            self.buffer.clear();
            self.buffer.shrink_to(64 << 10);
            self.read = 0;
        } else if self.read > 64 << 10 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        Ok(Some(frame))
    }
}
