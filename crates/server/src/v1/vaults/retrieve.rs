//! `GET /v1/vaults/{vault_id}`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::ServerState;
use crate::wire::vault::{self, Vault};
use axum::Json;
use axum::extract::{Path, State};

#[utoipa::path(get, path = "/v1/vaults/{vault_id}", tag = "vaults", params(("vault_id" = String, Path)),
    responses((status = 200, body = Vault), (status = 404, body = ErrorBody)))]
pub async fn retrieve(State(state): State<ServerState>, caller: Caller, Path(id): Path<String>) -> Answer<Json<Vault>> {
    let found = super::find(&state, &caller.workspace, &id).await?;
    Ok(Json(vault::write(&found)))
}
