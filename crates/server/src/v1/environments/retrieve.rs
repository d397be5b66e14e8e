//! `GET /v1/environments/{environment_id}`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::ServerState;
use crate::wire::environment::{self, Environment};
use axum::Json;
use axum::extract::{Path, State};

#[utoipa::path(get, path = "/v1/environments/{environment_id}", tag = "environments",
    params(("environment_id" = String, Path)),
    responses((status = 200, body = Environment), (status = 404, body = ErrorBody)))]
pub async fn retrieve(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Environment>> {
    let found = super::find(&state, &caller.workspace, &id).await?;
    Ok(Json(environment::write(&found)))
}
