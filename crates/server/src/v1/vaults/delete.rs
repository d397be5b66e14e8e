//! `DELETE /v1/vaults/{vault_id}`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::{ServerState, detached};
use crate::wire::page::Deleted;
use axum::Json;
use axum::extract::{Path, State};

/// Removes a vault and all its credentials. Sessions that were given it go on without.
#[utoipa::path(delete, path = "/v1/vaults/{vault_id}", tag = "vaults", params(("vault_id" = String, Path)),
    responses((status = 200, body = Deleted), (status = 404, body = ErrorBody)))]
pub async fn delete(State(state): State<ServerState>, caller: Caller, Path(id): Path<String>) -> Answer<Json<Deleted>> {
    let found = super::find(&state, &caller.workspace, &id).await?;
    let vaults = state.vaults.clone();
    detached(async move { vaults.delete(&found.workspace, &found.id).await }).await?;
    Ok(Json(Deleted { id, kind: "vault_deleted" }))
}
