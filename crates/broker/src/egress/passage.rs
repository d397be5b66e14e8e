//! One host on behalf of one session: what every request to it is done with.

use super::proxy::Parts;
use super::refusal::Stop;
use super::replace::Bound;
use super::visit::Notes;
use crate::audit::Use;
use crate::client::Client;
use crate::credentials::BoundCredential;
use loopd_domain::audit::{AuditEntry, AuditResult};
use loopd_policy::network::Host;
use std::sync::Arc;
use tokio::sync::Notify;

pub(crate) struct Passage {
    pub(crate) parts: Arc<Parts>,
    pub(crate) client: Arc<Client>,
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) notes: Notes,
    /// Told when the connection should end after what runs on it.
    pub(crate) closing: Arc<Notify>,
}

impl Passage {
    /// The session's credentials as they are now.
    pub(crate) async fn bound(&self) -> Result<Bound, Stop> {
        let credentials = self.parts.credentials.of(&self.client).await;
        let credentials = credentials.map_err(|fault| Stop::failed(fault.to_string()))?;
        Ok(Bound::of(credentials, &self.host, self.port))
    }

    /// Before a secret is sent. What cannot be written to the audit log does not happen.
    pub(crate) async fn use_of(&self, credential: &BoundCredential) -> Result<(), Stop> {
        if let Err(fault) = self.parts.audit.write(self.entry(credential, AuditResult::Done)).await {
            tracing::error!(%fault, "a credential was not used");
            return Err(Stop::failed(format!("the credential `{}` was not used: {fault}", credential.variable)));
        }
        self.notes.used(&credential.credential);
        Ok(())
    }

    /// A placeholder was on its way here, and its credential does not name this host.
    pub(crate) async fn violation(&self, credential: &BoundCredential) -> Stop {
        let (variable, host) = (&credential.variable, &self.host);
        let accepted = credential.hosts.as_deref().unwrap_or_default();
        let accepted = accepted.iter().take(8).map(|host| format!("`{host}`")).collect::<Vec<_>>().join(", ");
        let accepted = if accepted.is_empty() { "none".to_owned() } else { accepted };
        let stop = Stop::violation(format!(
            "the placeholder of `{variable}` was in a request to `{host}`, which is not among its hosts; accepted: {accepted}"
        ));
        tracing::warn!(session = %self.client.session, credential = %credential.credential, %host, "a credential's violation");
        self.kept(credential, stop.reason()).await;
        self.notes.outcome(stop.outcome.clone());
        self.closing.notify_one();
        stop
    }

    /// A secret is never sent in the clear.
    pub(crate) async fn needs_tls(&self, credential: &BoundCredential) -> Stop {
        let (variable, host) = (&credential.variable, &self.host);
        let stop =
            Stop::refused(format!("the secret of `{variable}` is not sent in the clear; accepted: https://{host}"));
        self.kept(credential, stop.reason()).await;
        stop
    }

    /// It is blocked whether or not the log can be written.
    async fn kept(&self, credential: &BoundCredential, reason: &str) {
        let entry = self.entry(credential, AuditResult::Refused { reason: reason.to_owned() });
        if let Err(fault) = self.parts.audit.write(entry).await {
            tracing::error!(%fault, "a credential that was kept back is not in the audit log");
        }
    }

    fn entry(&self, credential: &BoundCredential, result: AuditResult) -> AuditEntry {
        let host = self.host.to_string();
        let of = Use { vault: &credential.vault, credential: &credential.credential, host: &host, port: self.port };
        of.entry(&self.client, self.parts.clock.now(), result)
    }
}
