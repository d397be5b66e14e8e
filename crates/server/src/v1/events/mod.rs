//! Events: what goes into a session and what comes of it.

pub mod list;
mod redact;
mod send;
pub mod stream;

use crate::state::ServerState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new()
        .routes(routes!(send::send, list::list))
        .routes(routes!(stream::stream))
        .routes(routes!(redact::redact))
}
