//! `GET /v1/keys`

use crate::auth::Caller;
use crate::cursor::{self, Row};
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::listing::ROWS_MAX;
use crate::v1::workspaces;
use crate::wire::identity::{self, ApiKey};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::State;
use loopd_domain::identity::{Access, ApiKey as Stored};
use loopd_domain::limits::PAGE_ROWS_DEFAULT;
use loopd_store::{ListFilter, TimeRange};

/// The workspace's keys, newest first: what is known of them, never themselves.
#[utoipa::path(get, path = "/v1/keys", tag = "keys",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before"),
        ("include_revoked" = Option<bool>, Query),
        ("workspace" = Option<String>, Query, description = "name or id of another workspace; needs `workspaces:read`")
    ),
    responses((status = 200, body = Page<ApiKey>), (status = "4XX", body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, caller: Caller, query: Query) -> Answer<Json<Page<ApiKey>>> {
    let query = query.only(&["limit", "page", "include_revoked", "workspace"])?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, ROWS_MAX)?;
    let after: Option<Row> = query.one("page")?.map(|text| cursor::decode("keys", text)).transpose()?;
    let workspace = workspaces::meant(&state, &caller, query.one("workspace")?, Access::Read).await?;
    let filter = ListFilter {
        workspace: workspace.id,
        include_archived: query.boolean("include_revoked")?,
        created: TimeRange::default(),
        after: after.map(Row::place),
        limit: limit + 1,
    };
    let found = state.store.api_keys().list(filter).await?;
    let place = |key: &Stored| Row { at: key.created_at.micros(), id: key.id.to_string() };
    Ok(Json(Page::cut("keys", found, limit, place, identity::write_key)))
}
