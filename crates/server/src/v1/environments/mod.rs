//! Environments: definitions of the room that a session gets.

mod archive;
mod create;
mod delete;
mod list;
mod retrieve;
mod update;

use crate::error::{Answer, ApiError};
use crate::state::ServerState;
use loopd_domain::environment::Environment;
use loopd_domain::{EnvironmentId, WorkspaceId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new()
        .routes(routes!(create::create, list::list))
        .routes(routes!(retrieve::retrieve, update::update, delete::delete))
        .routes(routes!(archive::archive))
}

/// The environment, or the refusal that names it.
pub async fn find(state: &ServerState, workspace: &WorkspaceId, id: &str) -> Answer<Environment> {
    let absent = || ApiError::absent("environment", id).with_code("environment_not_found");
    let parsed = EnvironmentId::parse("environment", id).map_err(|_| absent())?;
    state.store.environments().get(workspace, &parsed).await?.ok_or_else(absent)
}

/// The environment, if it may still be used.
pub async fn find_active(state: &ServerState, workspace: &WorkspaceId, id: &str) -> Answer<Environment> {
    let found = find(state, workspace, id).await?;
    match found.archived_at {
        None => Ok(found),
        Some(_) => {
            let message = format!("environment `{id}` is archived; accepted: one that is not");
            Err(ApiError::invalid(message).with_code("environment_archived"))
        }
    }
}
