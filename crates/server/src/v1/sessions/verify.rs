//! `GET /v1/sessions/{session_id}/verify`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::ServerState;
use crate::v1::path_id;
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::SessionId;
use loopd_session::Verification;

/// Is the journal what was written? Hash chain, density, legality and the cached state; names what was redacted, and where
/// it is broken.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/verify", tag = "sessions",
    params(("session_id" = String, Path)),
    responses((status = 200, body = Object), (status = "4XX", body = ErrorBody)))]
pub async fn verify(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<Verification>> {
    let id = path_id("session", &id, SessionId::parse)?;
    Ok(Json(state.sessions.verify(&caller.workspace, &id).await?))
}
