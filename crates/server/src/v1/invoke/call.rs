//! `POST /v1/invoke`

use super::answer::{AnswerFold, Head, InvokeAnswer};
use super::request::{self, InvokeRequest, Mode};
use super::resolve;
use super::run::{self, Place};
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::idempotency::{Done, Request};
use crate::sse;
use crate::state::{ServerState, detached};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use loopd_domain::session::TurnSettings;
use loopd_session::Accepted;
use loopd_telemetry::trace::turn_trace_id;

/// Runs the loop: a new session (or the next turn of one) from model, system prompt and tools, to the final answer.
///
/// The turn does not depend on the connection: a caller that is cut off sends the same request with the same
/// `Idempotency-Key` and gets the same answer (with `stream`, the rest after `Last-Event-ID`), or follows the session's
/// events. A message to a session that runs a turn is taken up at that turn's next step, and answered by the rest of it,
/// unless `if_running` is `reject`.
#[utoipa::path(post, path = "/v1/invoke", tag = "invoke", request_body = InvokeRequest,
    params(
        ("idempotency-key" = Option<String>, Header, description = "a retry under the same key gets the first answer"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context that the turn's trace joins"),
        ("last-event-id" = Option<String>, Header, description = "with `stream` and a repeated key: go on after this event")
    ),
    responses(
        (status = 200, body = InvokeAnswer, description = "or, with `stream`, text/event-stream"),
        (status = 202, body = InvokeAnswer, description = "with `background`"),
        (status = "4XX", body = ErrorBody)
    ))]
pub async fn invoke(
    State(state): State<ServerState>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody,
) -> Answer<Response> {
    let request = Request::of("invoke", &state, &caller, &headers, &body.digest)?;
    let seen = sse::last_event_id(&headers)?;
    let invocation = request::read(body.value)?;
    let (mode, settings) = (invocation.mode, resolve::settings(&invocation, &headers));
    // Before anything is done: whoever finds no place to read the turn has not started it.
    let open = match mode {
        Mode::Stream(_) => Some(state.rates.stream(&caller.workspace, state.clock.now())?),
        Mode::Wait | Mode::Background => None,
    };
    let accepted = accept(&state, &caller, &request, invocation, &settings).await?;
    caller.made(&accepted.session.id);
    // Nobody sees what happens in the background.
    let follower = (!matches!(mode, Mode::Background)).then(|| state.sessions.follow_accepted(&accepted));
    let place = Place {
        workspace: caller.workspace,
        head: Head {
            trace_id: turn_trace_id(&accepted.session.id, settings.traceparent.as_deref()),
            session: accepted.session.id,
            inputs: accepted.inputs.into_iter().map(|i| i.id).collect(),
            output_schema: settings.output_schema,
        },
    };
    match (mode, follower, open) {
        (Mode::Stream(previews), Some(follower), Some(open)) => {
            Ok(run::stream(state, place, follower, open, previews, seen))
        }
        (Mode::Stream(_), ..) => Err(ApiError::internal("a stream without a place")),
        (_, Some(follower), _) => Ok(Json(run::wait(&state, &place, follower).await?).into_response()),
        (_, None, _) => {
            let answer = AnswerFold::new(place.head).answer();
            Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
        }
    }
}

/// Makes the inputs durable, once.
async fn accept(
    state: &ServerState,
    caller: &Caller,
    request: &Request,
    invocation: request::Invocation,
    settings: &TurnSettings,
) -> Answer<Accepted> {
    let Some(id) = invocation.session.clone() else {
        let new = resolve::new_session(state, caller, invocation, settings.clone()).await?;
        let done = request.once(state, async |key| {
            let (sessions, new) = (state.sessions.clone(), new.clone());
            let accepted = detached(async move { sessions.create(new, key).await }).await?;
            Ok(Done { repeated: accepted.repeated, value: accepted })
        });
        return Ok(done.await?.value);
    };
    let session = state.sessions.get(&caller.workspace, &id).await?;
    resolve::check_cost_limit(state, &session.agent.spec.model, settings)?;
    let done = request.once(state, async |key| {
        // A request that was accepted before is answered as it was, whatever the session does now.
        if key.is_none() || !request.is_known(state, key.as_ref()).await? {
            resolve::check_continues(&session, &invocation)?;
        }
        let (sessions, workspace, id) = (state.sessions.clone(), caller.workspace.clone(), id.clone());
        let (inputs, settings) = (invocation.inputs.clone(), settings.clone());
        let accepted = detached(async move { sessions.send(&workspace, &id, inputs, settings, key).await }).await?;
        Ok(Done { repeated: accepted.repeated, value: accepted })
    });
    Ok(done.await?.value)
}
