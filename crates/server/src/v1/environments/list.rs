//! `GET /v1/environments`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::listing::Listing;
use crate::wire::environment::{self, Environment};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::State;

/// Environments, newest first.
#[utoipa::path(get, path = "/v1/environments", tag = "environments",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before"),
        ("include_archived" = Option<bool>, Query)
    ),
    responses((status = 200, body = Page<Environment>), (status = 400, body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, caller: Caller, query: Query) -> Answer<Json<Page<Environment>>> {
    let (listing, filter) = Listing::read("environments", caller.workspace, query)?;
    let found = state.store.environments().list(filter).await?;
    Ok(listing.page(found, |e| (e.created_at, e.id.to_string()), environment::write))
}
