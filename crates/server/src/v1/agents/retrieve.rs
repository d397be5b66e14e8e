//! `GET /v1/agents/{agent_id}`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::path_id;
use crate::wire::agent::{self, Agent};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::AgentId;

/// The latest version, or the one asked for.
#[utoipa::path(get, path = "/v1/agents/{agent_id}", tag = "agents",
    params(("agent_id" = String, Path), ("version" = Option<u64>, Query, description = "absent: the latest")),
    responses((status = 200, body = Agent), (status = 404, body = ErrorBody)))]
pub async fn retrieve(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<Agent>> {
    let version = query.only(&["version"])?.integer("version", 1..=i64::MAX as u64)?;
    let id = path_id("agent", &id, AgentId::parse)?;
    let found = super::find(&state, &caller.workspace, &id, version).await?;
    Ok(Json(agent::write(&found)))
}
