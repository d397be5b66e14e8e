//! The proxy: whom it works for, what it works with, and how many at the same time.

use super::authority::Authority;
use super::connect::{self, Asked};
use super::forward::{Forward, NO_HOST};
use super::leaf::{LeafError, Leaves};
use super::passage::Passage;
use super::refusal::Stop;
use super::resolve::{self, Checked, Resolver};
use super::room::{RoomIo, Traffic};
use super::tasks::Scope;
use super::tunnel::Tunnel;
use super::visit::Visit;
use super::{Egress, RoomStream};
use crate::audit::Audit;
use crate::client::Client;
use crate::credentials::Credentials;
use crate::report::Reports;
use async_trait::async_trait;
use loopd_domain::limits::{EGRESS_CONNECTIONS_MAX, EGRESS_CONNECTIONS_PER_SESSION_MAX, EGRESS_IDLE_MS};
use loopd_domain::network::ConnectionOutcome;
use loopd_domain::{Clock, SessionId};
use loopd_policy::network::{self, Exception, Host};
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// What the operator says of the way out.
#[derive(Debug, Default)]
pub struct Rules {
    /// Addresses that may be dialled although they are not of the public internet.
    pub exceptions: Vec<Exception>,
    /// Roots that are trusted beside Mozilla's.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

/// What the proxy works with.
pub struct Neighbours {
    pub credentials: Arc<dyn Credentials>,
    pub audit: Arc<dyn Audit>,
    pub reports: Arc<dyn Reports>,
    pub clock: Arc<dyn Clock>,
    pub resolver: Arc<dyn Resolver>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error("an extra root certificate cannot be read: {0}")]
    Root(String),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The egress proxy of a server: one for all its rooms.
pub struct Proxy {
    parts: Arc<Parts>,
    open: Arc<Mutex<HashMap<SessionId, usize>>>,
}

pub(crate) struct Parts {
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) audit: Arc<dyn Audit>,
    pub(crate) reports: Arc<dyn Reports>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leaves: Leaves,
    pub(crate) tls: Clients,
    resolver: Arc<dyn Resolver>,
    exceptions: Vec<Exception>,
}

/// TLS towards the world, by what is offered.
pub(crate) struct Clients {
    pub(crate) any: Arc<ClientConfig>,
    pub(crate) h1: Arc<ClientConfig>,
}

impl Proxy {
    /// Makes keys and a first leaf, which also starts the crypto library: for the start of a server, not for its first connection.
    pub fn new(rules: Rules, authority: Arc<Authority>, with: Neighbours) -> Result<Self, ProxyError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        for root in rules.extra_roots {
            roots.add(root).map_err(|fault| ProxyError::Root(fault.to_string()))?;
        }
        let roots = Arc::new(roots);
        let client = |protocols: &[&[u8]]| {
            let builder =
                ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
            let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            // A ticket of one session is no business of another.
            config.resumption = Resumption::disabled();
            Ok::<_, rustls::Error>(Arc::new(config))
        };
        let tls = Clients { any: client(&[b"h2", b"http/1.1"])?, h1: client(&[b"http/1.1"])? };
        let leaves = Leaves::new(authority, provider)?;
        if let Ok(host) = Host::parse("loopd.invalid") {
            leaves.of(&host, with.clock.now())?;
        }
        let Neighbours { credentials, audit, reports, clock, resolver } = with;
        let exceptions = rules.exceptions;
        let parts = Parts { credentials, audit, reports, clock, leaves, tls, resolver, exceptions };
        Ok(Proxy { parts: Arc::new(parts), open: Arc::default() })
    }

    /// Counts a connection of this session, as long as what it gives lives.
    fn admit(&self, session: &SessionId) -> Result<Place, Stop> {
        let mut open = self.open.lock();
        if open.values().sum::<usize>() >= EGRESS_CONNECTIONS_MAX {
            return Err(Stop::busy(format!("there are {EGRESS_CONNECTIONS_MAX} connections already; try again later")));
        }
        let own = open.entry(session.clone()).or_default();
        if *own >= EGRESS_CONNECTIONS_PER_SESSION_MAX {
            return Err(Stop::busy(format!(
                "this room has {EGRESS_CONNECTIONS_PER_SESSION_MAX} connections already; accepted: a new one when another is closed"
            )));
        }
        *own += 1;
        Ok(Place { open: self.open.clone(), session: session.clone() })
    }
}

impl Parts {
    /// May this session connect there, by the environment's words and by what the name resolves to?
    pub(crate) async fn permit(&self, client: &Client, host: &Host, port: u16) -> Result<Checked, Stop> {
        network::decide(&client.networking, &client.ports, &client.mcp_hosts, host, port)
            .map_err(|refusal| Stop::refused(refusal.to_string()))?;
        resolve::check(self.resolver.as_ref(), &self.exceptions, host, port).await
    }
}

#[async_trait]
impl Egress for Proxy {
    async fn serve(&self, client: Arc<Client>, stream: Box<dyn RoomStream>) {
        let traffic = Arc::new(Traffic::default());
        let mut room = RoomIo::new(stream, traffic.clone());
        let visit = |host: String, port| Visit::new(self.parts.clone(), client.clone(), host, port, traffic.clone());
        let asked = match self.admit(&client.session) {
            Ok(place) => connect::read(&mut room).await.map(|asked| (asked, Some(place))),
            Err(stop) => Ok((Asked::Refused(stop), None)),
        };
        let (asked, place) = match asked {
            Ok(asked) => asked,
            Err(fault) => return tracing::debug!(%fault, "a connection from a room ended before it asked for anything"),
        };
        let scope = Scope::new();
        match asked {
            Asked::Nothing => {}
            Asked::Refused(stop) => {
                let visit = visit(NO_HOST.to_owned(), 0);
                visit.notes().outcome(stop.outcome.clone());
                if let Err(fault) = room.write_all(&stop.bytes()).await {
                    tracing::debug!(%fault, "a refusal was not told");
                }
            }
            Asked::Request => {
                let forward = Forward::new(self.parts.clone(), client, traffic.clone(), scope.tasks());
                if until_idle(&traffic, IDLE, forward.serve(room)).await.is_none() {
                    tracing::debug!("a connection from a room was idle for too long");
                }
            }
            Asked::Connect { host, port } => {
                let visit = visit(host.to_string(), port);
                let (parts, notes, closing) = (self.parts.clone(), visit.notes(), Arc::default());
                let passage = Arc::new(Passage { parts, client: client.clone(), host, port, notes, closing });
                let tunnel = Tunnel { passage, tasks: scope.tasks() };
                if until_idle(&traffic, IDLE, tunnel.serve(room)).await.is_none() {
                    let reason = format!("nothing moved for {} s", EGRESS_IDLE_MS / 1_000);
                    visit.notes().outcome(ConnectionOutcome::Failed { reason });
                }
            }
        }
        drop((scope, place));
    }
}

const IDLE: Duration = Duration::from_millis(EGRESS_IDLE_MS);

/// Runs it as long as something moves; `None` when it was cut off.
async fn until_idle(traffic: &Traffic, limit: Duration, work: impl Future<Output = ()>) -> Option<()> {
    let idle = async {
        loop {
            let before = traffic.counts();
            tokio::time::sleep(limit).await;
            if traffic.counts() == before {
                return;
            }
        }
    };
    tokio::select! {
        () = work => Some(()),
        () = idle => None,
    }
}

/// One connection that is counted.
struct Place {
    open: Arc<Mutex<HashMap<SessionId, usize>>>,
    session: SessionId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(own) = open.get_mut(&self.session) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.session);
            }
        }
    }
}

/// The certificates of a PEM file, for [`Rules::extra_roots`].
pub fn roots_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ProxyError> {
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    roots.map_err(|fault| ProxyError::Root(fault.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_stands_still_is_cut_and_what_moves_is_not() {
        let traffic = Traffic::default();
        assert_eq!(until_idle(&traffic, SHORT, std::future::pending()).await, None);
        let slow = async {
            for _ in 0..10 {
                tokio::time::sleep(SHORT / 5).await;
                traffic.add(1, 0);
            }
        };
        // A limit that no busy machine reaches between two of them.
        assert_eq!(until_idle(&traffic, SHORT * 1_000, slow).await, Some(()));
    }
}
