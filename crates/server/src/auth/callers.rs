//! From what a request shows to who made it.
//!
//! Three kinds of callers are known: keys of the environment and of this process (the operator's own), keys of the store, and tokens of a
//! configured issuer. Where there is none of them, and never was a key in the store, the server is in development mode: it
//! takes every caller as the default workspace, but only when the request was addressed to this machine by a local name. Otherwise any
//! web page that the developer opens could drive the server (by a cross-site request, or by a host name that resolves to
//! 127.0.0.1).

use super::Caller;
use super::local::local_only;
use super::oidc::Oidc;
use crate::error::ApiError;
use crate::state::ServerState;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use loopd_domain::WorkspaceId;
use loopd_domain::audit::Actor;
use loopd_domain::identity::{ApiKey, KeyDigest, NewKey, Scopes};
use loopd_domain::limits::{BEARER_BYTES_MAX, KEY_USED_GRAIN_MS};
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the randomness of new keys comes from.
pub type RandomKey = fn() -> [u8; 32];

/// Which callers are known. None: development mode.
pub struct AuthConfig {
    pub own_keys: Vec<OwnKey>,
    /// A key that only the machine's own command line knows.
    pub operator: Option<OwnKey>,
    pub oidc: Option<Oidc>,
    /// The store holds a key, or has held one: a server that had keys is not open again because they are gone.
    pub stored: AtomicBool,
    /// `None`: no keys are made here.
    pub random: Option<RandomKey>,
}

/// A key that whoever runs the server gave it, as it is kept: its digest, never itself.
pub struct OwnKey {
    digest: KeyDigest,
    workspace: WorkspaceId,
}

impl OwnKey {
    pub fn new(key: &str, workspace: WorkspaceId) -> Self {
        OwnKey { digest: KeyDigest::of(key.as_bytes()), workspace }
    }
}

impl AuthConfig {
    /// Every caller is the default workspace.
    pub fn development() -> Self {
        AuthConfig::with_keys([])
    }

    /// Keys of the default workspace.
    pub fn with_keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let own = |key| OwnKey::new(key, WorkspaceId::default_workspace());
        AuthConfig {
            own_keys: keys.into_iter().map(own).collect(),
            operator: None,
            oidc: None,
            stored: AtomicBool::new(false),
            random: None,
        }
    }

    pub fn with_random(self, random: RandomKey) -> Self {
        AuthConfig { random: Some(random), ..self }
    }

    pub fn with_oidc(self, oidc: Option<Oidc>) -> Self {
        AuthConfig { oidc, ..self }
    }

    /// One more key of whoever runs the server. It changes nothing about who else is let in.
    pub fn with_operator(self, key: &str) -> Self {
        AuthConfig { operator: Some(OwnKey::new(key, WorkspaceId::default_workspace())), ..self }
    }

    /// From now on callers need a key.
    pub fn close(&self) {
        self.stored.store(true, Ordering::Release);
    }

    pub fn is_development(&self) -> bool {
        self.own_keys.is_empty() && self.oidc.is_none() && !self.stored.load(Ordering::Acquire)
    }

    /// A new key, told once.
    pub fn new_key(&self) -> Result<NewKey, ApiError> {
        let random = self.random.ok_or_else(|| ApiError::internal("no source of randomness for keys"))?;
        Ok(NewKey::from_random(random()))
    }

    pub async fn caller(&self, state: &ServerState, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_development() {
            local_only(headers)?;
            return Ok(Caller::new(WorkspaceId::default_workspace(), Actor::Development, Scopes::operator()));
        }
        let given = shown(headers).ok_or_else(|| {
            ApiError::unauthenticated("no API key; accepted: `Authorization: Bearer <key>` or `X-Api-Key: <key>`")
        })?;
        if given.len() > BEARER_BYTES_MAX {
            let message = format!("the API key has {} bytes; accepted: up to {BEARER_BYTES_MAX}", given.len());
            return Err(ApiError::unauthenticated(message));
        }
        // Digests are looked up, so the time that it takes says nothing about the key.
        let digest = KeyDigest::of(given);
        if let Some(own) = self.own_keys.iter().chain(&self.operator).find(|k| k.digest == digest) {
            return Ok(Caller::new(own.workspace.clone(), Actor::Operator, Scopes::operator()));
        }
        if let (Some(oidc), Some(token)) = (&self.oidc, token(given)) {
            return oidc.caller(state, token).await;
        }
        self.stored_caller(state, digest).await
    }

    async fn stored_caller(&self, state: &ServerState, digest: KeyDigest) -> Result<Caller, ApiError> {
        let found = match self.stored.load(Ordering::Acquire) {
            true => state.store.api_keys().find(&digest).await?,
            false => None,
        };
        let key = found.ok_or_else(|| ApiError::unauthenticated("the API key is not known here"))?;
        let now = state.clock.now();
        if !key.is_valid(now) {
            let why = if key.revoked_at.is_some() { "was revoked" } else { "has expired" };
            return Err(ApiError::unauthenticated(format!("the API key `{}…` {why}", key.hint)));
        }
        note_use(state, &key).await;
        Ok(Caller::new(key.workspace, Actor::ApiKey { id: key.id }, key.scopes))
    }
}

/// Once in a while, so that reading stays reading. A store that takes no writes keeps nobody out.
async fn note_use(state: &ServerState, key: &ApiKey) {
    let now = state.clock.now();
    if key.last_used_at.is_some_and(|at| now < at.plus_ms(KEY_USED_GRAIN_MS)) {
        return;
    }
    if let Err(fault) = state.store.api_keys().used(&key.id, now).await {
        tracing::warn!(key = %key.id, %fault, "the last use of a key could not be noted");
    }
}

fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii())).filter(|k| !k.is_empty())
}

/// Three parts, of which the first is the beginning of a JSON object in base 64.
fn token(given: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(given).ok()?;
    (text.starts_with("ey") && text.split('.').count() == 3).then_some(text)
}

impl std::fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwnKey({})", self.workspace)
    }
}
