//! `POST /v1/sessions/{session_id}/archive`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::{ServerState, detached};
use crate::v1::path_id;
use crate::wire::session::{self, Session};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::SessionId;

/// Ends a session for good; its history stays readable. Refused while a turn runs: interrupt it first.
#[utoipa::path(post, path = "/v1/sessions/{session_id}/archive", tag = "sessions",
    params(("session_id" = String, Path)),
    responses((status = 200, body = Session), (status = "4XX", body = ErrorBody)))]
pub async fn archive(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Session>> {
    let id = path_id("session", &id, SessionId::parse)?;
    let sessions = state.sessions.clone();
    let archived = detached(async move { sessions.archive(&caller.workspace, &id).await }).await?;
    Ok(Json(session::write(&archived, state.clock.now())))
}
