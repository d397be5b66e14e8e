//! Reads the issuer's two documents: where its keys are, and the keys. Both bounded in bytes and in time; no redirects.

use super::config::{OidcError, is_this_machine, parse_url};
use super::keys::PublicKey;
use loopd_domain::limits::{OIDC_DISCOVERY_BYTES_MAX, OIDC_FETCH_MS, OIDC_JWKS_BYTES_MAX, OIDC_KEYS_MAX};
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// Below an issuer's URL.
const DISCOVERY: &str = "/.well-known/openid-configuration";

pub struct Issuer {
    http: reqwest::Client,
    issuer: String,
    local: bool,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

impl Issuer {
    pub fn new(issuer: &str) -> Result<Self, OidcError> {
        let local = is_this_machine(&parse_url(issuer)?);
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("loopd/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .timeout(Duration::from_millis(OIDC_FETCH_MS));
            if local { builder.no_proxy() } else { builder }
        };
        // A machine without CA certificates makes the first one fail; the bundled Mozilla roots stand in there.
        let http = builder().build().or_else(|_| builder().tls_certs_only(bundled_roots()?).build());
        let http = http.map_err(|fault| OidcError::Client(deepest_cause(&fault)))?;
        Ok(Issuer { http, issuer: issuer.to_owned(), local })
    }

    /// The issuer's keys of today, as far as they can be used here.
    pub async fn keys(&self) -> Result<Vec<PublicKey>, String> {
        let at = format!("{}{DISCOVERY}", self.issuer.trim_end_matches('/'));
        let found: Discovery = self.document(&at, OIDC_DISCOVERY_BYTES_MAX).await?;
        if found.issuer != self.issuer {
            return Err(format!("`{at}` is of issuer `{}`, not `{}`", shortened(&found.issuer), self.issuer));
        }
        let place = Url::parse(&found.jwks_uri)
            .ok()
            .filter(|url| url.scheme() == "https" || (self.local && url.scheme() == "http" && is_this_machine(url)));
        let place =
            place.ok_or_else(|| format!("`jwks_uri` is `{}`; accepted: `https`", shortened(&found.jwks_uri)))?;
        let set: Jwks = self.document(place.as_str(), OIDC_JWKS_BYTES_MAX).await?;
        if set.keys.len() > OIDC_KEYS_MAX {
            return Err(format!("`{place}` has {} keys; accepted: up to {OIDC_KEYS_MAX}", set.keys.len()));
        }
        // An issuer may have keys for other purposes, and of kinds that are not taken here.
        Ok(set.keys.into_iter().filter_map(PublicKey::read).collect())
    }

    async fn document<T: for<'de> Deserialize<'de>>(&self, at: &str, bytes_max: usize) -> Result<T, String> {
        let failed = |fault: reqwest::Error| format!("`{at}`: {}", deepest_cause(&fault));
        let mut response = self.http.get(at).header("accept", "application/json").send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("`{at}` answered {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > bytes_max {
                return Err(format!("`{at}` has more than {bytes_max} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes).map_err(|fault| format!("`{at}` cannot be read: {fault}"))
    }
}

fn bundled_roots() -> Result<Vec<reqwest::Certificate>, reqwest::Error> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| reqwest::Certificate::from_der(der)).collect()
}

/// reqwest's own sentence says what it did; the last cause says why it failed.
fn deepest_cause(fault: &dyn std::error::Error) -> String {
    let mut cause = fault;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    shortened(&cause.to_string())
}

fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}
