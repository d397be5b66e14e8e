//! `GET /v1/sessions/{session_id}`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::ServerState;
use crate::v1::path_id;
use crate::wire::session::{self, Session};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::SessionId;

/// A session as its journal has it: status and usage are never behind its events.
#[utoipa::path(get, path = "/v1/sessions/{session_id}", tag = "sessions", params(("session_id" = String, Path)),
    responses((status = 200, body = Session), (status = 404, body = ErrorBody)))]
pub async fn retrieve(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Session>> {
    let id = path_id("session", &id, SessionId::parse)?;
    let found = state.sessions.get(&caller.workspace, &id).await?;
    Ok(Json(session::write(&found, state.clock.now())))
}
