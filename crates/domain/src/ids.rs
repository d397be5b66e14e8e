//! Typed ids: a prefix that says the noun, then a ULID in Crockford's base 32. Clients treat them as opaque.

use crate::{Invalid, clock::IdSource};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Longest accepted id, prefix included, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// 26 characters, sorting as the number does.
pub fn encode_ulid(mut ulid: u128) -> String {
    let mut out = [0u8; 26];
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[(ulid & 31) as usize];
        ulid >>= 5;
    }
    out.iter().map(|b| char::from(*b)).collect()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            pub fn generate(ids: &dyn IdSource) -> Self {
                $name(format!("{}{}", $prefix, encode_ulid(ids.ulid())))
            }
            /// Reads an id that somebody else wrote: right prefix, ASCII letters and digits, bounded.
            pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
                let rest = text.strip_prefix($prefix).unwrap_or("");
                if rest.is_empty() || text.len() > ID_BYTES_MAX || !rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    let accepted = format!("an id that starts with `{}`", $prefix);
                    return Err(Invalid::new(field, text, accepted));
                }
                Ok($name(text.to_owned()))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The part after the prefix.
            pub fn tail(&self) -> &str {
                &self.0[$prefix.len()..]
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                $name::parse("id", &text).map_err(serde::de::Error::custom)
            }
        }
    )*

    /// Is this an id of any noun? What is not one of ours may be anything, also something that must not be repeated.
    pub fn is_id(text: &str) -> bool {
        [$($name::parse("id", text).is_ok()),*].contains(&true)
    }
    };
}

ids! {
    /// A versioned agent definition.
    AgentId, "agent_";
    /// A definition of the room that a session gets.
    EnvironmentId, "env_";
    /// One conversation: a journal, a workspace, an owner.
    SessionId, "sesn_";
    /// One journal entry. A tool call's id is the id of the event that asked for it.
    EventId, "sevt_";
    /// One line of conversation inside a session; the primary thread has the session's own ULID.
    ThreadId, "sthr_";
    /// One HTTP request, as in the `request-id` header.
    RequestId, "req_";
    /// A wall between tenants.
    WorkspaceId, "wrkspc_";
    /// A set of credentials.
    VaultId, "vlt_";
    /// One secret in a vault, and where it may be used.
    CredentialId, "vcrd_";
    /// A key of the interface: its record, never itself.
    ApiKeyId, "apikey_";
    /// One entry of the audit log.
    AuditId, "audit_";
}

/// A tool call is named by the event that recorded its intent.
pub type CallId = EventId;

impl ThreadId {
    /// The thread that every session has from its start.
    pub fn primary(session: &SessionId) -> Self {
        ThreadId(format!("{}{}", Self::PREFIX, session.tail()))
    }
}

impl WorkspaceId {
    /// The workspace of a server that has no keys yet.
    pub fn default_workspace() -> Self {
        WorkspaceId(format!("{}default", Self::PREFIX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulids_sort_as_numbers() {
        assert_eq!(encode_ulid(0), "0".repeat(26));
        assert_eq!(encode_ulid(u128::MAX), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        assert!(encode_ulid(31) < encode_ulid(32));
    }

    #[test]
    fn foreign_ids_are_checked() {
        assert!(SessionId::parse("session", "sesn_01ABC").is_ok());
        for bad in ["", "sesn_", "agent_01", "sesn_../../etc", "sesn_a b"] {
            let fault = SessionId::parse("session", bad).expect_err(bad);
            assert_eq!(fault.field, "session");
        }
        assert!(SessionId::parse("session", &format!("sesn_{}", "a".repeat(100))).is_err());
        assert!(is_id("sesn_01ABC") && is_id("apikey_1"));
        assert!(!is_id("lpd_0123") && !is_id("") && !is_id("sesn_"));
    }
}
