//! `GET /v1/sessions/{session_id}/threads/{thread_id}`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::ServerState;
use crate::wire::thread::{self, Thread};
use axum::Json;
use axum::extract::{Path, State};

#[utoipa::path(get, path = "/v1/sessions/{session_id}/threads/{thread_id}", tag = "threads",
    params(("session_id" = String, Path), ("thread_id" = String, Path)),
    responses((status = 200, body = Thread), (status = 404, body = ErrorBody)))]
pub async fn retrieve(
    State(state): State<ServerState>,
    caller: Caller,
    Path((session, thread)): Path<(String, String)>,
) -> Answer<Json<Thread>> {
    let id = super::session_of(&session, &thread)?;
    let session = state.sessions.get(&caller.workspace, &id).await?;
    Ok(Json(thread::write_primary(&session, state.clock.now())))
}
