//! `GET /v1/sessions/{session_id}/threads/{thread_id}/stream`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::state::ServerState;
use crate::v1::events::stream::open;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

/// A thread's events as they are appended; takes what the stream of a session's events takes.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/threads/{thread_id}/stream", tag = "threads",
    params(("session_id" = String, Path), ("thread_id" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 404, body = ErrorBody)))]
pub async fn stream(
    State(state): State<ServerState>,
    caller: Caller,
    Path((session, thread)): Path<(String, String)>,
    query: Query,
    headers: HeaderMap,
) -> Answer<Response> {
    let id = super::session_of(&session, &thread)?;
    open(state, caller, id, query, &headers).await
}
