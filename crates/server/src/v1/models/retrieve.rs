//! `GET /v1/models/{model_id}`

use crate::error::{Answer, ApiError, ErrorBody};
use crate::state::ServerState;
use crate::wire::model::{self, Model};
use axum::Json;
use axum::extract::{Path, State};

#[utoipa::path(get, path = "/v1/models/{model_id}", tag = "models",
    params(("model_id" = String, Path, description = "`provider/name`, its slash as it is or percent-encoded")),
    responses((status = 200, body = Model), (status = 404, body = ErrorBody)))]
pub async fn retrieve(State(state): State<ServerState>, Path(id): Path<String>) -> Answer<Json<Model>> {
    let found = state.models.list().into_iter().find(|m| m.id == id);
    Ok(Json(model::write_row(found.ok_or_else(|| ApiError::absent("model", &id))?)))
}
