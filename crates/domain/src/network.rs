//! What left a room, or was kept from leaving: one record for each connection. Never a secret, a header or a body.

use crate::{CredentialId, Timestamp};
use serde::{Deserialize, Serialize};

/// A connection that a program of a room made, or wanted to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub host: String,
    pub port: u16,
    pub outcome: ConnectionOutcome,
    /// Credentials that were placed in its requests; each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialId>,
    pub started_at: Timestamp,
    pub duration_ms: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ConnectionOutcome {
    /// It was let through and has ended.
    Done,
    /// It was not let through; the sentence says why and what would be accepted.
    Refused { reason: String },
    /// A credential's placeholder was on its way to a host that the credential does not name. It was stopped.
    Violation { reason: String },
    /// It was allowed, and the other end could not be reached or broke off.
    Failed { reason: String },
}

impl ConnectionOutcome {
    /// Why it did not come to its end, if it did not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            ConnectionOutcome::Done => None,
            ConnectionOutcome::Refused { reason }
            | ConnectionOutcome::Violation { reason }
            | ConnectionOutcome::Failed { reason } => Some(reason),
        }
    }

    pub fn reason_mut(&mut self) -> Option<&mut String> {
        match self {
            ConnectionOutcome::Done => None,
            ConnectionOutcome::Refused { reason }
            | ConnectionOutcome::Violation { reason }
            | ConnectionOutcome::Failed { reason } => Some(reason),
        }
    }
}
