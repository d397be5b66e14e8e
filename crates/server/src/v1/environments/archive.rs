//! `POST /v1/environments/{environment_id}/archive`

use crate::auth::Caller;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::state::ServerState;
use crate::wire::environment::{self, Environment};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::environment::Environment as Definition;

/// Ends an environment: it takes no changes and no new sessions. Archiving twice is once.
#[utoipa::path(post, path = "/v1/environments/{environment_id}/archive", tag = "environments",
    params(("environment_id" = String, Path)),
    responses((status = 200, body = Environment), (status = 404, body = ErrorBody)))]
pub async fn archive(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Environment>> {
    let old = super::find(&state, &caller.workspace, &id).await?;
    if old.archived_at.is_some() {
        return Ok(Json(environment::write(&old)));
    }
    let now = state.clock.now();
    let new = Definition { archived_at: Some(now), updated_at: now, ..old };
    match state.store.environments().update(new.clone()).await? {
        true => Ok(Json(environment::write(&new))),
        false => Err(ApiError::absent("environment", &id).with_code("environment_not_found")),
    }
}
