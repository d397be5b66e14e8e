//! `POST /v1/vaults`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::idempotency::{Done, Request};
use crate::state::ServerState;
use crate::wire::vault::{self, Vault, VaultCreate};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use loopd_broker::vault::VaultError;
use loopd_domain::VaultId;
use loopd_domain::vault::Vault as Stored;
use loopd_store::AppendError;
use serde_json::json;

/// Makes a vault, without credentials.
#[utoipa::path(post, path = "/v1/vaults", tag = "vaults", request_body = VaultCreate,
    responses((status = 200, body = Vault), (status = "4XX", body = ErrorBody)))]
pub async fn create(
    State(state): State<ServerState>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody,
) -> Answer<Json<Vault>> {
    let request = Request::of("vaults.create", &state, &caller, &headers, &body.digest)?;
    let (display_name, metadata) = vault::read_new(body.value)?;
    let now = state.clock.now();
    let new = Stored {
        id: VaultId::generate(state.ids.as_ref()),
        workspace: caller.workspace.clone(),
        display_name,
        metadata,
        created_at: now,
        updated_at: now,
        archived_at: None,
    };
    let done = request.once(&state, async |key| {
        let once = key.map(|key| request.record(key, json!({"id": new.id})));
        let (vaults, vault) = (state.vaults.clone(), new.clone());
        let made = tokio::spawn(async move { vaults.create(vault, once).await });
        match made.await.map_err(|e| ApiError::internal(format!("making a vault ended early: {e}")))? {
            Ok(()) => Ok(Done { value: new.clone(), repeated: false }),
            Err(VaultError::Append(AppendError::Repeated(record))) => {
                let first = super::find(&state, &caller.workspace, &request.referred(&record)?).await?;
                Ok(Done { value: first, repeated: true })
            }
            Err(fault) => Err(ApiError::from(fault)),
        }
    });
    Ok(Json(vault::write(&done.await?.value)))
}
