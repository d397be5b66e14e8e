//! SHA-256 as names of files.

use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io;
use std::path::Path;

/// Collects what something is made of. Parts cannot run into each other.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    pub(crate) fn part(mut self, bytes: &[u8]) -> Self {
        self.add(bytes);
        self
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn of_file(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut Into(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

/// 64 hexadecimal digits, as the layers of images are named.
pub(crate) fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Into<'a>(&'a mut Sha256);

impl io::Write for Into<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn parts_of_a_key_have_ends() {
        let (one, other) = (Key::default().part(b"ab").part(b"c"), Key::default().part(b"a").part(b"bc"));
        assert_ne!(one.hex(), other.hex());
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(b"abc").unwrap();
        assert_eq!(of_file(file.path()).unwrap(), of_bytes(b"abc"));
        assert!(is_digest(&of_bytes(b"abc")));
        assert!(!is_digest("../../etc"));
    }
}
