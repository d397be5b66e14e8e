//! Who calls, what they may ask for, how often, and the record of it.
//!
//! ```text
//!  request ─► callers: a key of the environment, a key of the store, a token of the issuer ─► 401
//!          ─► rates: so many requests of one workspace in a second ─► 429
//!          ─► access: the scope that the route asks for ─► 403
//!          ─► its handler, which is given the caller ─► recorded: the audit log
//! ```
//!
//! [`admit`] runs around all routes, so no handler can forget it, and a handler can only have a [`Caller`] from it.

pub mod access;
mod callers;
mod local;
mod oidc;
mod rates;
mod recorded;

pub use callers::{AuthConfig, OwnKey, RandomKey};
pub use oidc::{Oidc, OidcConfig, OidcError};
pub use rates::{Rates, StreamPlace, WorkspaceLimits};

use crate::error::ApiError;
use crate::state::ServerState;
use access::Access;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use loopd_domain::WorkspaceId;
use loopd_domain::audit::Actor;
use loopd_domain::identity::{Scope, Scopes};
use recorded::{Pending, Record};
use std::sync::{Arc, OnceLock};

/// Lets a request in, or answers 401, 403 or 429. Runs before any handler.
pub async fn admit(State(state): State<ServerState>, mut request: Request, next: Next) -> Response {
    let route = access::of(&request);
    if route.is_some_and(|route| route.scope.is_none()) {
        return next.run(request).await;
    }
    let record = Record::of(&request, route);
    let caller = match state.auth.caller(&state, request.headers()).await {
        Ok(caller) => caller,
        Err(refusal) => {
            record.stranger(&state, &refusal);
            return refusal.into_response();
        }
    };
    if let Err(wait_ms) = state.rates.request(&caller.workspace, state.clock.now()) {
        return ApiError::too_many(
            "this workspace asks more often than it may; try again after what `retry-after` says",
            wait_ms,
        )
        .into_response();
    }
    if let Err(refusal) = may(&caller, route) {
        record.refused(&state, &caller, &refusal);
        return refusal.into_response();
    }
    if route.is_some() {
        request.extensions_mut().insert(caller.clone());
    }
    // A caller that hangs up takes its handler along, and not what that has done already.
    let pending = Pending::new(record, &state, &caller);
    let response = next.run(request).await;
    pending.answered(&response);
    response
}

fn may(caller: &Caller, route: Option<&Access>) -> Result<(), ApiError> {
    match route.and_then(|route| route.scope) {
        Some(scope) => caller.need(scope),
        // Nobody's route: what answers it is given no caller.
        None => Ok(()),
    }
}

/// Who made this request. A handler that takes it can only run behind [`admit`].
#[derive(Debug, Clone)]
pub struct Caller {
    pub workspace: WorkspaceId,
    pub actor: Actor,
    pub scopes: Scopes,
    /// What the request made, for the audit log.
    made: Arc<OnceLock<String>>,
}

impl Caller {
    pub fn new(workspace: WorkspaceId, actor: Actor, scopes: Scopes) -> Self {
        Caller { workspace, actor, scopes, made: Arc::default() }
    }

    /// Says what a request that names no resource was about: the id of what it made.
    pub fn made(&self, id: impl ToString) {
        // The first one counts: a handler that tries again makes one thing.
        _ = self.made.set(id.to_string());
    }

    pub fn need(&self, scope: Scope) -> Result<(), ApiError> {
        match self.scopes.allows(scope) {
            true => Ok(()),
            false => Err(ApiError::lacks_scope(&scope.to_string())),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| ApiError::internal("a handler of callers stands before the door"))
    }
}
