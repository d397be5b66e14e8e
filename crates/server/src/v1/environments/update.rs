//! `POST /v1/environments/{environment_id}`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::state::ServerState;
use crate::wire::environment::{self, Environment, EnvironmentUpdate};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::environment::Environment as Definition;

/// Changes an environment; rooms that exist are not changed. The last of two changes at once wins.
#[utoipa::path(post, path = "/v1/environments/{environment_id}", tag = "environments", request_body = EnvironmentUpdate,
    params(("environment_id" = String, Path)),
    responses((status = 200, body = Environment), (status = 404, body = ErrorBody)))]
pub async fn update(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody,
) -> Answer<Json<Environment>> {
    let old = super::find_active(&state, &caller.workspace, &id).await?;
    let new = environment::patch(body.value, old.clone())?;
    if new == old {
        return Ok(Json(environment::write(&old)));
    }
    state.sessions.check_room(&caller.workspace, "config", &new.config).await?;
    let new = Definition { updated_at: state.clock.now(), ..new };
    match state.store.environments().update(new.clone()).await? {
        true => Ok(Json(environment::write(&new))),
        false => Err(ApiError::absent("environment", &id).with_code("environment_not_found")),
    }
}
