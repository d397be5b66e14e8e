//! `POST /v1/sessions/{session_id}/fork`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ErrorBody};
use crate::fields::{Field, Fields, Kind, may, request_body};
use crate::idempotency::{Done, Request};
use crate::state::{ServerState, detached};
use crate::v1::path_id;
use crate::wire::metadata;
use crate::wire::session::{self, Session};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use loopd_domain::limits::SESSION_TITLE_CHARS_MAX;
use loopd_domain::{EventId, SessionId};
use loopd_session::Fork;
use serde::Serialize;
use utoipa::ToSchema;

const FIELDS: &[Field] = &[
    may(
        "event_id",
        Kind::Text,
        "the last event to copy, one after which the session rested; absent: as far as it rests now",
    ),
    may("title", Kind::Text, "up to 500 characters; absent: the source's"),
    may("metadata", Kind::Object, "up to 16 pairs of texts; absent: the source's"),
    may("workspace", Kind::Boolean, "copy the files as well, as they are now; absent: true"),
];
request_body!(
    /// Body of `POST /v1/sessions/{session_id}/fork`.
    SessionFork, FIELDS
);

/// The new session, and what it was made of.
#[derive(Debug, Serialize, ToSchema)]
pub struct ForkedSession {
    #[serde(flatten)]
    pub session: Session,
    pub fork: ForkFacts,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ForkFacts {
    pub from_session_id: String,
    /// The last event that was copied; null when there was none.
    pub at_event_id: Option<String>,
    /// Events of the source that came later. Its files were copied as they are now, whatever these did to them.
    pub later_events: u64,
    /// Null when no files were copied, or when the same request had been done before.
    pub files: Option<ForkedFiles>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ForkedFiles {
    pub files: u64,
    pub bytes: u64,
    /// Pipes, sockets, devices, and what could not be read.
    pub skipped: u64,
}

/// Makes a session of another one's past: its events up to a point at which it rested, and a copy of its files. The agent
/// is the source's as it is now. The source may run meanwhile.
#[utoipa::path(post, path = "/v1/sessions/{session_id}/fork", tag = "sessions", request_body = SessionFork,
    params(("session_id" = String, Path)),
    responses((status = 200, body = ForkedSession), (status = "4XX", body = ErrorBody)))]
pub async fn fork(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: JsonBody,
) -> Answer<Json<ForkedSession>> {
    let id = path_id("session", &id, SessionId::parse)?;
    let request = Request::of("sessions.fork", &state, &caller, &headers, &body.digest)?;
    let mut fields = Fields::body(body.value, FIELDS)?;
    let event_id = fields.text("event_id", 1..=64)?.map(|text| EventId::parse("event_id", &text)).transpose()?;
    let metadata = fields.given("metadata").map(|value| metadata::read_new("metadata", Some(value))).transpose()?;
    let fork = Fork {
        event_id,
        title: fields.text("title", 0..=SESSION_TITLE_CHARS_MAX)?,
        metadata,
        workspace: fields.boolean("workspace")?.unwrap_or(true),
    };
    let done = request.once(&state, async |key| {
        let (sessions, workspace, id) = (state.sessions.clone(), caller.workspace.clone(), id.clone());
        let fork = fork.clone();
        let forked = detached(async move { sessions.fork(&workspace, &id, fork, key).await }).await?;
        Ok(Done { repeated: forked.repeated, value: forked })
    });
    let forked = done.await?.value;
    caller.made(&forked.session.id);
    let facts = ForkFacts {
        from_session_id: id.to_string(),
        at_event_id: forked.at.map(|id| id.to_string()),
        later_events: forked.later_events,
        files: forked.files.map(|f| ForkedFiles { files: f.files, bytes: f.bytes, skipped: f.skipped }),
    };
    Ok(Json(ForkedSession { session: session::write(&forked.session, state.clock.now()), fork: facts }))
}
