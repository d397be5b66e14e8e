//! Egress and vaults as a test wants them: the gate notes on whose behalf it is asked and does with each connection what the
//! host's name says; the secrets are plain texts.

use super::TestClock;
use async_trait::async_trait;
use loopd_broker::credentials::CredentialsError;
use loopd_broker::egress::RoomStream;
use loopd_broker::{Client, Egress, Mask, Placeholders, Reports};
use loopd_domain::network::{Connection, ConnectionOutcome};
use loopd_domain::{Clock, Timestamp, VaultId};
use loopd_session::ConnectionReports;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The first word of a host's name says what becomes of a connection: `open` is answered and done, `hang` stays open until it is
/// cut, `panic` breaks down, every other is refused.
pub struct Gate {
    connections: Arc<ConnectionReports>,
    pub clients: Mutex<Vec<Arc<Client>>>,
    pub open: AtomicUsize,
}

impl Gate {
    pub fn new(connections: Arc<ConnectionReports>) -> Self {
        Gate { connections, clients: Mutex::default(), open: AtomicUsize::new(0) }
    }
}

/// Reports when it goes, however that comes about.
struct Passing<'a> {
    gate: &'a Gate,
    client: Arc<Client>,
    host: String,
    started_at: Timestamp,
    outcome: ConnectionOutcome,
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        let connection = Connection {
            host: self.host.clone(),
            port: 443,
            outcome: self.outcome.clone(),
            credentials: Vec::new(),
            started_at: self.started_at,
            duration_ms: 1,
            bytes_out: 1,
            bytes_in: 2,
        };
        self.gate.connections.ended(&self.client.session, connection);
    }
}

#[async_trait]
impl Egress for Gate {
    async fn serve(&self, client: Arc<Client>, mut stream: Box<dyn RoomStream>) {
        self.clients.lock().push(client.clone());
        self.open.fetch_add(1, Ordering::Relaxed);
        let started_at = TestClock.now();
        let cut = ConnectionOutcome::Failed { reason: "cut".to_owned() };
        let mut passing = Passing { gate: self, client, host: String::new(), started_at, outcome: cut };
        let mut line = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            if byte == b'\n' {
                break;
            }
            line.push(byte);
        }
        let line = String::from_utf8(line).expect("a line");
        let host = line.strip_prefix("CONNECT ").and_then(|l| l.strip_suffix(":443")).expect("a wish");
        passing.host = host.to_owned();
        match host.split('.').next() {
            Some("open") => {
                stream.write_all(b"welcome").await.expect("taken");
                passing.outcome = ConnectionOutcome::Done;
            }
            Some("hang") => {
                stream.write_all(b"wait").await.expect("taken");
                std::future::pending().await
            }
            Some("panic") => panic!("the test wants it so"),
            _ => passing.outcome = ConnectionOutcome::Refused { reason: format!("`{host}` is not allowed") },
        }
    }
}

/// Secrets and what stands in their place.
#[derive(Default)]
pub struct Secrets {
    pub pairs: Mutex<Vec<(&'static str, &'static str)>>,
    pub variables: Mutex<Vec<(&'static str, &'static str)>>,
    pub away: AtomicBool,
}

struct PlainMask(Vec<(&'static str, &'static str)>);

impl Secrets {
    /// Of a new session: one when there is something in it, or it is away.
    pub fn vaults(&self) -> Vec<VaultId> {
        let some = self.away.load(Ordering::Relaxed) || !self.variables.lock().is_empty();
        some.then(|| VaultId::parse("id", "vlt_TEST").expect("an id")).into_iter().collect()
    }
}

#[async_trait]
impl Placeholders for Secrets {
    async fn variables(&self, _client: &Client) -> Result<Vec<(String, String)>, CredentialsError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(CredentialsError("the vault is away".to_owned()));
        }
        let variables = self.variables.lock();
        Ok(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    async fn mask(&self, _client: &Client) -> Result<Arc<dyn Mask>, CredentialsError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(CredentialsError("the vault is away".to_owned())),
            false => Ok(Arc::new(PlainMask(self.pairs.lock().clone()))),
        }
    }
}

impl Mask for PlainMask {
    fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let found = |t: &str| self.0.iter().any(|(secret, _)| t.contains(secret));
        match found(text) {
            false => Cow::Borrowed(text),
            true => Cow::Owned(self.0.iter().fold(text.to_owned(), |t, (secret, place)| t.replace(secret, place))),
        }
    }

    fn longest(&self) -> usize {
        self.0.iter().map(|(secret, _)| secret.len()).max().unwrap_or(0)
    }
}
