//! `POST /v1/sessions/{session_id}/events/{event_id}/redact`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ErrorBody};
use crate::fields::{Field, Fields, Kind, may, request_body};
use crate::state::{ServerState, detached};
use crate::v1::path_id;
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::limits::REASON_CHARS_MAX;
use loopd_domain::{EventId, SessionId};
use serde::Serialize;
use utoipa::ToSchema;

const FIELDS: &[Field] = &[may("reason", Kind::Text, "up to 1,000 characters, shown with the redaction")];
request_body!(
    /// Body of `POST /v1/sessions/{session_id}/events/{event_id}/redact`.
    EventRedact, FIELDS
);

#[derive(Debug, Serialize, ToSchema)]
pub struct RedactedEvent {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub event_id: String,
    /// Journal entries that held its content.
    pub entries: u32,
    /// The old text is in no file of the store any more; false: repeat the request when nothing reads the store.
    pub purged: bool,
}

/// Takes the content of an event out of the history: a tombstone of the same kind stays, and the hash chain stays valid.
/// Refused while a turn runs, for events of an open turn, and for events that hold nothing that somebody said.
#[utoipa::path(post, path = "/v1/sessions/{session_id}/events/{event_id}/redact", tag = "events", request_body = EventRedact,
    params(("session_id" = String, Path), ("event_id" = String, Path)),
    responses((status = 200, body = RedactedEvent), (status = "4XX", body = ErrorBody)))]
pub async fn redact(
    State(state): State<ServerState>,
    caller: Caller,
    Path((id, event)): Path<(String, String)>,
    body: JsonBody,
) -> Answer<Json<RedactedEvent>> {
    let id = path_id("session", &id, SessionId::parse)?;
    let event = path_id("event", &event, EventId::parse)?;
    let mut fields = Fields::body(body.value, FIELDS)?;
    let reason = fields.text("reason", 0..=REASON_CHARS_MAX)?;
    let sessions = state.sessions.clone();
    let redacted = detached(async move { sessions.redact(&caller.workspace, &id, event, reason).await }).await?;
    Ok(Json(RedactedEvent {
        kind: "event_redacted",
        event_id: redacted.event_id.to_string(),
        entries: redacted.entries,
        purged: redacted.purged,
    }))
}
