//! `GET /v1/vaults`

use crate::auth::Caller;
use crate::cursor::{self, Row};
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::agents::{LIST_PARAMETERS, LIST_ROWS_MAX};
use crate::wire::page::Page;
use crate::wire::vault::{self, Vault};
use axum::Json;
use axum::extract::State;
use loopd_domain::limits::PAGE_ROWS_DEFAULT;
use loopd_store::ListFilter;

/// Vaults, newest first.
#[utoipa::path(get, path = "/v1/vaults", tag = "vaults",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before"),
        ("include_archived" = Option<bool>, Query)
    ),
    responses((status = 200, body = Page<Vault>), (status = 400, body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, caller: Caller, query: Query) -> Answer<Json<Page<Vault>>> {
    let query = query.only(&LIST_PARAMETERS)?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, LIST_ROWS_MAX)?;
    let after: Option<Row> = query.one("page")?.map(|text| cursor::decode("vaults", text)).transpose()?;
    let filter = ListFilter {
        workspace: caller.workspace,
        include_archived: query.boolean("include_archived")?,
        created: query.created()?,
        after: after.map(Row::place),
        limit: limit + 1,
    };
    let found = state.store.vaults().list(filter).await?;
    let place = |v: &loopd_domain::vault::Vault| Row { at: v.created_at.micros(), id: v.id.to_string() };
    Ok(Json(Page::cut("vaults", found, limit, place, vault::write)))
}
