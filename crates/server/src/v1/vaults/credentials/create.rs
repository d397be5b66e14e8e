//! `POST /v1/vaults/{vault_id}/credentials`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::idempotency::{Done, Request};
use crate::state::ServerState;
use crate::wire::credential::{self, Credential, CredentialCreate};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use loopd_broker::vault::VaultError;
use loopd_domain::CredentialId;
use loopd_domain::vault::Credential as Stored;
use loopd_store::AppendError;
use serde_json::json;

/// Puts a secret into a vault. Up to 20 active credentials, each variable and each MCP server once.
#[utoipa::path(post, path = "/v1/vaults/{vault_id}/credentials", tag = "vaults", request_body = CredentialCreate,
    params(("vault_id" = String, Path)),
    responses((status = 200, body = Credential), (status = "4XX", body = ErrorBody)))]
pub async fn create(
    State(state): State<ServerState>,
    caller: Caller,
    Path(vault): Path<String>,
    headers: HeaderMap,
    body: JsonBody,
) -> Answer<Json<Credential>> {
    // A digest that is kept must not let anybody try secrets.
    let digest = state.vaults.blind(&body.digest);
    let request = Request::of("credentials.create", &state, &caller, &headers, &digest)?;
    let owner = super::super::find(&state, &caller.workspace, &vault).await?;
    let read = credential::read_new(body.value)?;
    let now = state.clock.now();
    let new = Stored {
        id: CredentialId::generate(state.ids.as_ref()),
        vault: owner.id,
        workspace: owner.workspace,
        display_name: read.display_name,
        auth: read.auth,
        metadata: read.metadata,
        created_at: now,
        updated_at: now,
        archived_at: None,
    };
    let done = request.once(&state, async |key| {
        let once = key.map(|key| request.record(key, json!({"id": new.id})));
        let (vaults, added, secret) = (state.vaults.clone(), new.clone(), read.secret.clone());
        let made = tokio::spawn(async move { vaults.add(added, &secret, once).await });
        match made.await.map_err(|e| ApiError::internal(format!("adding a credential ended early: {e}")))? {
            Ok(()) => Ok(Done { value: new.clone(), repeated: false }),
            Err(VaultError::Append(AppendError::Repeated(record))) => {
                let first = super::find(&state, &caller.workspace, &vault, &request.referred(&record)?).await?;
                Ok(Done { value: first, repeated: true })
            }
            Err(VaultError::Absent) => Err(super::super::absent(&vault)),
            Err(VaultError::Archived) => Err(super::super::archived(&vault)),
            Err(fault) => Err(ApiError::from(fault)),
        }
    });
    Ok(Json(credential::write(&done.await?.value)))
}
