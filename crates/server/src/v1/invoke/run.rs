//! Waiting for an invocation's turn, or streaming it. Neither owns the turn: it goes on when nobody listens.

use super::answer::{AnswerFold, Head, InvokeAnswer};
use crate::auth::StreamPlace;
use crate::error::{Answer, ApiError};
use crate::sse::{self, Outlet, Previews};
use crate::state::ServerState;
use axum::response::Response;
use loopd_domain::limits::PAGE_ROWS_MAX;
use loopd_domain::{Seq, WorkspaceId};
use loopd_session::{EventQuery, Followed, Follower};
use loopd_store::TimeRange;
use serde_json::json;

/// Where an accepted invocation stands in its session.
#[derive(Clone)]
pub struct Place {
    pub workspace: WorkspaceId,
    pub head: Head,
}

/// The answer, once the session rests.
pub async fn wait(state: &ServerState, place: &Place, mut follower: Follower) -> Answer<InvokeAnswer> {
    let mut fold = AnswerFold::new(place.head.clone());
    loop {
        match follower.next().await {
            Some(Ok(Followed::Event(event))) if fold.apply(&event) => break,
            Some(Ok(Followed::Deleted)) => {
                fold.gone("the session was deleted");
                break;
            }
            Some(Ok(_)) => {}
            Some(Err(fault)) => return Err(fault.into()),
            None => return Err(ApiError::from(loopd_session::ServiceError::Stopping)),
        }
    }
    complete(state, place, fold).await
}

/// Fills in the calls that were asked for before this invocation and still wait.
async fn complete(state: &ServerState, place: &Place, mut fold: AnswerFold) -> Answer<InvokeAnswer> {
    if fold.unknown_calls() {
        let query = EventQuery {
            kinds: ["agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use"].map(str::to_owned).to_vec(),
            range: TimeRange::default(),
            ascending: false,
            after: None,
            limit: PAGE_ROWS_MAX,
        };
        // A step has far fewer calls than a page has rows, and those that wait are of the latest step.
        let page = state.sessions.events(&place.workspace, &place.head.session, query).await?;
        page.events.iter().for_each(|event| fold.learn(event));
    }
    Ok(fold.answer())
}

/// The turn's events as they come, then the answer as `loopd.invoke_result`. `seen`: the reader has these already.
pub fn stream(
    state: ServerState,
    place: Place,
    follower: Follower,
    open: StreamPlace,
    previews: Previews,
    seen: Option<Seq>,
) -> Response {
    let (outlet, response) = sse::open(open);
    tokio::spawn(pump(state, place, follower, outlet, previews, seen.unwrap_or(0)));
    response
}

async fn pump(
    state: ServerState,
    place: Place,
    mut follower: Follower,
    mut outlet: Outlet,
    previews: Previews,
    seen: Seq,
) {
    let mut fold = AnswerFold::new(place.head.clone());
    let started = fold.answer();
    let hello = json!({"type": "loopd.invoke_started", "id": started.id, "session_id": started.session_id, "trace_id": started.trace_id});
    if !outlet.send(sse::frame("loopd.invoke_started", None, &hello)).await {
        return;
    }
    while let Some(item) = outlet.next(&mut follower).await {
        match item {
            Err(fault) => return outlet.fail(fault).await,
            Ok(Followed::Deleted) => {
                fold.gone("the session was deleted");
                break;
            }
            Ok(Followed::Event(event)) => {
                let complete = fold.apply(&event);
                let frame = sse::event_frame(&event).filter(|_| event.seq > seen);
                if let Some(frame) = frame
                    && !outlet.send(frame).await
                {
                    return;
                }
                if complete {
                    break;
                }
            }
            Ok(preview) => outlet.preview(previews, &preview),
        }
    }
    finish(&state, &place, fold, &mut outlet).await;
}

async fn finish(state: &ServerState, place: &Place, fold: AnswerFold, outlet: &mut Outlet) {
    let frame = match complete(state, place, fold).await {
        Ok(answer) => sse::frame("loopd.invoke_result", None, &answer),
        Err(error) => {
            tracing::error!(cause = error.internal, "an invocation's result could not be read");
            sse::frame("error", None, &error.body(None))
        }
    };
    // A reader that is gone by now can ask again; the journal has it all.
    let _ = outlet.send(frame).await;
}
