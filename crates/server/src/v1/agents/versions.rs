//! `GET /v1/agents/{agent_id}/versions`

use crate::auth::Caller;
use crate::cursor;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::listing::ROWS_MAX;
use crate::v1::path_id;
use crate::wire::agent::{self, Agent};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::AgentId;
use loopd_domain::limits::PAGE_ROWS_DEFAULT;

/// Every version of an agent, newest first.
#[utoipa::path(get, path = "/v1/agents/{agent_id}/versions", tag = "agents",
    params(("agent_id" = String, Path), ("limit" = Option<u64>, Query), ("page" = Option<String>, Query)),
    responses((status = 200, body = Page<Agent>), (status = 404, body = ErrorBody)))]
pub async fn versions(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<Page<Agent>>> {
    let query = query.only(&["limit", "page"])?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, ROWS_MAX)?;
    let id = path_id("agent", &id, AgentId::parse)?;
    let scope = format!("versions.{id}");
    let before: Option<u64> = query.one("page")?.map(|text| cursor::decode(&scope, text)).transpose()?;
    super::find(&state, &caller.workspace, &id, None).await?;
    let found = state.store.agents().versions(&caller.workspace, &id, before, limit + 1).await?;
    Ok(Json(Page::cut(&scope, found, limit, |a| a.version, agent::write)))
}
