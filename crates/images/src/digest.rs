//! The name of content: SHA-256 of its bytes, as OCI writes it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::{self, Read};

const PREFIX: &str = "sha256:";
const HEX_CHARS: usize = 64;

/// `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(PREFIX)?;
        let digits = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (hex.len() == HEX_CHARS && digits).then(|| Digest(text.to_owned()))
    }

    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    pub(crate) fn finish(hasher: Sha256) -> Self {
        let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Digest(format!("{PREFIX}{hex}"))
    }

    /// Without the algorithm: safe as a file's name.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let refused =
            || serde::de::Error::custom(format!("`{text}` is no digest; accepted: `sha256:` and 64 hex digits"));
        Digest::parse(&text).ok_or_else(refused)
    }
}

/// Passes bytes on, up to a number of them, and knows their digest.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    left: u64,
}

/// More bytes came than are accepted.
#[derive(Debug, thiserror::Error)]
#[error("it has more bytes than are accepted")]
pub(crate) struct TooLong;

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R, most: u64) -> Self {
        Hashing { inner, hasher: Sha256::new(), left: most }
    }

    /// Reads what is left, and answers the digest of all.
    pub(crate) fn drain(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest::finish(self.hasher))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(into)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| io::Error::other(TooLong))?;
        self.hasher.update(&into[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_in_lower_case_is_a_digest() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Digest::parse(digest.as_str()), Some(digest.clone()));
        let other = digest.as_str().to_uppercase();
        for text in ["", "sha256:", "sha256:../../etc/passwd", &other, "sha512:00", &format!("{digest}0")] {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_reader_has_its_digest_and_its_end() {
        let mut reader = Hashing::new(&b"abcdef"[..], 6);
        reader.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(reader.drain().unwrap(), Digest::of(b"abcdef"));
        let fault = Hashing::new(&b"abcdef"[..], 5).drain().unwrap_err();
        assert!(fault.get_ref().is_some_and(|inner| inner.is::<TooLong>()));
    }
}
