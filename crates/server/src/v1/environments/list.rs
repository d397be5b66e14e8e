//! `GET /v1/environments`

use crate::auth::Caller;
use crate::cursor::{self, Row};
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::agents::{LIST_PARAMETERS, LIST_ROWS_MAX};
use crate::wire::environment::{self, Environment};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::State;
use loopd_domain::limits::PAGE_ROWS_DEFAULT;
use loopd_store::ListFilter;

/// Environments, newest first.
#[utoipa::path(get, path = "/v1/environments", tag = "environments",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before"),
        ("include_archived" = Option<bool>, Query)
    ),
    responses((status = 200, body = Page<Environment>), (status = 400, body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, caller: Caller, query: Query) -> Answer<Json<Page<Environment>>> {
    let query = query.only(&LIST_PARAMETERS)?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, LIST_ROWS_MAX)?;
    let after: Option<Row> = query.one("page")?.map(|text| cursor::decode("environments", text)).transpose()?;
    let filter = ListFilter {
        workspace: caller.workspace,
        include_archived: query.boolean("include_archived")?,
        created: query.created()?,
        after: after.map(Row::place),
        limit: limit + 1,
    };
    let found = state.store.environments().list(filter).await?;
    let place = |e: &loopd_domain::environment::Environment| Row { at: e.created_at.micros(), id: e.id.to_string() };
    Ok(Json(Page::cut("environments", found, limit, place, environment::write)))
}
