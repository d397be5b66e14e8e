//! The HTTP interface: a translation between requests and the rooms behind them.
//!
//! A request passes, in this order: `front` (request id, panics, header bounds, the error envelope), `auth` (who calls,
//! what they may ask for, and the record of it), one file of `v1/` (one endpoint), and leaves through `wire` (what clients see of our nouns). Nothing is decided here
//! that concerns a living session: that is `loopd_session`'s. Nothing is remembered here between two requests.
//!
//! - `v1/<noun>/<verb>.rs`: one endpoint per file. To add one: its file, its line in the noun's `routes()`, then
//!   `LOOPD_BLESS=1 cargo test -p loopd-server openapi` to renew `docs/openapi.json`.
//! - `wire/`: reads and writes the wire's objects. Pure; tested without a server.
//! - `body`, `fields`, `query`, `cursor`: strict reading of what strangers send.
//! - `error`: every refusal, as the one envelope. `sse`: frames, pings, slow readers. `idempotency`: one effect per request.

mod auth;
mod body;
mod cursor;
mod error;
mod fields;
mod front;
#[doc(hidden)]
pub mod fuzzing;
mod idempotency;
mod nearest;
mod openapi;
mod query;
mod sse;
mod state;
mod strict;
mod v1;
mod wire;

#[cfg(test)]
mod testing;

pub use auth::{AuthConfig, Oidc, OidcConfig, OidcError, OwnKey, RandomKey, Rates, WorkspaceLimits};
pub use openapi::document as openapi_document;
pub use state::ServerState;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};

/// The whole interface, ready to serve on any listener.
pub fn router(state: ServerState) -> Router {
    let (routes, _) = openapi::routes().split_for_parts();
    routes
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(from_fn_with_state(state.clone(), auth::admit))
        .layer(from_fn(front::guard))
        .layer(from_fn_with_state(state.clone(), front::number))
        .with_state(state)
}
