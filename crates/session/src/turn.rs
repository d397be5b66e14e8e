//! The shapes of a turn in the journal: how it begins, rests, and how a call gets a result that nobody ran for.

use crate::ledger::Draft;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EventBody, Outcome, QueuedInput};
use loopd_domain::fold::{IllegalEvent, OpenCall};
use loopd_domain::session::{Session, StopDetails, StopReason, TurnSettings};
use loopd_domain::{CallId, ThreadId};

/// Begins the next turn, or goes on with the one that waited for the client.
pub fn run(draft: &mut Draft, session: &Session, settings: &TurnSettings) -> Result<(), IllegalEvent> {
    let (turn, settings) = match &draft.fold.turn {
        Some(open) => (open.number, open.settings.clone()),
        None => (draft.fold.turns + 1, settings.clone()),
    };
    draft.push(EventBody::StatusRunning { turn, settings })?;
    draft.push(EventBody::ThreadStatusRunning {
        session_thread_id: ThreadId::primary(&session.id),
        agent_name: session.agent.spec.name.clone(),
    })?;
    Ok(())
}

/// Ends the turn, or lets it wait (`requires_action`).
pub fn rest(
    draft: &mut Draft,
    session: &Session,
    reason: StopReason,
    details: Option<StopDetails>,
) -> Result<(), IllegalEvent> {
    draft.push(EventBody::ThreadStatusIdle {
        session_thread_id: ThreadId::primary(&session.id),
        agent_name: session.agent.spec.name.clone(),
        stop_reason: reason.clone(),
        stop_details: details.clone(),
    })?;
    let running_ms = draft.fold.running_since.map_or(0, |since| draft.at.since_ms(since));
    draft.push(EventBody::SessionUsage {
        usage: draft.fold.usage,
        cost: draft.fold.cost,
        active_ms: draft.fold.active_ms + running_ms,
    })?;
    draft.push(EventBody::StatusIdle { stop_reason: reason, stop_details: details })?;
    Ok(())
}

/// Takes up everything that waits and begins a turn with it. Nothing when nothing waits.
pub fn take_up_queue(draft: &mut Draft, session: &Session, waiting: &[QueuedInput]) -> Result<bool, IllegalEvent> {
    let Some(first) = waiting.first() else { return Ok(false) };
    let settings = first.settings.clone();
    for input in waiting {
        draft.push_as(input.id.clone(), (*input.body).clone())?;
    }
    run(draft, session, &settings)?;
    Ok(true)
}

/// Gives a call an error for its result without anybody having run it to its end. A call in doubt stays unknown: neither an
/// interrupt nor the end of its turn makes known what nobody knows.
pub fn settle(draft: &mut Draft, id: &CallId, outcome: Outcome, message: &str) -> Result<(), IllegalEvent> {
    let known = unsettled(draft).into_iter().find(|call| &call.id == id).and_then(|call| call.in_doubt);
    let (outcome, message) = match &known {
        Some(known) if outcome != Outcome::Unknown => (Outcome::Unknown, known.as_str()),
        _ => (outcome, message),
    };
    result(draft, id, vec![ContentBlock::text(message)], true, outcome, 0)
}

/// Gives a call its result.
pub fn result(
    draft: &mut Draft,
    id: &CallId,
    content: Vec<ContentBlock>,
    is_error: bool,
    outcome: Outcome,
    duration_ms: u64,
) -> Result<(), IllegalEvent> {
    let of_mcp = draft.fold.turn.iter().flat_map(|t| &t.calls).any(|c| &c.id == id && c.of_mcp);
    let id = id.clone();
    draft.push(match of_mcp {
        true => EventBody::AgentMcpToolResult { mcp_tool_use_id: id, content, is_error, outcome, duration_ms },
        false => EventBody::AgentToolResult { tool_use_id: id, content, is_error, outcome, duration_ms },
    })?;
    Ok(())
}

/// Calls of the open step without a result, in the model's order.
pub fn unsettled(draft: &Draft) -> Vec<OpenCall> {
    let calls = draft.fold.turn.iter().flat_map(|t| &t.calls);
    calls.filter(|c| !c.settled).cloned().collect()
}

/// Ends the model request that is under way, if there is one, as cut off.
pub fn cut_request(draft: &mut Draft, first_token_ms: Option<u64>) -> Result<(), IllegalEvent> {
    let Some(request) = draft.fold.turn.as_ref().and_then(|t| t.request.clone()) else { return Ok(()) };
    draft.push(EventBody::ModelRequestEnd {
        model_request_start_id: request.id,
        is_error: true,
        model_usage: Default::default(),
        outcome: loopd_domain::event::RequestOutcome::Interrupted,
        cost: Some(Default::default()),
        first_token_ms,
        provider_request_id: None,
        response_model: None,
    })?;
    Ok(())
}
