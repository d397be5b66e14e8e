//! `POST /v1/vaults/{vault_id}/credentials/{credential_id}/archive`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::{ServerState, detached};
use crate::wire::credential::{self, Credential};
use axum::Json;
use axum::extract::{Path, State};

/// Removes the secret, also from sessions that run, and frees its variable or server for another one. Archiving twice is once.
#[utoipa::path(post, path = "/v1/vaults/{vault_id}/credentials/{credential_id}/archive", tag = "vaults",
    params(("vault_id" = String, Path), ("credential_id" = String, Path)),
    responses((status = 200, body = Credential), (status = 404, body = ErrorBody)))]
pub async fn archive(
    State(state): State<ServerState>,
    caller: Caller,
    Path((vault, id)): Path<(String, String)>,
) -> Answer<Json<Credential>> {
    let found = super::find(&state, &caller.workspace, &vault, &id).await?;
    let (vaults, now) = (state.vaults.clone(), state.clock.now());
    let archive = async move { vaults.archive_credential((&found.workspace, &found.vault, &found.id), now).await };
    Ok(Json(credential::write(&detached(archive).await?)))
}
