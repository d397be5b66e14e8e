//! `GET /v1/sessions/{session_id}/replay`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::ServerState;
use crate::v1::path_id;
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::SessionId;
use loopd_session::ReplayReport;

/// Runs the loop again over the recorded answers and results, and says where the journal has something else than it would
/// have decided. Also builds every model request again and compares its digest.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/replay", tag = "sessions",
    params(("session_id" = String, Path)),
    responses((status = 200, body = Object), (status = "4XX", body = ErrorBody)))]
pub async fn replay(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<ReplayReport>> {
    let id = path_id("session", &id, SessionId::parse)?;
    Ok(Json(state.sessions.replay(&caller.workspace, &id).await?))
}
