//! `POST /v1/vaults/{vault_id}/archive`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::{ServerState, detached};
use crate::wire::vault::{self, Vault};
use axum::Json;
use axum::extract::{Path, State};

/// Ends a vault and all its credentials: their secrets are removed, also from sessions that run. Archiving twice is once.
#[utoipa::path(post, path = "/v1/vaults/{vault_id}/archive", tag = "vaults", params(("vault_id" = String, Path)),
    responses((status = 200, body = Vault), (status = 404, body = ErrorBody)))]
pub async fn archive(State(state): State<ServerState>, caller: Caller, Path(id): Path<String>) -> Answer<Json<Vault>> {
    let found = super::find(&state, &caller.workspace, &id).await?;
    let (vaults, now) = (state.vaults.clone(), state.clock.now());
    let archived = detached(async move { vaults.archive(&found.workspace, &found.id, now).await }).await?;
    Ok(Json(vault::write(&archived)))
}
