//! The key of a scope, and signatures made with it.

use super::scope::Scope;
use crate::secret::Secret;
use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

pub(crate) struct SigningKey(hmac::Key);

impl SigningKey {
    pub(super) fn derive(secret: &Secret, scope: &Scope) -> Self {
        let first = Zeroizing::new([b"AWS4", secret.reveal()].concat());
        let step = |key: &[u8], data: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes());
        let day = step(&first, scope.day());
        let region = step(day.as_ref(), &scope.region);
        let service = step(region.as_ref(), &scope.service);
        let signing = step(service.as_ref(), "aws4_request");
        SigningKey(hmac::Key::new(hmac::HMAC_SHA256, signing.as_ref()))
    }

    /// In lower-case hexadecimal.
    pub(super) fn sign(&self, text: &str) -> String {
        hex(hmac::sign(&self.0, text.as_bytes()).as_ref())
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// SHA-256, in lower-case hexadecimal.
pub(super) fn hash(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
