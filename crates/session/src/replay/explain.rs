//! Which event a world explains, and what becomes of the world with it.
//!
//! The host writes three sorts of events. What others said (clients, the model) needs no explanation; the loop will hear of
//! it. What the loop decided must be its next wish. What the host does by itself (recovery, an interrupt while no loop is at
//! work, a limit that it guards as well) must be in one of the states in which it may.

use super::world::{World, call, ends_in_room, is_over, moments};
use loopd_agent_loop::{Answer, Command, Input};
use loopd_domain::EventId;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{Event, EventBody, Outcome, RequestOutcome, RetryStatus, Verdict};
use loopd_domain::fold::{FinalAnswer, OpenCall, OpenTurn, SessionFold};
use loopd_domain::redaction::REDACTED;
use loopd_domain::session::{LimitName, StopDetails, StopReason};

type Judge<'a> = &'a (dyn Fn(&OpenTurn, &FinalAnswer, &str) -> Option<String> + Send);

/// How the result of a call begins whose turn was given up; see `recovery::park`.
const GIVEN_UP: &str = "not run: ";

/// What the journal has said since the last model request began, beside what its fold keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    /// Inputs that were taken up.
    pub(super) taken: Vec<EventId>,
    pub(super) repair: Option<String>,
    /// The model cannot be reached any more.
    pub(super) exhausted: bool,
    /// Text of the answer.
    pub(super) answer: String,
}

/// The worlds that `world` may be after `event`; none when it cannot have happened there.
pub(super) fn explain(
    scene: &Scene,
    world: &World,
    before: &SessionFold,
    after: &SessionFold,
    event: &Event,
    judge: Judge<'_>,
) -> Vec<World> {
    let world = world.clone();
    match &event.body {
        EventBody::InputQueued { input } => vec![world.tell(Input::Queued { id: input.id.clone() })],
        EventBody::UserInterrupt { .. } => vec![world.tell(Input::Interrupt)],
        EventBody::UserToolConfirmation { tool_use_id, result, deny_message, .. } => {
            let mut calls = before.turn.iter().flat_map(|t| &t.calls);
            let in_doubt = calls.any(|c| &c.id == tool_use_id && c.in_doubt.is_some());
            let (id, deny_message) = (tool_use_id.clone(), deny_message.clone());
            match in_doubt && *result == Verdict::Deny {
                // Its result follows, and is what the loop hears of.
                true => vec![world],
                false => vec![world.tell(Input::Verdict { id, verdict: *result, deny_message })],
            }
        }
        EventBody::UserCustomToolResult { custom_tool_use_id, .. } => {
            vec![world.tell(Input::CallDone { id: custom_tool_use_id.clone() })]
        }
        EventBody::ModelRequestStart { step, attempt, .. } => request(scene, world, *step, *attempt),
        EventBody::ModelRequestEnd { outcome, .. } => match outcome {
            RequestOutcome::Answered { .. } => answered(scene, world, after, event, judge),
            // Its owner may have been lost, and another one begins a loop.
            RequestOutcome::Interrupted => vec![world, World::default()],
            RequestOutcome::Failed { .. } => vec![world],
        },
        // Nobody need own it until the next attempt, and another owner begins another loop.
        EventBody::StatusRescheduled { .. } => vec![world, World::default()],
        EventBody::SessionError { error } if error.retry_status == RetryStatus::Exhausted => exhausted(scene, world),
        EventBody::AgentToolResult { tool_use_id, content, outcome, .. }
        | EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, content, outcome, .. } => {
            let turn = before.turn.as_ref();
            match turn.and_then(|t| Some((t, t.calls.iter().find(|c| &c.id == tool_use_id)?))) {
                Some((turn, call)) => result(world, turn, call, *outcome, content, event),
                None => Vec::new(),
            }
        }
        EventBody::StatusIdle { stop_reason, stop_details } => {
            rest(scene, world, before, stop_reason, stop_details, event).into_iter().collect()
        }
        EventBody::SessionRecovered { .. } | EventBody::StatusTerminated { .. } => vec![World::default()],
        _ => vec![world],
    }
}

fn request(scene: &Scene, mut world: World, wanted: u32, attempt: u32) -> Vec<World> {
    if attempt > 1 {
        return vec![world];
    }
    match world.wishes.pop_front() {
        Some(Command::CallModel { step, take, repair }) if step == wanted && asks_as(scene, &take, &repair) => {
            vec![world]
        }
        _ => Vec::new(),
    }
}

fn asks_as(scene: &Scene, take: &[EventId], repair: &Option<String>) -> bool {
    let told_alike = match (repair, &scene.repair) {
        (Some(wish), Some(told)) => same_text(wish, told),
        (wish, told) => wish.is_none() && told.is_none(),
    };
    told_alike && take == scene.taken
}

fn answered(scene: &Scene, world: World, after: &SessionFold, event: &Event, judge: Judge<'_>) -> Vec<World> {
    let EventBody::ModelRequestEnd {
        outcome: RequestOutcome::Answered { stop, stop_details }, model_usage, cost, ..
    } = &event.body
    else {
        return Vec::new();
    };
    let Some(turn) = &after.turn else { return Vec::new() };
    let fault = turn.answered.as_ref().and_then(|answer| judge(turn, answer, &scene.answer));
    let mut faults = vec![fault];
    if scene.answer.contains(REDACTED) && turn.settings.output_schema.is_some() {
        // Nobody can tell any more what it was.
        faults = vec![None, Some(REDACTED.to_owned())];
    }
    let input = |output_error| Input::Answered {
        answer: Answer {
            stop: *stop,
            calls: turn.calls.iter().map(call).collect(),
            has_text: turn.answered.as_ref().is_none_or(|a| a.has_text),
            output_tokens: model_usage.output_tokens,
            cost: *cost,
            stop_details: stop_details.clone(),
            output_error,
        },
    };
    faults.into_iter().map(|fault| world.clone().tell(input(fault))).collect()
}

/// There will be no answer: the request that was under way was the last, or none could be made at all.
fn exhausted(scene: &Scene, mut world: World) -> Vec<World> {
    match world.wishes.pop_front() {
        Some(Command::CallModel { take, repair, .. }) if asks_as(scene, &take, &repair) => {}
        Some(_) => return Vec::new(),
        None => {}
    }
    vec![world.tell(Input::ModelFailed)]
}

fn result(
    mut world: World,
    turn: &OpenTurn,
    call: &OpenCall,
    outcome: Outcome,
    content: &[ContentBlock],
    event: &Event,
) -> Vec<World> {
    if let Some(Command::Settle { id, outcome: wanted, message }) = world.wishes.front()
        && *id == call.id
    {
        let told = matches!(content, [ContentBlock::Text { text }] if same_text(message, text));
        if *wanted == outcome && told {
            world.wishes.pop_front();
            return vec![world];
        }
    }
    if world.running.remove(&call.id) {
        let done = Input::CallDone { id: call.id.clone() };
        return match ends_in_room(call) {
            true => moments(turn, event.at).iter().map(|now| world.clone().hear(done.clone(), *now)).collect(),
            false => vec![world.tell(done)],
        };
    }
    let by_host = match outcome {
        // Whoever takes a session over does not know what had been started; or the client does not want it run again.
        Outcome::Unknown => return vec![world.tell(Input::CallDone { id: call.id.clone() }), World::default()],
        Outcome::Interrupted => turn.interrupted || is_over(turn, event.at),
        // A turn that is given up says so.
        Outcome::NotRun => {
            matches!(content, [ContentBlock::Text { text }] if text.starts_with(GIVEN_UP))
        }
        Outcome::Completed | Outcome::TimedOut => false,
    };
    if by_host && world.machine.is_none() { vec![world] } else { Vec::new() }
}

fn rest(
    scene: &Scene,
    world: World,
    before: &SessionFold,
    reason: &StopReason,
    details: &Option<StopDetails>,
    event: &Event,
) -> Option<World> {
    let turn = before.turn.as_ref()?;
    let explained = match world.wishes.front() {
        Some(Command::EndTurn { reason: wanted, details: told }) => ends_as(wanted, reason) && told == details,
        // The host has the last word on limits.
        Some(Command::CallModel { .. }) => match reason {
            StopReason::LimitReached { limit } => crate::driver::spent(turn) == Some(*limit),
            _ => false,
        },
        Some(_) => false,
        None if world.machine.is_some() => false,
        None => match reason {
            StopReason::RequiresAction { .. } => before.is_waiting() || turn.calls.iter().any(|c| c.in_doubt.is_some()),
            StopReason::EndTurn => turn.interrupted,
            StopReason::RetriesExhausted => scene.exhausted,
            StopReason::LimitReached { limit: LimitName::Seconds } => is_over(turn, event.at),
            _ => false,
        },
    };
    explained.then(World::default)
}

/// A client may have answered some of the calls before the turn came to wait.
fn ends_as(wanted: &StopReason, written: &StopReason) -> bool {
    match (wanted, written) {
        (StopReason::RequiresAction { event_ids: wanted }, StopReason::RequiresAction { event_ids: written }) => {
            written.iter().all(|id| wanted.contains(id))
        }
        (wanted, written) => wanted == written,
    }
}

/// The names of the tools that a session had at the time are not in its journal, so a list of them is not compared.
fn same_text(wish: &str, told: &str) -> bool {
    let names_none = |text: &str| {
        let rest = text.strip_prefix("This call was not run: there is no tool `")?;
        rest.split_once('`').map(|(name, _)| name.to_owned())
    };
    told == REDACTED || wish.contains(REDACTED) || wish == told || {
        let (wish, told) = (names_none(wish), names_none(told));
        wish.is_some() && wish == told
    }
}

/// An event as a divergence shows it.
pub(super) fn describe(scene: &Scene, body: &EventBody) -> String {
    match body {
        EventBody::ModelRequestStart { step, attempt, .. } => {
            let repair = scene.repair.as_ref().map_or(String::new(), |text| format!(", after telling it `{text}`"));
            format!(
                "model request of step {step}, attempt {attempt}, that takes up {} inputs{repair}",
                scene.taken.len()
            )
        }
        EventBody::AgentToolResult { tool_use_id, outcome, .. }
        | EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, outcome, .. } => {
            format!("result `{outcome:?}` of call `{tool_use_id}`")
        }
        EventBody::StatusIdle { stop_reason, .. } => format!("end of the turn: {stop_reason:?}"),
        EventBody::SessionError { error } => format!("error `{}`: {}", error.kind, error.message),
        other => format!("`{}`", other.kind()),
    }
}
