//! Tokens for MCP servers: each time that one is taken out to be shown is in the audit log first.

use super::{Audit, Use};
use crate::client::Client;
use crate::credentials::{Bearer, Bearers, CredentialsError};
use async_trait::async_trait;
use loopd_domain::Clock;
use loopd_domain::audit::AuditResult;
use std::sync::Arc;
use url::Url;

pub struct AuditedBearers {
    bearers: Arc<dyn Bearers>,
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
}

impl AuditedBearers {
    pub fn new(bearers: Arc<dyn Bearers>, audit: Arc<dyn Audit>, clock: Arc<dyn Clock>) -> Self {
        AuditedBearers { bearers, audit, clock }
    }
}

#[async_trait]
impl Bearers for AuditedBearers {
    /// What cannot be written to the audit log does not happen.
    async fn bearer_for(&self, client: &Client, url: &Url) -> Result<Option<Bearer>, CredentialsError> {
        let Some(bearer) = self.bearers.bearer_for(client, url).await? else { return Ok(None) };
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let of = Use { vault: &bearer.vault, credential: &bearer.credential, host, port };
        if let Err(fault) = self.audit.write(of.entry(client, self.clock.now(), AuditResult::Done)).await {
            tracing::error!(%fault, "a credential was not used");
            return Err(CredentialsError(fault.to_string()));
        }
        Ok(Some(bearer))
    }
}

#[cfg(test)]
mod tests {
    use super::super::AuditError;
    use super::*;
    use crate::client::RunningCalls;
    use crate::secret::Secret;
    use loopd_domain::audit::{Actor, AuditEntry};
    use loopd_domain::environment::Networking;
    use loopd_domain::{CallId, CredentialId, Epoch, SessionId, Timestamp, VaultId, WorkspaceId};
    use parking_lot::Mutex;

    const TOKEN: &str = "the token itself";

    struct Held(Option<Bearer>);

    #[async_trait]
    impl Bearers for Held {
        async fn bearer_for(&self, _: &Client, _: &Url) -> Result<Option<Bearer>, CredentialsError> {
            Ok(self.0.clone())
        }
    }

    #[derive(Default)]
    struct Book {
        entries: Mutex<Vec<AuditEntry>>,
        is_full: bool,
    }

    #[async_trait]
    impl Audit for Book {
        async fn write(&self, entry: AuditEntry) -> Result<(), AuditError> {
            if self.is_full {
                return Err(AuditError("the disk is full".to_owned()));
            }
            self.entries.lock().push(entry);
            Ok(())
        }
    }

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp(7)
        }
    }

    fn held() -> Option<Bearer> {
        let vault = VaultId::parse("vault", "vlt_1").unwrap();
        let credential = CredentialId::parse("credential", "vcrd_1").unwrap();
        Some(Bearer { vault, credential, version: 1, token: Secret::new(TOKEN.as_bytes().to_vec()) })
    }

    fn client(running: RunningCalls) -> Client {
        Client {
            session: SessionId::parse("session", "sesn_1").unwrap(),
            workspace: WorkspaceId::default_workspace(),
            epoch: Epoch(1),
            networking: Networking::None,
            ports: Vec::new(),
            mcp_hosts: Vec::new(),
            vaults: Vec::new(),
            running,
        }
    }

    async fn asked(bearer: Option<Bearer>, book: &Arc<Book>, running: RunningCalls) -> Result<bool, CredentialsError> {
        let bearers = AuditedBearers::new(Arc::new(Held(bearer)), book.clone(), Arc::new(Still));
        let url = Url::parse("https://mcp.test/tools").unwrap();
        bearers.bearer_for(&client(running), &url).await.map(|found| found.is_some())
    }

    #[tokio::test]
    async fn each_use_is_written_with_the_calls_that_run() {
        let (book, running) = (Arc::new(Book::default()), RunningCalls::default());
        assert!(asked(held(), &book, running.clone()).await.unwrap());
        let call = CallId::parse("call", "sevt_1").unwrap();
        running.set(vec![call.clone()]);
        assert!(asked(held(), &book, running).await.unwrap());
        let entries = book.entries.lock();
        let calls: Vec<_> = entries.iter().map(|entry| entry.credential_use.as_ref().unwrap().calls.clone()).collect();
        assert_eq!(calls, [vec![], vec![call]]);
        let used = entries[0].credential_use.as_ref().unwrap();
        assert_eq!((used.host.as_str(), used.port, entries[0].at), ("mcp.test", 443, Timestamp(7)));
        assert_eq!(entries[0].actor, Actor::Session { id: SessionId::parse("session", "sesn_1").unwrap() });
        assert_eq!((entries[0].action.as_str(), entries[0].resource.as_str()), ("credentials.use", "vcrd_1"));
        assert!(!format!("{entries:?}").contains(TOKEN));
    }

    #[tokio::test]
    async fn without_an_entry_there_is_no_token_and_without_a_token_no_entry() {
        let full = Arc::new(Book { is_full: true, ..Book::default() });
        let refused = asked(held(), &full, RunningCalls::default()).await.unwrap_err();
        assert!(refused.to_string().contains("the disk is full"), "{refused}");
        let book = Arc::new(Book::default());
        assert!(!asked(None, &book, RunningCalls::default()).await.unwrap());
        assert!(book.entries.lock().is_empty());
    }
}
