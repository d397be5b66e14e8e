//! `DELETE /v1/environments/{environment_id}`

use crate::auth::Caller;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::state::ServerState;
use crate::wire::page::Deleted;
use axum::Json;
use axum::extract::{Path, State};

/// Removes an environment. Sessions that were made from it have a copy and go on.
#[utoipa::path(delete, path = "/v1/environments/{environment_id}", tag = "environments",
    params(("environment_id" = String, Path)),
    responses((status = 200, body = Deleted), (status = 404, body = ErrorBody)))]
pub async fn delete(State(state): State<ServerState>, caller: Caller, Path(id): Path<String>) -> Answer<Json<Deleted>> {
    let found = super::find(&state, &caller.workspace, &id).await?;
    match state.store.environments().delete(&caller.workspace, &found.id).await? {
        true => Ok(Json(Deleted { id, kind: "environment_deleted" })),
        false => Err(ApiError::absent("environment", &id).with_code("environment_not_found")),
    }
}
