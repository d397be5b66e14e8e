//! `GET /v1/agents`

use crate::auth::Caller;
use crate::cursor::{self, Row};
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::wire::agent::{self, Agent};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::State;
use loopd_domain::limits::PAGE_ROWS_DEFAULT;
use loopd_store::ListFilter;

pub const ROWS_MAX: usize = 100;
pub const PARAMETERS: [&str; 7] =
    ["limit", "page", "include_archived", "created_at[gt]", "created_at[gte]", "created_at[lt]", "created_at[lte]"];

/// Agents in their latest version, newest first.
#[utoipa::path(get, path = "/v1/agents", tag = "agents",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before"),
        ("include_archived" = Option<bool>, Query),
        ("created_at[gte]" = Option<String>, Query), ("created_at[lte]" = Option<String>, Query)
    ),
    responses((status = 200, body = Page<Agent>), (status = 400, body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, caller: Caller, query: Query) -> Answer<Json<Page<Agent>>> {
    let query = query.only(&PARAMETERS)?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, ROWS_MAX)?;
    let after: Option<Row> = query.one("page")?.map(|text| cursor::decode("agents", text)).transpose()?;
    let filter = ListFilter {
        workspace: caller.workspace,
        include_archived: query.boolean("include_archived")?,
        created: query.created()?,
        after: after.map(Row::place),
        // One more than asked for says whether there is another page.
        limit: limit + 1,
    };
    let found = state.store.agents().list(filter).await?;
    let place = |a: &loopd_domain::agent::Agent| Row { at: a.created_at.micros(), id: a.id.to_string() };
    Ok(Json(Page::cut("agents", found, limit, place, agent::write)))
}
