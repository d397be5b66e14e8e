//! What is known of one connection while it lasts, and its report at the end.

use super::proxy::Parts;
use super::room::Traffic;
use crate::client::Client;
use loopd_domain::network::{Connection, ConnectionOutcome};
use loopd_domain::{CredentialId, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;

/// Reports when it is dropped, whatever happened.
pub(crate) struct Visit {
    parts: Arc<Parts>,
    client: Arc<Client>,
    host: String,
    port: u16,
    started_at: Timestamp,
    traffic: Arc<Traffic>,
    before: (u64, u64),
    seen: Arc<Mutex<Seen>>,
}

/// The part that others write to.
#[derive(Default)]
pub(crate) struct Seen {
    credentials: Vec<CredentialId>,
    outcome: Option<ConnectionOutcome>,
}

#[derive(Clone)]
pub(crate) struct Notes(Arc<Mutex<Seen>>);

impl Visit {
    pub(crate) fn new(parts: Arc<Parts>, client: Arc<Client>, host: String, port: u16, traffic: Arc<Traffic>) -> Self {
        let (started_at, before) = (parts.clock.now(), traffic.counts());
        Visit { parts, client, host, port, started_at, traffic, before, seen: Arc::default() }
    }

    pub(crate) fn notes(&self) -> Notes {
        Notes(self.seen.clone())
    }
}

impl Notes {
    /// The worst outcome stands, and of equals the first.
    pub(crate) fn outcome(&self, outcome: ConnectionOutcome) {
        let weight = |outcome: &ConnectionOutcome| match outcome {
            ConnectionOutcome::Done => 0,
            ConnectionOutcome::Failed { .. } => 1,
            ConnectionOutcome::Refused { .. } => 2,
            ConnectionOutcome::Violation { .. } => 3,
        };
        let mut seen = self.0.lock();
        if seen.outcome.as_ref().is_none_or(|stands| weight(&outcome) > weight(stands)) {
            seen.outcome = Some(outcome);
        }
    }

    pub(crate) fn used(&self, credential: &CredentialId) {
        let mut seen = self.0.lock();
        if !seen.credentials.contains(credential) {
            seen.credentials.push(credential.clone());
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let (out, into) = self.traffic.counts();
        let mut seen = self.seen.lock();
        let cut = || ConnectionOutcome::Failed { reason: "it was cut off before its end".to_owned() };
        let connection = Connection {
            host: std::mem::take(&mut self.host),
            port: self.port,
            outcome: seen.outcome.take().unwrap_or_else(cut),
            credentials: std::mem::take(&mut seen.credentials),
            started_at: self.started_at,
            duration_ms: self.parts.clock.now().since_ms(self.started_at),
            bytes_out: out - self.before.0,
            bytes_in: into - self.before.1,
        };
        drop(seen);
        self.parts.reports.ended(&self.client.session, connection);
    }
}
