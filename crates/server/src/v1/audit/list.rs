//! `GET /v1/audit`

use crate::auth::Caller;
use crate::cursor::{self, Row};
use crate::error::{Answer, ErrorBody};
use crate::query::{CREATED, Query};
use crate::state::ServerState;
use crate::v1::workspaces;
use crate::wire::audit::{self, AuditEntry};
use crate::wire::page::Page;
use axum::Json;
use axum::extract::State;
use loopd_domain::audit::AuditRecord;
use loopd_domain::identity::Access;
use loopd_domain::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use loopd_store::AuditFilter;

/// The workspace's audit log, newest first. Requests that named no known key stand in that of the default workspace.
#[utoipa::path(get, path = "/v1/audit", tag = "audit",
    params(
        ("actor" = Option<String>, Query, description = "a key's id, a token's subject, a session's id, `operator`, `development`, `unknown`"),
        ("action" = Option<String>, Query, description = "noun and verb, such as `keys.create` or `credentials.use`"),
        ("resource" = Option<String>, Query, description = "the id of what it was done to"),
        ("created_at[gt]" = Option<String>, Query), ("created_at[gte]" = Option<String>, Query),
        ("created_at[lt]" = Option<String>, Query), ("created_at[lte]" = Option<String>, Query),
        ("limit" = Option<u64>, Query, description = "1 to 999, 20 by default"),
        ("page" = Option<String>, Query, description = "`next_page` of the page before"),
        ("workspace" = Option<String>, Query, description = "name or id of another workspace; needs `workspaces:read`")
    ),
    responses((status = 200, body = Page<AuditEntry>), (status = "4XX", body = ErrorBody)))]
pub async fn list(State(state): State<ServerState>, caller: Caller, query: Query) -> Answer<Json<Page<AuditEntry>>> {
    let known = ["actor", "action", "resource", "limit", "page", "workspace"];
    let query = query.only(&[&known[..], &CREATED[..]].concat())?;
    let limit = query.limit(PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX - 1)?;
    let after: Option<Row> = query.one("page")?.map(|text| cursor::decode("audit", text)).transpose()?;
    let workspace = workspaces::meant(&state, &caller, query.one("workspace")?, Access::Read).await?;
    let filter = AuditFilter {
        workspace: workspace.id,
        actor: query.one("actor")?.map(str::to_owned),
        action: query.one("action")?.map(str::to_owned),
        resource: query.one("resource")?.map(str::to_owned),
        created: query.created()?,
        after: after.map(Row::place),
        limit: limit + 1,
    };
    // What was answered before this request stands in what it reads.
    state.audit.flush().await;
    let found = state.store.audit().list(filter).await?;
    let place = |record: &AuditRecord| Row { at: record.entry.at.micros(), id: record.id.to_string() };
    Ok(Json(Page::cut("audit", found, limit, place, audit::write)))
}
