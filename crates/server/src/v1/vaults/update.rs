//! `POST /v1/vaults/{vault_id}`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ErrorBody};
use crate::state::ServerState;
use crate::wire::vault::{self, Vault, VaultUpdate};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::vault::Vault as Stored;

/// Changes name and metadata. The last of two changes at once wins.
#[utoipa::path(post, path = "/v1/vaults/{vault_id}", tag = "vaults", request_body = VaultUpdate,
    params(("vault_id" = String, Path)),
    responses((status = 200, body = Vault), (status = 404, body = ErrorBody)))]
pub async fn update(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody,
) -> Answer<Json<Vault>> {
    let old = super::find(&state, &caller.workspace, &id).await?;
    if old.archived_at.is_some() {
        return Err(super::archived(&id));
    }
    let new = vault::patch(body.value, old.clone())?;
    if new == old {
        return Ok(Json(vault::write(&old)));
    }
    let new = Stored { updated_at: state.clock.now(), ..new };
    match state.store.vaults().update(new.clone()).await? {
        true => Ok(Json(vault::write(&new))),
        // Archived or deleted meanwhile: read again, to say which.
        false => super::find(&state, &caller.workspace, &id).await.and_then(|_| Err(super::archived(&id))),
    }
}
