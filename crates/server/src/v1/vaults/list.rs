//! `GET /v1/vaults`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::listing::Listing;
use crate::wire::page::Page;
use crate::wire::vault::{self, Vault};
use axum::Json;
use axum::extract::State;

/// Vaults, newest first.
#[utoipa::path(get, path = "/v1/vaults", tag = "vaults",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before"),
        ("include_archived" = Option<bool>, Query)
    ),
    responses((status = 200, body = Page<Vault>), (status = 400, body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, caller: Caller, query: Query) -> Answer<Json<Page<Vault>>> {
    let (listing, filter) = Listing::read("vaults", caller.workspace, query)?;
    let found = state.store.vaults().list(filter).await?;
    Ok(listing.page(found, |v| (v.created_at, v.id.to_string()), vault::write))
}
