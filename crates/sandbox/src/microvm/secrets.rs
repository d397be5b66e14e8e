//! What only the host draws: tokens, nonces, entropy for guests; and the time that it tells them.

#![allow(clippy::disallowed_methods, reason = "a guest is told the host's time, and has no other")]

use super::KIND;
use crate::SandboxError;
use loopd_protocol::guest::ENTROPY_BYTES;
use loopd_protocol::link::{NONCE_BYTES, Nonce, TOKEN_BYTES, Token};
use rustix::rand::{GetRandomFlags, getrandom};
use std::time::{SystemTime, UNIX_EPOCH};

fn draw<const BYTES: usize>() -> Result<[u8; BYTES], SandboxError> {
    let mut bytes = [0; BYTES];
    let mut filled = 0;
    while filled < BYTES {
        filled +=
            getrandom(&mut bytes[filled..], GetRandomFlags::empty()).map_err(|errno| SandboxError::Unavailable {
                kind: KIND.as_str(),
                reason: format!("the kernel gives no randomness: {errno}"),
            })?;
    }
    Ok(bytes)
}

pub(super) fn token() -> Result<Token, SandboxError> {
    Ok(Token(draw::<TOKEN_BYTES>()?))
}

pub(super) fn nonce() -> Result<Nonce, SandboxError> {
    Ok(Nonce(draw::<NONCE_BYTES>()?))
}

/// In hexadecimal.
pub(super) fn entropy() -> Result<String, SandboxError> {
    Ok(draw::<ENTROPY_BYTES>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
