//! `DELETE /v1/sessions/{session_id}`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::{ServerState, detached};
use crate::v1::path_id;
use crate::wire::page::Deleted;
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::SessionId;

/// Removes a session, its history and its files. Refused while a turn runs: interrupt it first.
#[utoipa::path(delete, path = "/v1/sessions/{session_id}", tag = "sessions",
    params(("session_id" = String, Path)),
    responses((status = 200, body = Deleted), (status = "4XX", body = ErrorBody)))]
pub async fn delete(State(state): State<ServerState>, caller: Caller, Path(id): Path<String>) -> Answer<Json<Deleted>> {
    let parsed = path_id("session", &id, SessionId::parse)?;
    detached(async move { state.sessions.delete(&caller.workspace, &parsed).await }).await?;
    Ok(Json(Deleted { id, kind: "session_deleted" }))
}
