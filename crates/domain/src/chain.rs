//! The hash chain of a journal: each entry covers its predecessor, so nothing can be changed or cut unseen.
//!
//! An entry's hash covers the *digest* of its payload, not the payload, so that a redacted payload leaves the chain valid.

use crate::{EventId, Seq, Timestamp, event::Event};
use sha2::{Digest, Sha256};

/// SHA-256, 32 bytes.
pub type Hash = [u8; 32];

/// Hash of "no entry yet".
pub const GENESIS: Hash = [0; 32];

/// An event as it is written: serialised, with its links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: Seq,
    pub id: EventId,
    pub kind: &'static str,
    /// The body as JSON, `type` included.
    pub payload: String,
    pub at: Timestamp,
    /// SHA-256 of `payload`.
    pub digest: Hash,
    /// Covers the previous entry's hash, seq, id, kind, time and digest.
    pub hash: Hash,
}

impl Entry {
    pub fn seal(previous: &Hash, event: &Event) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_string(&event.body)?;
        let digest: Hash = Sha256::digest(payload.as_bytes()).into();
        let kind = event.body.kind();
        let hash = link(previous, event.seq, &event.id, kind, event.at, &digest);
        Ok(Entry { seq: event.seq, id: event.id.clone(), kind, payload, at: event.at, digest, hash })
    }
}

/// Hash of one entry. Fields are length-prefixed, so that no two entries share an encoding.
pub fn link(previous: &Hash, seq: Seq, id: &EventId, kind: &str, at: Timestamp, digest: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(seq.to_le_bytes());
    for text in [id.as_str(), kind] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.update(at.micros().to_le_bytes());
    hasher.update(digest);
    hasher.finalize().into()
}

/// Lower-case hex of a hash.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of some bytes as lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
