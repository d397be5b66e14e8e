//! Who calls: an API key in either of the two headers that clients use, and the workspace that the key belongs to.
//!
//! Without any key configured the server is in development mode: it takes every caller as the default workspace, but only
//! when the request was addressed to this machine by a local name. Otherwise any web page that the developer opens could
//! drive the server (by a cross-site request, or by a host name that resolves to 127.0.0.1).

use crate::error::ApiError;
use crate::state::ServerState;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use loopd_domain::WorkspaceId;
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// Paths that anybody may read: they say nothing of any workspace.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/openapi.json"];

/// Which keys are known. Empty: development mode.
#[derive(Default)]
pub struct AuthConfig {
    pub api_keys: Vec<ApiKey>,
}

/// A key as it is kept: its digest, never itself.
pub struct ApiKey {
    digest: [u8; 32],
    workspace: WorkspaceId,
}

impl ApiKey {
    pub fn new(key: &str, workspace: WorkspaceId) -> Self {
        ApiKey { digest: Sha256::digest(key.as_bytes()).into(), workspace }
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({})", self.workspace)
    }
}

impl AuthConfig {
    /// Every caller is the default workspace.
    pub fn development() -> Self {
        AuthConfig::default()
    }
    /// Keys of the default workspace.
    pub fn with_keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let own = |key| ApiKey::new(key, WorkspaceId::default_workspace());
        AuthConfig { api_keys: keys.into_iter().map(own).collect() }
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.api_keys.is_empty() {
            local_only(headers)?;
            return Ok(Caller { workspace: WorkspaceId::default_workspace() });
        }
        let given = key_of(headers).ok_or_else(|| {
            ApiError::unauthenticated("no API key; accepted: `Authorization: Bearer <key>` or `X-Api-Key: <key>`")
        })?;
        // Digests are compared, so the time that the comparison takes says nothing about the key.
        let digest: [u8; 32] = Sha256::digest(given).into();
        let known = self.api_keys.iter().find(|k| k.digest == digest);
        let known = known.ok_or_else(|| ApiError::unauthenticated("the API key is not known here"))?;
        Ok(Caller { workspace: known.workspace.clone() })
    }
}

fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii())).filter(|k| !k.is_empty())
}

fn local_only(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(HOST).and_then(|h| h.to_str().ok());
    let origin = headers.get(ORIGIN).and_then(|h| h.to_str().ok());
    let authority = |text: &str| text.split_once("://").map_or(text.to_owned(), |(_, rest)| rest.to_owned());
    for (name, value) in [("host", host.map(str::to_owned)), ("origin", origin.map(authority))] {
        if let Some(value) = value.filter(|v| !is_local(v)) {
            return Err(ApiError::forbidden(format!(
                "`{name}` is `{value}`; accepted in development mode: a local name such as `localhost` or `127.0.0.1`. \
                 Start loopd with an API key to serve other names"
            )));
        }
    }
    Ok(())
}

/// `host`, `host:port` or `[v6]:port` that can only be this machine.
fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => authority.split(':').next().unwrap_or(""),
    };
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// Lets a request in, or answers 401. Runs before routing, so no handler can forget it.
pub async fn admit(State(state): State<ServerState>, mut request: Request, next: Next) -> Response {
    if !OPEN_PATHS.contains(&request.uri().path()) {
        match state.auth.caller(request.headers()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
            }
            Err(refusal) => return refusal.into_response(),
        }
    }
    next.run(request).await
}

/// Who made this request. A handler that takes it can only run behind [`admit`].
#[derive(Debug, Clone)]
pub struct Caller {
    pub workspace: WorkspaceId,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| ApiError::internal("a handler of callers stands before the door"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().expect("name"), v.parse().expect("value"))).collect()
    }

    #[test]
    fn both_headers_are_taken() {
        let auth = AuthConfig::with_keys(["k1", "k2"]);
        for good in [("authorization", "Bearer k1"), ("authorization", "bearer k2"), ("x-api-key", "k1")] {
            assert!(auth.caller(&headers(&[good])).is_ok(), "{good:?}");
        }
        for bad in [("authorization", "Bearer no"), ("authorization", "k1"), ("x-api-key", ""), ("x-other", "k1")] {
            assert_eq!(auth.caller(&headers(&[bad])).expect_err("refused").status.as_u16(), 401, "{bad:?}");
        }
    }

    #[test]
    fn a_key_leads_to_its_workspace() {
        let other = WorkspaceId::parse("w", "wrkspc_other").expect("an id");
        let auth = AuthConfig { api_keys: vec![ApiKey::new("k", other.clone())] };
        assert_eq!(auth.caller(&headers(&[("x-api-key", "k")])).expect("known").workspace, other);
    }

    #[test]
    fn development_mode_answers_to_local_names_only() {
        let auth = AuthConfig::development();
        for good in ["localhost", "localhost:7007", "127.0.0.1:7007", "[::1]:7007", "app.localhost"] {
            assert!(auth.caller(&headers(&[("host", good)])).is_ok(), "{good}");
        }
        for bad in ["evil.example", "127.0.0.1.evil.example:7007", "10.0.0.1", "localhost.evil.example"] {
            assert_eq!(auth.caller(&headers(&[("host", bad)])).expect_err("refused").status.as_u16(), 403, "{bad}");
        }
        let cross = headers(&[("host", "localhost"), ("origin", "https://evil.example")]);
        assert_eq!(auth.caller(&cross).expect_err("refused").status.as_u16(), 403);
        assert!(auth.caller(&headers(&[("origin", "http://localhost:7007")])).is_ok());
        assert!(auth.caller(&headers(&[("origin", "null")])).is_err());
    }
}
