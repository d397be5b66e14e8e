//! `POST /v1/vaults/{vault_id}/credentials/{credential_id}`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::state::{ServerState, detached};
use crate::wire::credential::{self, Credential, CredentialUpdate};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::vault::Credential as Stored;

/// Changes a credential. A new secret is used from the next request on, in running sessions as well.
#[utoipa::path(post, path = "/v1/vaults/{vault_id}/credentials/{credential_id}", tag = "vaults",
    request_body = CredentialUpdate, params(("vault_id" = String, Path), ("credential_id" = String, Path)),
    responses((status = 200, body = Credential), (status = "4XX", body = ErrorBody)))]
pub async fn update(
    State(state): State<ServerState>,
    caller: Caller,
    Path((vault, id)): Path<(String, String)>,
    body: JsonBody,
) -> Answer<Json<Credential>> {
    let found = super::find(&state, &caller.workspace, &vault, &id).await?;
    if found.archived_at.is_some() {
        return Err(super::archived(&id));
    }
    let (edit, secret) = credential::read_edit(body.value)?;
    if secret.is_none() && edit.apply(found.clone())? == found {
        return Ok(Json(credential::write(&found)));
    }
    let (vaults, now) = (state.vaults.clone(), state.clock.now());
    let change = async move {
        let names = (&found.workspace, &found.vault, &found.id);
        let edit = |old| edit.apply(old).map(|new| Stored { updated_at: now, ..new }).map_err(ApiError::from);
        vaults.change(names, secret.as_ref(), edit).await
    };
    let new = detached(change).await?;
    Ok(Json(credential::write(&new)))
}
