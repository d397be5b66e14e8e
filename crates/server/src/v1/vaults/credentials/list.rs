//! `GET /v1/vaults/{vault_id}/credentials`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::listing::Listing;
use crate::wire::credential::{self, Credential};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::{Path, State};

/// Credentials of a vault, newest first.
#[utoipa::path(get, path = "/v1/vaults/{vault_id}/credentials", tag = "vaults",
    params(
        ("vault_id" = String, Path),
        ("limit" = Option<u64>, Query, description = "1 to 100, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before"),
        ("include_archived" = Option<bool>, Query)
    ),
    responses((status = 200, body = Page<Credential>), (status = "4XX", body = ErrorBody)))]
pub async fn list(
    State(state): State<ServerState>,
    caller: Caller,
    Path(vault): Path<String>,
    query: Query,
) -> Answer<Json<Page<Credential>>> {
    let owner = super::super::find(&state, &caller.workspace, &vault).await?;
    let (listing, filter) = Listing::read(format!("credentials.{}", owner.id), caller.workspace, query)?;
    let found = state.store.vaults().credentials(&owner.id, filter).await?;
    Ok(listing.page(found, |c| (c.created_at, c.id.to_string()), credential::write))
}
