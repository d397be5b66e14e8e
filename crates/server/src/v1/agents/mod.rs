//! Agents: versioned definitions.

mod archive;
mod create;
mod list;
mod retrieve;
mod update;
mod versions;

use crate::error::{Answer, ApiError};
use crate::state::ServerState;
use loopd_domain::agent::{Agent, ModelRef};
use loopd_domain::{AgentId, Invalid, WorkspaceId};
use loopd_models::ResolveError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new()
        .routes(routes!(create::create, list::list))
        .routes(routes!(retrieve::retrieve, update::update))
        .routes(routes!(archive::archive))
        .routes(routes!(versions::versions))
}

/// The agent, or the refusal that names it.
pub async fn find(state: &ServerState, workspace: &WorkspaceId, id: &AgentId, version: Option<u64>) -> Answer<Agent> {
    let found = state.store.agents().get(workspace, id, version).await?;
    found.ok_or_else(|| match version {
        Some(version) => ApiError::not_found(format!("no version {version} of agent `{id}`")),
        None => ApiError::absent("agent", id.as_str()),
    })
}

/// Refuses a model that no configuration could make callable. A key that is missing today may be there when the agent runs.
fn check_model(state: &ServerState, model: &ModelRef) -> Result<(), Invalid> {
    match state.models.resolve(model) {
        Ok(_) | Err(ResolveError::MissingKey { .. }) => Ok(()),
        Err(fault) => Err(Invalid::new("model", &model.id, fault.to_string())),
    }
}
