//! `GET /v1/models`

use crate::error::{Answer, ApiError, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::wire::model::{self, Model};
use axum::Json;
use axum::extract::State;
use loopd_domain::Invalid;
use loopd_domain::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use serde::Serialize;
use utoipa::ToSchema;

/// A page in the shapes of old and new clients: theirs go on by `after_id`, ours by `page`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelPage {
    pub data: Vec<Model>,
    pub has_more: bool,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
    pub next_page: Option<String>,
}

/// Models of the providers that are configured. Others may be callable: a provider takes any name.
#[utoipa::path(get, path = "/v1/models", tag = "models",
    params(("limit" = Option<u64>, Query), ("after_id" = Option<String>, Query), ("before_id" = Option<String>, Query)),
    responses((status = 200, body = ModelPage), (status = 400, body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, query: Query) -> Answer<Json<ModelPage>> {
    let query = query.only(&["limit", "after_id", "before_id", "page"])?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX)?;
    let mut rows: Vec<Model> = state.models.list().into_iter().map(model::write_row).collect();
    let place = |name: &str, id: &str| {
        let found = rows.iter().position(|m| m.id == id);
        found.ok_or_else(|| ApiError::from(Invalid::new(name, id, "the id of a model in this list")))
    };
    let after = query.one("page")?.map(|id| ("page", id)).or(query.one("after_id")?.map(|id| ("after_id", id)));
    let start = after.map(|(name, id)| place(name, id)).transpose()?.map_or(0, |i| i + 1);
    let end = query.one("before_id")?.map(|id| place("before_id", id)).transpose()?.unwrap_or(rows.len());
    rows.truncate(end);
    let mut data = rows.split_off(start.min(rows.len()));
    let has_more = data.len() > limit;
    data.truncate(limit);
    let (first_id, last_id) = (data.first().map(|m| m.id.clone()), data.last().map(|m| m.id.clone()));
    let next_page = last_id.clone().filter(|_| has_more);
    Ok(Json(ModelPage { data, has_more, first_id, last_id, next_page }))
}
