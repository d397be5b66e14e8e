//! `GET /v1/images`

use super::{Image, write};
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

/// All of them: a host remembers a bounded number.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageList {
    data: Vec<Image>,
    next_page: Option<String>,
}

/// Images in registries that environments have named, and what each means here.
#[utoipa::path(get, path = "/v1/images", tag = "images",
    responses((status = 200, body = ImageList), (status = 400, body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, query: Query) -> Answer<Json<ImageList>> {
    query.only(&["limit", "page"])?;
    let known = state.sessions.images().list();
    let data = known.into_iter().map(|(reference, pin)| write(reference, &pin)).collect();
    Ok(Json(ImageList { data, next_page: None }))
}
