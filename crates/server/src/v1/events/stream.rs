//! `GET /v1/sessions/{session_id}/events/stream`

use crate::auth::Caller;
use crate::error::{Answer, ErrorBody};
use crate::query::Query;
use crate::sse::{self, Outlet, Previews};
use crate::state::ServerState;
use crate::v1::path_id;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use loopd_domain::event::EventBody;
use loopd_domain::{EventId, SessionId};
use loopd_session::{FollowFrom, Followed, Follower};
use serde_json::json;

/// A session's events as they are appended, and previews where asked for. Without `Last-Event-ID` it starts with what
/// comes next, or with the turn that is under way; with it, after that event. `Accept` is not looked at: official clients
/// ask for JSON here. The stream stays open across idle times and ends when the session does.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/events/stream", tag = "events",
    params(
        ("session_id" = String, Path),
        ("event_deltas[]" = Option<Vec<String>>, Query, description = "`agent.message`, `agent.thinking`, `loopd.tool_output`, `loopd.room_progress`"),
        ("last-event-id" = Option<String>, Header, description = "the `id:` of the last event that was seen")
    ),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = "4XX", body = ErrorBody)))]
pub async fn stream(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Answer<Response> {
    let id = path_id("session", &id, SessionId::parse)?;
    open(state, caller, id, query, &headers).await
}

pub async fn open(
    state: ServerState,
    caller: Caller,
    id: SessionId,
    query: Query,
    headers: &HeaderMap,
) -> Answer<Response> {
    let query = query.only(&["event_deltas"])?;
    let previews = Previews::read("event_deltas", query.many("event_deltas")?)?;
    let from = sse::last_event_id(headers)?.map_or(FollowFrom::Live, FollowFrom::After);
    // Attached before the answer's head is sent: whoever sends next and listens here misses nothing.
    let follower = state.sessions.follow(&caller.workspace, &id, from).await?;
    let place = state.rates.stream(&caller.workspace, state.clock.now())?;
    let (outlet, response) = sse::open(place);
    tokio::spawn(pump(state, follower, outlet, previews));
    Ok(response)
}

async fn pump(state: ServerState, mut follower: Follower, mut outlet: Outlet, previews: Previews) {
    while let Some(item) = outlet.next(&mut follower).await {
        let item = match item {
            Ok(item) => item,
            Err(fault) => return outlet.fail(fault).await,
        };
        match &item {
            Followed::Event(entry) => {
                let Some(frame) = sse::event_frame(entry) else { continue };
                let is_last = matches!(entry.body, EventBody::StatusTerminated { .. });
                if !outlet.send(frame).await || is_last {
                    return;
                }
            }
            Followed::Deleted => {
                let id = EventId::generate(state.ids.as_ref());
                let gone = json!({"id": id, "type": "session.deleted", "processed_at": state.clock.now()});
                outlet.send(sse::frame("session.deleted", None, &gone)).await;
                return;
            }
            preview => outlet.preview(previews, preview),
        }
    }
}
