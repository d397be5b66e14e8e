//! The endpoints: one noun per directory, one endpoint per file.

mod agents;
mod audit;
mod environments;
mod events;
mod images;
pub(crate) mod invoke;
mod keys;
mod listing;
mod models;
mod sessions;
mod threads;
mod vaults;
mod workspaces;

use crate::error::ApiError;
use crate::state::ServerState;
use loopd_domain::Invalid;
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new()
        .merge(invoke::routes())
        .merge(agents::routes())
        .merge(environments::routes())
        .merge(sessions::routes())
        .merge(events::routes())
        .merge(threads::routes())
        .merge(vaults::routes())
        .merge(models::routes())
        .merge(keys::routes())
        .merge(workspaces::routes())
        .merge(audit::routes())
        .merge(images::routes())
}

/// An id out of a path: one that cannot be an id is the id of nothing.
fn path_id<T>(noun: &str, text: &str, parse: impl Fn(&str, &str) -> Result<T, Invalid>) -> Result<T, ApiError> {
    parse(noun, text).map_err(|_| ApiError::absent(noun, text))
}
