//! `POST /v1/sessions/{session_id}/events`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ErrorBody};
use crate::fields::{Field, Fields, Kind, must, request_body};
use crate::idempotency::{Done, Request};
use crate::state::{ServerState, detached};
use crate::v1::path_id;
use crate::wire::event::{self, Event};
use crate::wire::input;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use loopd_domain::SessionId;
use loopd_domain::session::TurnSettings;
use serde::Serialize;
use utoipa::ToSchema;

const FIELDS: &[Field] = &[must("events", Kind::List, "1 to 50 client events; all are accepted or none")];
request_body!(
    /// Body of `POST /v1/sessions/{session_id}/events`.
    EventsSend, FIELDS
);

/// What was accepted, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsAccepted {
    pub data: Vec<Event>,
}

/// Puts events into a session. They are durable when this answers; `processed_at` is null for those that wait. An id is
/// the same here, on the stream and in the list.
#[utoipa::path(post, path = "/v1/sessions/{session_id}/events", tag = "events", request_body = EventsSend,
    params(("session_id" = String, Path)),
    responses((status = 200, body = EventsAccepted), (status = "4XX", body = ErrorBody)))]
pub async fn send(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: JsonBody,
) -> Answer<Json<EventsAccepted>> {
    let id = path_id("session", &id, SessionId::parse)?;
    let request = Request::of("events.send", &state, &caller, &headers, &body.digest)?;
    let mut fields = Fields::body(body.value, FIELDS)?;
    let events = fields.need("events", "a list of 1 to 50 client events")?;
    let inputs = input::read_events("events", events, &id)?;
    let done = request.once(&state, async |key| {
        let (sessions, workspace, id) = (state.sessions.clone(), caller.workspace.clone(), id.clone());
        let inputs = inputs.clone();
        let accepted =
            detached(async move { sessions.send(&workspace, &id, inputs, TurnSettings::default(), key).await });
        let accepted = accepted.await?;
        Ok(Done { repeated: accepted.repeated, value: accepted.inputs })
    });
    let accepted = done.await?.value;
    let data = accepted.iter().map(|i| event::write_body(&i.id, &i.body, i.processed_at)).collect();
    Ok(Json(EventsAccepted { data }))
}
