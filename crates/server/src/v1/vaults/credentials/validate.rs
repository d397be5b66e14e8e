//! `POST /v1/vaults/{vault_id}/credentials/{credential_id}/mcp_oauth_validate`

use crate::auth::Caller;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::state::ServerState;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::Value;

/// Not available in this version: there are no `mcp_oauth` credentials.
#[utoipa::path(post, path = "/v1/vaults/{vault_id}/credentials/{credential_id}/mcp_oauth_validate", tag = "vaults",
    params(("vault_id" = String, Path), ("credential_id" = String, Path)),
    responses((status = "4XX", body = ErrorBody)))]
pub async fn mcp_oauth_validate(
    State(state): State<ServerState>,
    caller: Caller,
    Path((vault, id)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    super::find(&state, &caller.workspace, &vault, &id).await?;
    Err(ApiError::invalid(format!(
        "`mcp_oauth_validate` is not available in this version of loopd, which has no `mcp_oauth` credentials; credential `{id}` \
         is tried when a session uses it"
    )))
}
