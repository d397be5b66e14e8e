//! `DELETE /v1/vaults/{vault_id}/credentials/{credential_id}`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::{ServerState, detached};
use crate::wire::page::Deleted;
use axum::Json;
use axum::extract::{Path, State};

/// Removes a credential and its secret, also from sessions that run.
#[utoipa::path(delete, path = "/v1/vaults/{vault_id}/credentials/{credential_id}", tag = "vaults",
    params(("vault_id" = String, Path), ("credential_id" = String, Path)),
    responses((status = 200, body = Deleted), (status = 404, body = ErrorBody)))]
pub async fn delete(
    State(state): State<ServerState>,
    caller: Caller,
    Path((vault, id)): Path<(String, String)>,
) -> Answer<Json<Deleted>> {
    let found = super::find(&state, &caller.workspace, &vault, &id).await?;
    let vaults = state.vaults.clone();
    detached(async move { vaults.delete_credential((&found.workspace, &found.vault, &found.id)).await }).await?;
    Ok(Json(Deleted { id, kind: "vault_credential_deleted" }))
}
