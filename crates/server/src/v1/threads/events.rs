//! `GET /v1/sessions/{session_id}/threads/{thread_id}/events`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::events::list;
use crate::wire::event::Event;
use crate::wire::page::Page;
use axum::Json;
use axum::extract::{Path, State};

/// A thread's events; takes what the list of a session's events takes.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/threads/{thread_id}/events", tag = "threads",
    params(("session_id" = String, Path), ("thread_id" = String, Path)),
    responses((status = 200, body = Page<Event>), (status = 404, body = ErrorBody)))]
pub async fn events(
    State(state): State<ServerState>,
    caller: Caller,
    Path((session, thread)): Path<(String, String)>,
    query: Query,
) -> Answer<Json<Page<Event>>> {
    let id = super::session_of(&session, &thread)?;
    Ok(Json(list::page(&state, &caller, &id, query).await?))
}
