//! `GET /v1/sessions/{session_id}/trace`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::state::ServerState;
use crate::v1::path_id;
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::SessionId;
use loopd_domain::limits::{PAGE_ROWS_MAX, TRACE_EVENTS_MAX};
use loopd_telemetry::{Trace, TraceFold};
use serde::Serialize;

/// A trace, and whether it is the whole of it.
#[derive(Serialize)]
pub struct SessionTrace {
    #[serde(flatten)]
    trace: Trace,
    /// The session has more events than a trace is made of; the youngest are missing.
    truncated: bool,
}

/// The session as a tree of spans (turns, steps, model calls, tool calls, waits), derived from its journal alone.
/// Attributes are named as the OpenTelemetry GenAI conventions have them.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/trace", tag = "sessions",
    params(("session_id" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = ErrorBody)))]
pub async fn trace(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<SessionTrace>> {
    let id = path_id("session", &id, SessionId::parse)?;
    // The journal knows no workspaces: the session must be the caller's first.
    state.sessions.get(&caller.workspace, &id).await?;
    let mut fold = TraceFold::new(&id);
    let mut after = 0;
    loop {
        let events = state.store.journal().read(&id, after, PAGE_ROWS_MAX).await?;
        let Some(last) = events.last() else { break };
        after = last.seq;
        events.iter().for_each(|event| fold.apply(event));
        if after >= TRACE_EVENTS_MAX as u64 {
            break;
        }
    }
    Ok(Json(SessionTrace { trace: fold.trace(), truncated: after >= TRACE_EVENTS_MAX as u64 }))
}
