//! `POST /v1/agents/{agent_id}/archive`

use crate::auth::Caller;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::state::ServerState;
use crate::v1::path_id;
use crate::wire::agent::{self, Agent};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::AgentId;

/// Ends an agent: it takes no changes and no new sessions. Sessions that it has go on. Archiving twice is once.
#[utoipa::path(post, path = "/v1/agents/{agent_id}/archive", tag = "agents", params(("agent_id" = String, Path)),
    responses((status = 200, body = Agent), (status = 404, body = ErrorBody)))]
pub async fn archive(State(state): State<ServerState>, caller: Caller, Path(id): Path<String>) -> Answer<Json<Agent>> {
    let id = path_id("agent", &id, AgentId::parse)?;
    let archived = state.store.agents().archive(&caller.workspace, &id, state.clock.now()).await?;
    let archived = archived.ok_or_else(|| ApiError::absent("agent", id.as_str()))?;
    Ok(Json(agent::write(&archived)))
}
