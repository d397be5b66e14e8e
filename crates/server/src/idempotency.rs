//! One effect per request, however often it is sent.
//!
//! Two ways lead here. A caller names its request with `Idempotency-Key`. Or an official client repeats a request by itself:
//! it sends no key, but counts in `x-stainless-retry-count`, and the body of a retry is the same to the byte. For these we
//! make keys: digest, a stretch of time, and a number. A first attempt takes the first number that is free, so that two
//! equal messages sent on purpose are two; a retry takes the last number that is taken. All of it is in the store, so it
//! holds across a restart of the server. (A retry that overtakes its own first attempt counts as the first attempt.)

use crate::auth::Caller;
use crate::error::{ApiError, key_reused};
use crate::state::ServerState;
use axum::http::HeaderMap;
use loopd_domain::limits::{IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_WINDOW_MS};
use loopd_domain::{Invalid, Timestamp};
use loopd_session::OnceKey;
use loopd_store::{OnceRecord, StoreError};
use std::future::Future;

/// Clients give up and repeat within this time; an equal request later is a new one.
const RETRY_WINDOW_MS: i64 = 30 * 60_000;

/// What is known of a request that has an effect.
pub struct Request {
    caller: Caller,
    /// The endpoint, e.g. `agents.create`.
    scope: &'static str,
    digest: String,
    key: Option<String>,
    retry_count: Option<u32>,
    at: Timestamp,
}

/// An effect and whether it was there before.
pub struct Done<T> {
    pub value: T,
    pub repeated: bool,
}

impl Request {
    pub fn of(
        scope: &'static str,
        state: &ServerState,
        caller: &Caller,
        headers: &HeaderMap,
        digest: &str,
    ) -> Result<Self, Invalid> {
        let retries = headers.get("x-stainless-retry-count").and_then(|v| v.to_str().ok());
        Ok(Request {
            caller: caller.clone(),
            scope,
            digest: digest.to_owned(),
            key: key_of(headers)?,
            retry_count: retries.and_then(|n| n.parse().ok()),
            at: state.clock.now(),
        })
    }

    /// Runs `attempt` under the right key, or under none.
    pub async fn once<T, F, R>(&self, state: &ServerState, attempt: F) -> Result<Done<T>, ApiError>
    where
        F: Fn(Option<OnceKey>) -> R,
        R: Future<Output = Result<Done<T>, ApiError>>,
    {
        if let Some(key) = &self.key {
            return attempt(Some(self.named(format!("{}:{key}", self.scope)))).await;
        }
        match self.retry_count {
            None => attempt(None).await,
            Some(0) => self.first(state, attempt).await,
            Some(_) => self.retry(state, attempt).await,
        }
    }

    async fn first<T, F, R>(&self, state: &ServerState, attempt: F) -> Result<Done<T>, ApiError>
    where
        F: Fn(Option<OnceKey>) -> R,
        R: Future<Output = Result<Done<T>, ApiError>>,
    {
        let stretch = self.stretch();
        let mut number = self.first_free(state, stretch).await?;
        loop {
            let done = attempt(Some(self.numbered(stretch, number))).await?;
            if !done.repeated {
                return Ok(done);
            }
            // An equal request took the number meanwhile; this one is another.
            number += 1;
        }
    }

    async fn retry<T, F, R>(&self, state: &ServerState, attempt: F) -> Result<Done<T>, ApiError>
    where
        F: Fn(Option<OnceKey>) -> R,
        R: Future<Output = Result<Done<T>, ApiError>>,
    {
        for stretch in [self.stretch(), self.stretch() - 1] {
            let free = self.first_free(state, stretch).await?;
            if free > 0 {
                return attempt(Some(self.numbered(stretch, free - 1))).await;
            }
        }
        attempt(Some(self.numbered(self.stretch(), 0))).await
    }

    fn stretch(&self) -> i64 {
        self.at.millis().div_euclid(RETRY_WINDOW_MS)
    }

    fn named(&self, key: String) -> OnceKey {
        OnceKey { key, request_digest: self.digest.clone() }
    }

    fn numbered(&self, stretch: i64, number: u64) -> OnceKey {
        // The scope's own part of the key space: a caller's key cannot start with a space (see `key_of`).
        self.named(format!("{}: retry {stretch}.{number} {}", self.scope, self.digest))
    }

    /// Numbers are taken without gaps, so doubling and then halving finds the first free one.
    async fn first_free(&self, state: &ServerState, stretch: i64) -> Result<u64, StoreError> {
        let taken = async |number: u64| {
            let key = self.numbered(stretch, number).key;
            let found = state.store.once().find(&self.caller.workspace, &key, self.not_before()).await?;
            Ok::<bool, StoreError>(found.is_some())
        };
        let mut above = 0;
        while taken(above).await? {
            above = above * 2 + 1;
        }
        let mut free = above.div_ceil(2);
        while free < above {
            let middle = free + (above - free) / 2;
            match taken(middle).await? {
                true => free = middle + 1,
                false => above = middle,
            }
        }
        Ok(free)
    }

    /// Was a request under this key done before?
    pub async fn is_known(&self, state: &ServerState, key: Option<&OnceKey>) -> Result<bool, StoreError> {
        match key {
            None => Ok(false),
            Some(key) => {
                Ok(state.store.once().find(&self.caller.workspace, &key.key, self.not_before()).await?.is_some())
            }
        }
    }

    fn not_before(&self) -> Timestamp {
        Timestamp::from_millis(self.at.millis().saturating_sub(IDEMPOTENCY_WINDOW_MS as i64))
    }

    /// The record to write with an effect that the store makes by itself.
    pub fn record(&self, key: OnceKey, reference: serde_json::Value) -> OnceRecord {
        OnceRecord {
            workspace: self.caller.workspace.clone(),
            key: key.key,
            request_digest: key.request_digest,
            reference,
            at: self.at,
        }
    }

    /// The `id` that the first request's record refers to; refused when that was another request.
    pub fn referred(&self, record: &OnceRecord) -> Result<String, ApiError> {
        if record.request_digest != self.digest {
            return Err(key_reused(&record.key));
        }
        let id = record.reference.get("id").and_then(|v| v.as_str()).map(str::to_owned);
        id.ok_or_else(|| ApiError::internal(format!("once record `{}` refers to nothing", record.key)))
    }
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, Invalid> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or("");
    let fine =
        !text.is_empty() && text.len() <= IDEMPOTENCY_KEY_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    match fine {
        true => Ok(Some(text.to_owned())),
        false => {
            let accepted = format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters without spaces");
            Err(Invalid::new("idempotency-key", text, accepted))
        }
    }
}
