//! The HTTP clients that all calls share, and which of them a call goes through.
//!
//! A redirect is followed only within its origin, and only where it keeps method and body; every other one is the answer.

use loopd_domain::limits::HOST_REDIRECTS_MAX;
use reqwest::redirect::{Attempt, Policy};
use std::time::Duration;
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no HTTP client could be made.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client can be made: {0}")]
pub struct ClientError(String);

/// Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    remote: reqwest::Client,
    /// For services on this machine, past any proxy.
    local: reqwest::Client,
}

impl Clients {
    pub(crate) fn new() -> Result<Self, ClientError> {
        let refused = |fault: reqwest::Error| ClientError(deepest_cause(&fault));
        // A machine without CA certificates makes the first one fail; the bundled Mozilla roots stand in there.
        let remote = builder().build().or_else(|_| builder().tls_certs_only(bundled_roots()?).build());
        let local = builder().no_proxy().tls_certs_only([]).build();
        Ok(Clients { remote: remote.map_err(refused)?, local: local.map_err(refused)? })
    }

    pub(crate) fn of(&self, url: &Url) -> &reqwest::Client {
        if is_local(url) { &self.local } else { &self.remote }
    }
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("loopd/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::custom(redirect))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
}

fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let within = attempt.previous().last().is_some_and(|from| from.origin() == attempt.url().origin());
    let keeps_body = matches!(attempt.status().as_u16(), 307 | 308);
    match within && keeps_body && attempt.previous().len() <= HOST_REDIRECTS_MAX {
        true => attempt.follow(),
        false => attempt.stop(),
    }
}

fn bundled_roots() -> Result<Vec<reqwest::Certificate>, reqwest::Error> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| reqwest::Certificate::from_der(der)).collect()
}

fn is_local(url: &Url) -> bool {
    url.scheme() == "http"
        && match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
}

/// reqwest's own sentence says what it did, address and query included; the last cause says why it failed.
pub(crate) fn deepest_cause(fault: &dyn std::error::Error) -> String {
    let mut cause = fault;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string().chars().take(300).collect()
}
