//! The issuer's keys: kept, renewed when they are old or when a token names one that is not known, and trusted for a
//! while when the issuer is down.
//!
//! ```text
//!  age:      0 ────────── fresh ──────────┬──────── renewed behind the caller's back ────────┬───── stale
//!  known     taken                        │ taken                                            │ renewed first, else 503
//!  unknown   renewed first (at most once in OIDC_REFETCH_MS), then refused; 503 while the issuer cannot be asked
//! ```

use super::fetch::Issuer;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use loopd_domain::Timestamp;
use loopd_domain::limits::{OIDC_FRESH_MS, OIDC_REFETCH_MS, OIDC_STALE_MS};
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A key, and the one algorithm that it is for.
#[derive(Clone)]
pub struct PublicKey {
    id: Option<String>,
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

impl PublicKey {
    /// `None`: not for signatures, of another kind, or malformed. Shared secrets are of another kind.
    pub fn read(jwk: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        let fits = jwk.common.key_algorithm.is_none_or(|given| given == named);
        let signs = jwk.common.public_key_use.as_ref().is_none_or(|given| *given == PublicKeyUse::Signature);
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (fits && signs).then(|| PublicKey { id: jwk.common.key_id.clone(), algorithm, key })
    }
}

#[derive(Debug)]
pub enum KeyFault {
    /// The issuer was asked, and has no such key.
    Unknown,
    /// The issuer cannot be asked.
    Unavailable(String),
}

#[derive(Default, Clone)]
struct Known {
    keys: Arc<Vec<PublicKey>>,
    fetched: Option<Timestamp>,
    tried: Option<Timestamp>,
    /// Why the last try came to nothing.
    fault: Option<String>,
}

impl Known {
    fn is_younger(&self, than_ms: u64, now: Timestamp) -> bool {
        self.fetched.is_some_and(|at| now.since_ms(at) < than_ms)
    }

    fn may_try(&self, now: Timestamp) -> bool {
        self.tried.is_none_or(|at| now.since_ms(at) >= OIDC_REFETCH_MS)
    }

    /// A token without a key id is taken when there is only one key that it can mean.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<PublicKey> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)).cloned(),
            None => fitting.next().filter(|_| fitting.next().is_none()).cloned(),
        }
    }
}

pub struct Keys {
    issuer: Issuer,
    known: Mutex<Known>,
    /// Held by whoever asks the issuer: one at a time.
    asking: tokio::sync::Mutex<()>,
}

impl Keys {
    pub fn new(issuer: Issuer) -> Self {
        Keys { issuer, known: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    pub async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<PublicKey, KeyFault> {
        let known = self.known().clone();
        if let Some(key) = known.find(id, algorithm).filter(|_| known.is_younger(OIDC_STALE_MS, now)) {
            if !known.is_younger(OIDC_FRESH_MS, now) && known.may_try(now) {
                let keys = self.clone();
                tokio::spawn(async move { keys.renew(now).await });
            }
            return Ok(key);
        }
        self.renew(now).await;
        let known = self.known().clone();
        let usable = known.is_younger(OIDC_STALE_MS, now);
        match known.find(id, algorithm).filter(|_| usable) {
            Some(key) => Ok(key),
            None => match known.fault {
                Some(cause) => Err(KeyFault::Unavailable(cause)),
                None => Err(KeyFault::Unknown),
            },
        }
    }

    /// Asks the issuer, unless somebody has just done so.
    async fn renew(&self, now: Timestamp) {
        let _asking = self.asking.lock().await;
        if !self.known().may_try(now) {
            return;
        }
        self.known().tried = Some(now);
        let answer = self.issuer.keys().await;
        let mut known = self.known();
        match answer {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "the issuer's keys were read");
                *known = Known { keys: Arc::new(keys), fetched: Some(now), tried: known.tried, fault: None };
            }
            Err(cause) => {
                tracing::warn!(cause, "the issuer of tokens cannot be asked for its keys; known ones go on");
                known.fault = Some(cause);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
