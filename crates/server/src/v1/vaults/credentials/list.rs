//! `GET /v1/vaults/{vault_id}/credentials`

use crate::auth::Caller;
use crate::cursor::{self, Row};
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::agents::{LIST_PARAMETERS, LIST_ROWS_MAX};
use crate::wire::credential::{self, Credential};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::limits::PAGE_ROWS_DEFAULT;
use loopd_store::ListFilter;

/// Credentials of a vault, newest first.
#[utoipa::path(get, path = "/v1/vaults/{vault_id}/credentials", tag = "vaults",
    params(
        ("vault_id" = String, Path),
        ("limit" = Option<u64>, Query, description = "1 to 100, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before"),
        ("include_archived" = Option<bool>, Query)
    ),
    responses((status = 200, body = Page<Credential>), (status = "4XX", body = ErrorBody)))]
pub async fn list(
    State(state): State<ServerState>,
    caller: Caller,
    Path(vault): Path<String>,
    query: Query,
) -> Answer<Json<Page<Credential>>> {
    let owner = super::super::find(&state, &caller.workspace, &vault).await?;
    let query = query.only(&LIST_PARAMETERS)?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, LIST_ROWS_MAX)?;
    let scope = format!("credentials.{}", owner.id);
    let after: Option<Row> = query.one("page")?.map(|text| cursor::decode(&scope, text)).transpose()?;
    let filter = ListFilter {
        workspace: caller.workspace,
        include_archived: query.boolean("include_archived")?,
        created: query.created()?,
        after: after.map(Row::place),
        limit: limit + 1,
    };
    let found = state.store.vaults().credentials(&owner.id, filter).await?;
    let place = |c: &loopd_domain::vault::Credential| Row { at: c.created_at.micros(), id: c.id.to_string() };
    Ok(Json(Page::cut(&scope, found, limit, place, credential::write)))
}
