//! `GET /v1/agents`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::listing::Listing;
use crate::wire::agent::{self, Agent};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::State;

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
    let (listing, filter) = Listing::read("agents", caller.workspace, query)?;
    let found = state.store.agents().list(filter).await?;
    Ok(listing.page(found, |a| (a.created_at, a.id.to_string()), agent::write))
}
