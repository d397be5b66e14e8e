//! From a name to addresses that may be dialled.
//!
//! A name is resolved once for a connection, all its addresses are judged, and only those are dialled: what a second answer would
//! say does not matter.

use super::refusal::Stop;
use async_trait::async_trait;
use loopd_domain::limits::{EGRESS_ADDRESSES_MAX, EGRESS_CONNECT_MS, EGRESS_RESOLVE_MS};
use loopd_policy::network::{Exception, Host, is_public};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where addresses of names come from.
#[async_trait]
pub trait Resolver: Send + Sync {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// As the machine is configured.
#[derive(Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // With a final dot no search domain is tried.
        let found = tokio::net::lookup_host((format!("{name}."), 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Addresses of one host that were found good.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    addresses: Vec<SocketAddr>,
}

pub(crate) async fn check(
    resolver: &dyn Resolver,
    exceptions: &[Exception],
    host: &Host,
    port: u16,
) -> Result<Checked, Stop> {
    let found = match (host.address(), host.name()) {
        (Some(address), _) => vec![address],
        (None, name) => {
            let name = name.unwrap_or_default();
            let limit = Duration::from_millis(EGRESS_RESOLVE_MS);
            match timeout(limit, resolver.resolve(name)).await {
                Ok(Ok(found)) => found,
                Ok(Err(fault)) => return Err(Stop::failed(format!("`{host}` cannot be resolved: {fault}"))),
                Err(_) => return Err(Stop::failed(format!("`{host}` was not resolved within {} s", limit.as_secs()))),
            }
        }
    };
    if found.is_empty() {
        return Err(Stop::failed(format!("`{host}` has no address")));
    }
    let may = |address: &IpAddr| is_public(*address) || exceptions.iter().any(|e| e.covers(host, port, *address));
    if let Some(address) = found.iter().find(|address| !may(address)) {
        return Err(Stop::refused(format!(
            "`{host}` is at {address}, which is not an address of the public internet; accepted: public addresses, and those \
             that the operator allows"
        )));
    }
    let addresses =
        found.into_iter().take(EGRESS_ADDRESSES_MAX).map(|address| SocketAddr::new(address, port)).collect();
    Ok(Checked { addresses })
}

impl Checked {
    /// Connects to the first that answers, in the order in which they were found.
    pub(crate) async fn dial(&self, host: &Host, port: u16) -> Result<TcpStream, Stop> {
        let limit = Duration::from_millis(EGRESS_CONNECT_MS);
        let mut last = "no address was tried".to_owned();
        for address in &self.addresses {
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    if let Err(fault) = stream.set_nodelay(true) {
                        tracing::debug!(%fault, "TCP_NODELAY was not set");
                    }
                    return Ok(stream);
                }
                Ok(Err(fault)) => last = fault.to_string(),
                Err(_) => last = format!("no answer within {} s", limit.as_secs()),
            }
        }
        Err(Stop::failed(format!("`{host}` cannot be reached at port {port}: {last}")))
    }
}
