//! `GET /v1/sessions/{session_id}/threads`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::path_id;
use crate::wire::page::Page;
use crate::wire::thread::{self, Thread};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::limits::PAGE_ROWS_MAX;
use loopd_domain::session::Status;
use loopd_domain::{Invalid, SessionId};

/// The threads of a session: its primary one.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/threads", tag = "threads",
    params(("session_id" = String, Path), ("statuses[]" = Option<Vec<String>>, Query), ("limit" = Option<u64>, Query)),
    responses((status = 200, body = Page<Thread>), (status = "4XX", body = ErrorBody)))]
pub async fn list(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<Page<Thread>>> {
    let query = query.only(&["statuses", "limit", "page"])?;
    query.limit(PAGE_ROWS_MAX, PAGE_ROWS_MAX)?;
    let statuses = query.many("statuses")?.into_iter().map(|s| Status::parse("statuses", s));
    let statuses = statuses.collect::<Result<Vec<Status>, _>>()?;
    if let Some(page) = query.one("page")? {
        return Err(Invalid::new("page", page, "no cursor: this list has one page").into());
    }
    let id = path_id("session", &id, SessionId::parse)?;
    let session = state.sessions.get(&caller.workspace, &id).await?;
    let shown = statuses.is_empty() || statuses.contains(&session.fold.status);
    let data = shown.then(|| thread::write_primary(&session, state.clock.now())).into_iter().collect();
    Ok(Json(Page { data, next_page: None }))
}
