//! `GET /v1/vaults/{vault_id}/credentials/{credential_id}`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::ServerState;
use crate::wire::credential::{self, Credential};
use axum::Json;
use axum::extract::{Path, State};

/// All of it but the secret.
#[utoipa::path(get, path = "/v1/vaults/{vault_id}/credentials/{credential_id}", tag = "vaults",
    params(("vault_id" = String, Path), ("credential_id" = String, Path)),
    responses((status = 200, body = Credential), (status = 404, body = ErrorBody)))]
pub async fn retrieve(
    State(state): State<ServerState>,
    caller: Caller,
    Path((vault, id)): Path<(String, String)>,
) -> Answer<Json<Credential>> {
    let found = super::find(&state, &caller.workspace, &vault, &id).await?;
    Ok(Json(credential::write(&found)))
}
