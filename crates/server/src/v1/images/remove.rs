//! `DELETE /v1/images?reference=…`

use super::refuse;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use axum::Json;
use axum::extract::State;
use loopd_domain::Invalid;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct ImageRemoved {
    #[serde(rename = "type")]
    kind: &'static str,
    reference: String,
}

/// Forgets what a reference means: the next room that wants it asks the registry. Its layers go when no room and no other image
/// needs them.
#[utoipa::path(delete, path = "/v1/images", tag = "images", params(("reference" = String, Query)),
    responses((status = 200, body = ImageRemoved), (status = 404, body = ErrorBody)))]
pub async fn remove(State(state): State<ServerState>, query: Query) -> Answer<Json<ImageRemoved>> {
    let query = query.only(&["reference"])?;
    let reference =
        query.one("reference")?.ok_or_else(|| Invalid::missing("reference", "an image's reference"))?.to_owned();
    match state.sessions.images().remove(&reference).map_err(refuse)? {
        true => Ok(Json(ImageRemoved { kind: "image_removed", reference })),
        false => Err(ApiError::absent("image", &reference)),
    }
}
