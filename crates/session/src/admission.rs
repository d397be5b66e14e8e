//! Admission: what a client's inputs do to a session in its present state. Pure: a draft grows, or a refusal says why not.

use crate::ledger::Draft;
use crate::requests::{AcceptedInput, ServiceError};
use crate::turn;
use loopd_agent_loop::Input;
use loopd_agent_loop::messages::INTERRUPTED;
use loopd_domain::event::{EventBody, Outcome, QueuedInput, Verdict};
use loopd_domain::fold::{IllegalEvent, OpenCall};
use loopd_domain::limits::{QUEUED_BYTES_MAX, QUEUED_INPUTS_MAX};
use loopd_domain::session::{Session, Status, StopReason, TurnSettings};
use loopd_domain::{EventId, SessionId};

/// What was taken in, beside the draft's events.
#[derive(Debug, Default)]
pub struct Admitted {
    pub inputs: Vec<AcceptedInput>,
    /// What the loop of a running turn must hear.
    pub tell: Vec<Input>,
}

/// Lets inputs in, all or none (on an error the draft is to be thrown away).
///
/// `waiting` are the inputs that wait already, with their bodies.
pub fn admit(
    draft: &mut Draft,
    session: &Session,
    waiting: &[QueuedInput],
    inputs: Vec<EventBody>,
    settings: &TurnSettings,
) -> Result<Admitted, ServiceError> {
    if draft.fold.status == Status::Terminated {
        return Err(ServiceError::Refused(format!("session `{}` is archived; accepted: a new session", session.id)));
    }
    let mut admitted = Admitted::default();
    let mut answers = false;
    let mut messages = false;
    let mut waiting = waiting.to_vec();
    for body in inputs {
        let id = match &body {
            EventBody::UserMessage { .. } | EventBody::SystemMessage { .. } => {
                messages = true;
                message(draft, &mut waiting, body.clone(), settings, &mut admitted)?
            }
            EventBody::UserInterrupt { .. } => interrupt(draft, session, &mut waiting, body.clone(), &mut admitted)?,
            EventBody::UserToolConfirmation { .. } | EventBody::UserCustomToolResult { .. } => {
                answers = true;
                answer(draft, &session.id, body.clone(), &mut admitted)?
            }
            other => return Err(ServiceError::Refused(format!("`{}` is not a client's event", other.kind()))),
        };
        let processed = draft.events.iter().any(|e| e.id == id);
        admitted.inputs.push(AcceptedInput { id, body, processed_at: processed.then_some(draft.at) });
    }
    if answers && draft.fold.is_waiting() {
        go_on_or_wait(draft, session)?;
    }
    if messages && draft.fold.status == Status::Idle && draft.fold.turn.is_none() {
        turn::run(draft, session, settings).map_err(broken)?;
    }
    Ok(admitted)
}

/// A message starts a turn when the session rests; otherwise it waits for the next step.
fn message(
    draft: &mut Draft,
    waiting: &mut Vec<QueuedInput>,
    body: EventBody,
    settings: &TurnSettings,
    admitted: &mut Admitted,
) -> Result<EventId, ServiceError> {
    if draft.fold.status == Status::Idle && draft.fold.turn.is_none() {
        return draft.push(body).map_err(broken);
    }
    let weight: usize = draft.fold.queued.iter().map(|q| q.weight).sum();
    if draft.fold.queued.len() >= QUEUED_INPUTS_MAX || weight >= QUEUED_BYTES_MAX {
        let text = format!(
            "{} inputs wait in this session already; accepted: at most {QUEUED_INPUTS_MAX} and {QUEUED_BYTES_MAX} bytes",
            draft.fold.queued.len()
        );
        return Err(ServiceError::Busy(text));
    }
    let id = EventId::generate(draft.ids.as_ref());
    let input = QueuedInput { id: id.clone(), body: Box::new(body), settings: settings.clone() };
    waiting.push(input.clone());
    draft.push(EventBody::InputQueued { input }).map_err(broken)?;
    admitted.tell.push(Input::Queued { id: id.clone() });
    Ok(id)
}

/// Ends a running turn through its loop, a waiting one at once; a resting session only notes it.
fn interrupt(
    draft: &mut Draft,
    session: &Session,
    waiting: &mut Vec<QueuedInput>,
    body: EventBody,
    admitted: &mut Admitted,
) -> Result<EventId, ServiceError> {
    let id = draft.push(body).map_err(broken)?;
    if draft.fold.is_waiting() {
        for call in turn::unsettled(draft) {
            turn::settle(draft, &call.id, Outcome::Interrupted, INTERRUPTED).map_err(broken)?;
        }
        turn::rest(draft, session, StopReason::EndTurn, None).map_err(broken)?;
        turn::take_up_queue(draft, session, waiting).map_err(broken)?;
        waiting.clear();
    } else if draft.fold.turn.is_some() {
        admitted.tell.push(Input::Interrupt);
    }
    Ok(id)
}

/// A custom tool's result or a verdict on a call.
fn answer(
    draft: &mut Draft,
    session: &SessionId,
    body: EventBody,
    admitted: &mut Admitted,
) -> Result<EventId, ServiceError> {
    let (field, call_id, digest) = match &body {
        EventBody::UserToolConfirmation { tool_use_id, arguments_digest, .. } => {
            ("tool_use_id", tool_use_id.clone(), arguments_digest.clone())
        }
        EventBody::UserCustomToolResult { custom_tool_use_id, arguments_digest, .. } => {
            ("custom_tool_use_id", custom_tool_use_id.clone(), arguments_digest.clone())
        }
        other => return Err(ServiceError::Refused(format!("`{}` answers no call", other.kind()))),
    };
    let refuse = |why: &str| Err(ServiceError::Refused(format!("`{field}` is `{call_id}`: {why}")));
    let Some(call) = find(draft, &call_id) else {
        return refuse(&format!("no call of that id is open in session `{session}`; it may be answered already"));
    };
    if call.settled || (call.verdict.is_some() && !call.is_asked_about()) {
        return refuse("the call is answered already");
    }
    if let Some(digest) = digest.filter(|digest| !call.is_of(Some(digest))) {
        let text = format!(
            "`arguments_digest` is `{digest}`, and the arguments of call `{call_id}` are `{}`; accepted: an answer to the \
             arguments as they are",
            call.arguments_digest
        );
        return Err(ServiceError::Refused(text));
    }
    if !call.waits_for_client() {
        return refuse("the call does not wait for the client");
    }
    let is_custom = call.runs_in == loopd_domain::event::RunsIn::Client;
    let tell = match &body {
        EventBody::UserToolConfirmation { result, deny_message, .. } => {
            if is_custom {
                return refuse("it is a custom tool's call; accepted: `user.custom_tool_result`");
            }
            if deny_message.is_some() && *result == Verdict::Allow {
                return refuse("`deny_message` goes with `result: deny` only");
            }
            match (&call.in_doubt, result) {
                (Some(known), Verdict::Deny) => {
                    let text = not_again(known, deny_message.as_deref());
                    let id = draft.push(body).map_err(broken)?;
                    turn::settle(draft, &call_id, Outcome::Unknown, &text).map_err(broken)?;
                    admitted.tell.push(Input::CallDone { id: call_id });
                    return Ok(id);
                }
                _ => Input::Verdict { id: call_id.clone(), verdict: *result, deny_message: deny_message.clone() },
            }
        }
        _ if !is_custom => return refuse("it is not a custom tool's call; accepted: `user.tool_confirmation`"),
        _ => Input::CallDone { id: call_id.clone() },
    };
    admitted.tell.push(tell);
    draft.push(body).map_err(broken)
}

/// What the model reads of a call in doubt that the client does not want run again.
fn not_again(known: &str, message: Option<&str>) -> String {
    let said = message.map(|message| format!(": {message}")).unwrap_or_default();
    format!("{known}\nThe user was asked, and does not want it run again{said}.")
}

fn find(draft: &Draft, id: &EventId) -> Option<OpenCall> {
    draft.fold.turn.iter().flat_map(|t| &t.calls).find(|c| &c.id == id).cloned()
}

/// After answers to a waiting turn: it goes on if anything can, or what is left is named again.
fn go_on_or_wait(draft: &mut Draft, session: &Session) -> Result<(), ServiceError> {
    let waits = draft.fold.turn.as_ref().is_some_and(|t| t.waits_for_client());
    let event_ids = draft.fold.waiting();
    match waits {
        true => turn::rest(draft, session, StopReason::RequiresAction { event_ids }, None),
        false => turn::run(draft, session, &TurnSettings::default()),
    }
    .map_err(broken)
}

/// A draft that the fold refuses although admission allowed it: our own mistake, said as such.
pub fn broken(fault: IllegalEvent) -> ServiceError {
    ServiceError::Refused(format!("the input does not fit the session's state: {fault}"))
}
