//! The way out of rooms, put together from what the operator says of it.

use crate::config::NetworkSection;
use anyhow::{Context, Result};
use async_trait::async_trait;
use loopd_broker::Audit;
use loopd_broker::audit::AuditError;
use loopd_broker::egress::{Authority, Neighbours, Proxy, Resolver, Rules, SystemResolver, roots_of};
use loopd_broker::{Credentials, Reports};
use loopd_domain::Clock;
use loopd_domain::audit::AuditEntry;
use loopd_policy::network::Exception;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

/// The egress proxy, by the operator's rules.
pub fn proxy(
    network: &NetworkSection,
    authority: Arc<Authority>,
    credentials: Arc<dyn Credentials>,
    reports: Arc<dyn Reports>,
    clock: Arc<dyn Clock>,
) -> Result<Proxy> {
    let exceptions = network.allow_addresses.iter().map(|text| Exception::parse(text));
    let extra_roots = match &network.extra_roots {
        None => Vec::new(),
        Some(path) => {
            let pem = std::fs::read(path).with_context(|| format!("[network] extra_roots: `{}`", path.display()))?;
            roots_of(&pem).with_context(|| format!("[network] extra_roots: `{}`", path.display()))?
        }
    };
    let rules =
        Rules { exceptions: exceptions.collect::<Result<_, _>>().context("[network] allow_addresses")?, extra_roots };
    let resolver = Arc::new(NamedHosts { hosts: network.hosts.clone(), others: SystemResolver });
    let with = Neighbours { credentials, audit: Arc::new(AuditToLog), reports, clock, resolver };
    Proxy::new(rules, authority, with).context("the way out of rooms could not be set up")
}

/// Names whose addresses the operator gives; every other one as the machine resolves it.
struct NamedHosts {
    hosts: BTreeMap<String, IpAddr>,
    others: SystemResolver,
}

#[async_trait]
impl Resolver for NamedHosts {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self.hosts.iter().find(|(named, _)| named.eq_ignore_ascii_case(name)) {
            Some((_, address)) => Ok(vec![*address]),
            None => self.others.resolve(name).await,
        }
    }
}

/// Entries go to the server's log.
struct AuditToLog;

#[async_trait]
impl Audit for AuditToLog {
    async fn write(&self, entry: AuditEntry) -> Result<(), AuditError> {
        let text = serde_json::to_string(&entry).map_err(|fault| AuditError(fault.to_string()))?;
        tracing::info!(target: "loopd::audit", entry = %text, "audit");
        Ok(())
    }
}
