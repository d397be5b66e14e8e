//! Sealing: AES-256-GCM under a key of 32 bytes, bound to what it is for.
//!
//! ```text
//!  master key (file, environment, key service) ─ wraps ─► data key of the house      ─► placeholders, what others seal
//!                                              └ wraps ─► data key of each vault     ─► its credentials' secrets
//! ```
//!
//! What is sealed is `1 | nonce (12) | ciphertext | tag (16)`; the first byte says so.

use crate::secret::Secret;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hmac, rand};

/// Bytes of every key here.
pub const KEY_BYTES: usize = 32;
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 1 + NONCE_LEN;
const TAG_BYTES: usize = 16;

/// The library refused: its generator or its arithmetic failed. Nothing that a caller sent leads here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct Failed;

/// What a sealed text belongs to. Two lists of parts are never the same bytes.
pub fn context(parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

pub fn random_key() -> Result<Secret, Failed> {
    let mut bytes = vec![0; KEY_BYTES];
    let filled = rand::fill(&mut bytes);
    let key = Secret::new(bytes);
    filled.map(|()| key).map_err(|_| Failed)
}

/// A key for one use out of a key for all of them.
pub fn derive(key: &Secret, label: &str) -> Secret {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.reveal()), label.as_bytes());
    Secret::new(tag.as_ref().to_vec())
}

/// Seals and opens under one key.
pub struct Sealing(RandomizedNonceKey);

impl Sealing {
    pub fn new(key: &Secret) -> Result<Self, Failed> {
        RandomizedNonceKey::new(&AES_256_GCM, key.reveal()).map(Sealing).map_err(|_| Failed)
    }

    pub fn seal(&self, context: &[u8], plain: &Secret) -> Result<Vec<u8>, Failed> {
        // As large as it will be, so that no copy of the plain text is left behind by growing.
        let mut text = Vec::with_capacity(plain.reveal().len() + TAG_BYTES);
        text.extend_from_slice(plain.reveal());
        let nonce = self.0.seal_in_place_append_tag(Aad::from(context), &mut text).map_err(|_| Failed)?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + text.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    /// `None`: another key, another context, or changed bytes.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Secret> {
        let (head, text) = sealed.split_at_checked(HEAD_BYTES)?;
        let (format, nonce) = head.split_first()?;
        if *format != FORMAT {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(context), &mut text).map(|plain| plain.len());
        let length = opened.as_ref().map_or(0, |length| *length);
        text.truncate(length);
        // Wiped with all that it can hold, whatever is in it by now.
        let plain = Secret::new(text);
        opened.ok().map(|_| plain)
    }
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealing(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealing() -> Sealing {
        Sealing::new(&random_key().expect("random")).expect("a key")
    }

    #[test]
    fn what_was_sealed_opens_for_its_context_alone() {
        let sealing = sealing();
        let plain = Secret::new(b"hunter2 hunter2".to_vec());
        let sealed = sealing.seal(b"here", &plain).expect("sealed");
        assert_eq!(sealing.open(b"here", &sealed).expect("opens").reveal(), plain.reveal());
        assert!(sealing.open(b"there", &sealed).is_none());
        assert!(super::tests::sealing().open(b"here", &sealed).is_none());
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_ne!(sealed, sealing.seal(b"here", &plain).expect("sealed"), "another nonce each time");
    }

    #[test]
    fn every_changed_or_missing_byte_is_found() {
        let sealing = sealing();
        let sealed = sealing.seal(b"c", &Secret::new(b"secret".to_vec())).expect("sealed");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(sealing.open(b"c", &changed).is_none(), "byte {place}");
            assert!(sealing.open(b"c", &sealed[..place]).is_none(), "cut at {place}");
        }
        let empty = sealing.seal(b"c", &Secret::new(Vec::new())).expect("sealed");
        assert_eq!(sealing.open(b"c", &empty).expect("opens").reveal(), b"");
    }

    #[test]
    fn contexts_do_not_run_into_each_other() {
        assert_ne!(context(&["ab", "c"]), context(&["a", "bc"]));
        assert_ne!(context(&["a"]), context(&["a", ""]));
    }
}
