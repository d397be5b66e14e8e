//! `GET /v1/workspaces`

use crate::auth::Caller;
use crate::cursor;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::listing::ROWS_MAX;
use crate::wire::identity::{self, Workspace};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::State;
use loopd_domain::limits::PAGE_ROWS_DEFAULT;

/// All workspaces, by name.
#[utoipa::path(get, path = "/v1/workspaces", tag = "workspaces",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before")
    ),
    responses((status = 200, body = Page<Workspace>), (status = 400, body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, _caller: Caller, query: Query) -> Answer<Json<Page<Workspace>>> {
    let query = query.only(&["limit", "page"])?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, ROWS_MAX)?;
    let after: Option<String> = query.one("page")?.map(|text| cursor::decode("workspaces", text)).transpose()?;
    let found = state.store.workspaces().list(after, limit + 1).await?;
    Ok(Json(Page::cut("workspaces", found, limit, |w| w.name.clone(), identity::write_workspace)))
}
