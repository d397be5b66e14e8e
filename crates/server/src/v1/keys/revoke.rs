//! `POST /v1/keys/{key_id}/revoke`

use crate::auth::Caller;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::{path_id, workspaces};
use crate::wire::identity::{self, ApiKey};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::ApiKeyId;
use loopd_domain::identity::Access;

/// Ends a key, for good and at once: the next request that shows it is refused. Its record stays.
#[utoipa::path(post, path = "/v1/keys/{key_id}/revoke", tag = "keys",
    params(
        ("key_id" = String, Path),
        ("workspace" = Option<String>, Query, description = "name or id of another workspace; needs `workspaces:write`")
    ),
    responses((status = 200, body = ApiKey), (status = "4XX", body = ErrorBody)))]
pub async fn revoke(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<ApiKey>> {
    let query = query.only(&["workspace"])?;
    let id = path_id("key", &id, ApiKeyId::parse)?;
    let workspace = workspaces::meant(&state, &caller, query.one("workspace")?, Access::Write).await?;
    let revoked = state.store.api_keys().revoke(&workspace.id, &id, state.clock.now()).await?;
    let revoked = revoked.ok_or_else(|| ApiError::absent("key", id.as_str()))?;
    Ok(Json(identity::write_key(&revoked)))
}
