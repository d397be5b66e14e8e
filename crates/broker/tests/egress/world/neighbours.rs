//! Credentials, audit, reports and names, all of them in memory, all of them able to fail.

use async_trait::async_trait;
use loopd_broker::audit::AuditError;
use loopd_broker::credentials::{BoundCredential, CredentialsError};
use loopd_broker::egress::Resolver;
use loopd_broker::{Audit, Client, Credentials, Reports};
use loopd_domain::SessionId;
use loopd_domain::audit::{AuditEntry, AuditResult};
use loopd_domain::network::{Connection, ConnectionOutcome};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Default)]
pub struct Vault {
    held: Mutex<Vec<Arc<BoundCredential>>>,
    is_broken: Mutex<bool>,
    pub asked: Mutex<usize>,
}

impl Vault {
    pub fn hold(&self, credentials: Vec<BoundCredential>) {
        *self.held.lock() = credentials.into_iter().map(Arc::new).collect();
    }

    pub fn fail(&self) {
        *self.is_broken.lock() = true;
    }
}

#[async_trait]
impl Credentials for Vault {
    async fn of(&self, _: &Client) -> Result<Vec<Arc<BoundCredential>>, CredentialsError> {
        *self.asked.lock() += 1;
        match *self.is_broken.lock() {
            true => Err(CredentialsError("the vault is closed".to_owned())),
            false => Ok(self.held.lock().clone()),
        }
    }
}

#[derive(Default)]
pub struct Book {
    pub entries: Mutex<Vec<AuditEntry>>,
    is_broken: Mutex<bool>,
}

impl Book {
    pub fn fail(&self) {
        *self.is_broken.lock() = true;
    }

    pub fn uses(&self) -> usize {
        self.entries.lock().iter().filter(|entry| entry.result == AuditResult::Done).count()
    }

    pub fn refusals(&self) -> usize {
        self.entries.lock().iter().filter(|entry| entry.result != AuditResult::Done).count()
    }
}

#[async_trait]
impl Audit for Book {
    async fn write(&self, entry: AuditEntry) -> Result<(), AuditError> {
        if *self.is_broken.lock() {
            return Err(AuditError("the disk is full".to_owned()));
        }
        self.entries.lock().push(entry);
        Ok(())
    }
}

#[derive(Default)]
pub struct Reported {
    connections: Mutex<Vec<Connection>>,
    came: Notify,
}

impl Reports for Reported {
    fn ended(&self, _: &SessionId, connection: Connection) {
        self.connections.lock().push(connection);
        self.came.notify_waiters();
    }
}

impl Reported {
    /// Waits until there are as many.
    pub async fn all(&self, count: usize) -> Vec<Connection> {
        let waited = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                if self.connections.lock().len() >= count {
                    return self.connections.lock().clone();
                }
                came.await;
            }
        };
        let all = tokio::time::timeout(Duration::from_secs(60), waited).await;
        all.unwrap_or_else(|_| panic!("only {:?} were reported", self.connections.lock()))
    }

    pub async fn one(&self) -> Connection {
        let all = self.all(1).await;
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }

    pub async fn outcome(&self) -> ConnectionOutcome {
        self.one().await.outcome
    }
}

/// Every name leads to this machine, unless said otherwise; answers are given in turn, the last for ever.
#[derive(Default)]
pub struct Names {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    pub asked: Mutex<Vec<String>>,
}

impl Names {
    pub fn answer(&self, name: &str, answers: &[&[&str]]) {
        let parse = |list: &&[&str]| list.iter().map(|text| text.parse().expect("an address")).collect();
        self.answers.lock().insert(name.to_owned(), answers.iter().map(parse).collect());
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().push(name.to_owned());
        match self.answers.lock().get_mut(name) {
            None => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
            Some(answers) if answers.is_empty() => Err(io::Error::other("no such name")),
            Some(answers) if answers.len() == 1 => Ok(answers[0].clone()),
            Some(answers) => Ok(answers.remove(0)),
        }
    }
}
