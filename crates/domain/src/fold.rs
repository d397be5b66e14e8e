//! What a session *is*: a fold of its journal.
//!
//! ```text
//!              StatusRunning(turn)                 StatusIdle(requires_action)
//!   [idle] ───────────────────────► [turn open] ──────────────────────────────► [turn open, waiting]
//!     ▲                               │     ▲                                       │
//!     └───────────────────────────────┘     └───────────────────────────────────────┘
//!        StatusIdle(any other reason)             StatusRunning(same turn)
//! ```
//!
//! Within an open turn a step goes `ModelRequestStart → (thinking | message | tool use)* → ModelRequestEnd → results`,
//! and the next request starts only when every call of the step has its result. [`SessionFold::apply`] refuses whatever
//! is not legal, so a journal that folds is a legal history.

mod turn;

pub use turn::{FinalAnswer, OpenCall, OpenRequest, OpenTurn};

use crate::agent::Builtin;
use crate::event::{Event, EventBody, Outcome, Permission, RequestOutcome, RunsIn};
use crate::session::{Status, StopDetails, StopReason, TurnSettings};
use crate::usage::{MicroUsd, Usage};
use crate::{CallId, EventId, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionFold {
    pub last_seq: Seq,
    pub last_at: Timestamp,
    pub status: Status,
    pub stop_reason: Option<StopReason>,
    pub stop_details: Option<StopDetails>,
    /// Some from the first `status_running` of a turn until an idle that is not `requires_action`.
    pub turn: Option<OpenTurn>,
    /// Turns begun so far.
    pub turns: u32,
    /// Accepted inputs that no turn has taken up, oldest first.
    pub queued: Vec<Queued>,
    pub steps: u64,
    pub usage: Usage,
    /// `None` once a call with an unknown price was made.
    pub cost: Option<MicroUsd>,
    /// Time spent running, without the stretch that runs now.
    pub active_ms: u64,
    pub running_since: Option<Timestamp>,
    /// Takeovers since the last finished step, or since the turn began.
    pub recoveries: u32,
    /// The room's shell ran something since the room was built: what lives in its memory would be missed.
    #[serde(default)]
    pub shell_used: bool,
    /// Where the latest stretch of running begins: the input that started it, or its `status_running`.
    pub run_first_seq: Seq,
    /// First input since the last turn, when no turn is open.
    pub input_first_seq: Option<Seq>,
    /// When the next attempt is due, while the status is `rescheduling`.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
}

/// An accepted input that waits; its body is in the journal at `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    pub seq: Seq,
    pub id: EventId,
    pub weight: usize,
}

/// An event that cannot stand where it was put.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{kind}` at {seq} cannot follow: {reason}")]
pub struct IllegalEvent {
    pub seq: Seq,
    pub kind: &'static str,
    pub reason: &'static str,
}

impl Default for SessionFold {
    fn default() -> Self {
        SessionFold {
            last_seq: 0,
            last_at: Timestamp(0),
            status: Status::Idle,
            stop_reason: None,
            stop_details: None,
            turn: None,
            turns: 0,
            queued: Vec::new(),
            steps: 0,
            usage: Usage::default(),
            cost: Some(MicroUsd(0)),
            active_ms: 0,
            running_since: None,
            recoveries: 0,
            shell_used: false,
            run_first_seq: 0,
            input_first_seq: None,
            retry_at: None,
        }
    }
}

impl SessionFold {
    /// The fold after `event`. On an error the fold is unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalEvent> {
        let illegal = |reason| Err(IllegalEvent { seq: event.seq, kind: event.body.kind(), reason });
        if event.seq != self.last_seq + 1 {
            return illegal("its seq is not the next");
        }
        if event.at < self.last_at {
            return illegal("its time is before its predecessor's");
        }
        // What an ended session said can still be taken out of its journal.
        if self.status == Status::Terminated && !matches!(event.body, EventBody::EventRedacted { .. }) {
            return illegal("the session is terminated");
        }
        match self.transition(event) {
            Ok(()) => {
                if self.status != Status::Rescheduling {
                    self.retry_at = None;
                }
                self.last_seq = event.seq;
                self.last_at = event.at;
                Ok(())
            }
            Err(reason) => illegal(reason),
        }
    }

    fn transition(&mut self, event: &Event) -> Result<(), &'static str> {
        match &event.body {
            EventBody::InputQueued { input } => {
                if self.queued.iter().any(|q| q.id == input.id) {
                    return Err("it is queued already");
                }
                let weight = match input.body.as_ref() {
                    EventBody::UserMessage { content }
                    | EventBody::SystemMessage { content }
                    | EventBody::UserCustomToolResult { content, .. } => content.iter().map(|c| c.weight()).sum(),
                    _ => 0,
                };
                self.queued.push(Queued { seq: event.seq, id: input.id.clone(), weight });
            }
            EventBody::UserMessage { .. } | EventBody::SystemMessage { .. } => {
                if self.turn.as_ref().is_some_and(OpenTurn::in_step) {
                    return Err("a step is under way; it must be queued");
                }
                if self.turn.is_none() {
                    self.input_first_seq.get_or_insert(event.seq);
                }
                self.queued.retain(|q| q.id != event.id);
            }
            EventBody::UserInterrupt { .. } => {
                self.queued.retain(|q| q.id != event.id);
                if let Some(turn) = &mut self.turn {
                    turn.interrupted = true;
                }
            }
            EventBody::UserToolConfirmation { tool_use_id, result, deny_message, arguments_digest } => {
                let call = self.open_call(tool_use_id)?;
                if !call.is_of(arguments_digest.as_deref()) {
                    return Err("the confirmation is of other arguments");
                }
                let asks = call.permission == Permission::Ask && call.verdict.is_none();
                if !asks && !call.is_asked_about() {
                    return Err("the call does not wait for a confirmation");
                }
                call.verdict = Some(*result);
                call.deny_message = deny_message.clone();
            }
            EventBody::UserCustomToolResult { custom_tool_use_id, arguments_digest, .. } => {
                let call = self.open_call(custom_tool_use_id)?;
                if !call.is_of(arguments_digest.as_deref()) {
                    return Err("the result is of other arguments");
                }
                if call.runs_in != RunsIn::Client {
                    return Err("the call is not the client's to answer");
                }
                call.settled = true;
            }
            EventBody::AgentMessage { .. } => self.open_request()?.has_text = true,
            EventBody::AgentThinking { .. } => {
                self.open_request()?;
            }
            EventBody::AgentToolUse { .. }
            | EventBody::AgentMcpToolUse { .. }
            | EventBody::AgentCustomToolUse { .. } => {
                self.open_request()?;
                let (name, _, permission, intent) = event.body.intent().ok_or("a call without an intent")?;
                let call = OpenCall {
                    id: event.id.clone(),
                    name: name.to_owned(),
                    runs_in: intent.runs_in,
                    effect: intent.effect,
                    permission,
                    malformed: intent.malformed.clone(),
                    arguments_digest: intent.arguments_digest.clone(),
                    verdict: None,
                    deny_message: None,
                    in_doubt: None,
                    settled: false,
                    of_mcp: matches!(event.body, EventBody::AgentMcpToolUse { .. }),
                    asked_at: event.at,
                };
                self.turn.as_mut().ok_or("no turn is open")?.calls.push(call);
            }
            EventBody::AgentToolResult { tool_use_id: id, outcome, .. }
            | EventBody::AgentMcpToolResult { mcp_tool_use_id: id, outcome, .. } => {
                let call = self.open_call(id)?;
                if call.of_mcp != matches!(event.body, EventBody::AgentMcpToolResult { .. }) {
                    return Err("the result is of another kind than the call");
                }
                call.settled = true;
                let ran_in_shell = call.runs_in == RunsIn::Room && call.name == Builtin::Bash.name();
                self.shell_used |= ran_in_shell && *outcome != Outcome::NotRun;
            }
            EventBody::McpToolsListed { mcp_server_name, .. } => {
                let turn = self.turn.as_mut().ok_or("no turn is open")?;
                if turn.in_step() {
                    return Err("a step is under way");
                }
                if turn.mcp_listed.contains(mcp_server_name) {
                    return Err("the server was asked in this turn already");
                }
                turn.mcp_listed.push(mcp_server_name.clone());
            }
            EventBody::StatusRunning { turn, settings } => self.run(*turn, settings, event)?,
            EventBody::StatusIdle { stop_reason, stop_details } => self.rest(stop_reason, stop_details, event.at)?,
            EventBody::StatusRescheduled { retry_at } => {
                if self.status != Status::Running {
                    return Err("the session does not run");
                }
                self.status = Status::Rescheduling;
                self.retry_at = Some(*retry_at);
            }
            EventBody::StatusTerminated { .. } => {
                self.stop_clock(event.at);
                self.turn = None;
                self.queued.clear();
                self.status = Status::Terminated;
            }
            EventBody::ModelRequestStart { step, attempt, .. } => {
                let turn = self.turn.as_mut().ok_or("no turn is open")?;
                if self.status == Status::Idle {
                    return Err("the turn waits for the client");
                }
                if turn.in_step() {
                    return Err("the step before is not finished");
                }
                if *step != turn.steps + 1 {
                    return Err("its step is not the next");
                }
                turn.calls.clear();
                turn.answered = None;
                turn.attempts = *attempt;
                let id = event.id.clone();
                let (step, attempt) = (*step, *attempt);
                turn.request = Some(OpenRequest { id, step, attempt, started_at: event.at, has_text: false });
                self.status = Status::Running;
            }
            EventBody::ModelRequestEnd { model_request_start_id, model_usage, outcome, cost, .. } => {
                let turn = self.turn.as_mut().ok_or("no turn is open")?;
                if turn.request.as_ref().map(|r| &r.id) != Some(model_request_start_id) {
                    return Err("it does not end the open request");
                }
                let answer = match outcome {
                    RequestOutcome::Answered { stop, stop_details } => Some((*stop, stop_details.clone())),
                    _ => None,
                };
                if answer.is_none() && !turn.calls.is_empty() {
                    return Err("an answer that was cut off cannot ask for calls");
                }
                let has_text = turn.request.take().is_some_and(|r| r.has_text);
                let add = |total: Option<MicroUsd>| Some(MicroUsd(total?.0.saturating_add(cost.as_ref()?.0)));
                turn.output_tokens = turn.output_tokens.saturating_add(model_usage.output_tokens);
                turn.cost = add(turn.cost);
                if let Some((stop, stop_details)) = answer {
                    let is_final = turn.calls.is_empty();
                    turn.answered = is_final.then_some(FinalAnswer { stop, stop_details, has_text });
                    turn.steps += 1;
                    turn.attempts = 0;
                    self.steps += 1;
                    self.recoveries = 0;
                }
                self.cost = add(self.cost);
                self.usage.add(model_usage);
            }
            EventBody::OutputRejected { .. } => {
                let turn = self.turn.as_mut().ok_or("no turn is open")?;
                if turn.steps == 0 || turn.in_step() {
                    return Err("no answer was just given");
                }
                turn.output_rejections += 1;
            }
            EventBody::SessionRecovered { recoveries, .. } => self.recoveries = *recoveries,
            EventBody::OutcomeUnknown { tool_use_id, message } => {
                let call = self.open_call(tool_use_id)?;
                if call.waits_for_client() {
                    return Err("the call waits for the client already");
                }
                call.in_doubt = Some(message.clone());
                // What was allowed before was another run.
                call.verdict = None;
            }
            EventBody::RoomRestarted { .. } => self.shell_used = false,
            EventBody::ThreadStatusRunning { .. }
            | EventBody::ThreadStatusIdle { .. }
            | EventBody::ThreadStatusRescheduled { .. }
            | EventBody::ThreadStatusTerminated { .. }
            | EventBody::SessionUsage { .. }
            | EventBody::SessionUpdated { .. }
            | EventBody::SessionError { .. }
            | EventBody::RoomStarted { .. }
            | EventBody::NetworkConnection { .. }
            | EventBody::NetworkConnectionsOmitted { .. }
            | EventBody::SessionForked { .. }
            | EventBody::EventRedacted { .. } => {}
        }
        Ok(())
    }

    fn run(&mut self, number: u32, settings: &TurnSettings, event: &Event) -> Result<(), &'static str> {
        if self.status == Status::Running {
            return Err("the session runs already");
        }
        match &mut self.turn {
            Some(turn) if turn.number != number => return Err("another turn is open"),
            Some(turn) => {
                if let Some(since) = turn.rested_at.take() {
                    turn.waited_ms = turn.waited_ms.saturating_add(event.at.since_ms(since));
                }
            }
            None if number != self.turns + 1 => return Err("its turn is not the next"),
            None => {
                self.turns = number;
                // A turn that was given up says nothing of the next one.
                self.recoveries = 0;
                self.turn = Some(OpenTurn::begin(number, settings, event.at));
            }
        }
        if self.status == Status::Idle {
            self.run_first_seq = self.input_first_seq.take().unwrap_or(event.seq);
        }
        self.status = Status::Running;
        self.stop_reason = None;
        self.stop_details = None;
        self.running_since.get_or_insert(event.at);
        Ok(())
    }

    fn rest(&mut self, reason: &StopReason, details: &Option<StopDetails>, at: Timestamp) -> Result<(), &'static str> {
        let turn = self.turn.as_mut().ok_or("no turn is open")?;
        if turn.request.is_some() {
            return Err("a model request is under way");
        }
        match reason {
            StopReason::RequiresAction { event_ids } => {
                let waits = |id: &EventId| turn.calls.iter().any(|c| &c.id == id && c.waits_for_client());
                if event_ids.is_empty() || !event_ids.iter().all(waits) {
                    return Err("it names a call that does not wait for the client");
                }
                if !turn.waits_for_client() {
                    return Err("a call could go on without the client");
                }
                turn.rested_at.get_or_insert(at);
            }
            _ if turn.calls.iter().any(|c| !c.settled) => return Err("a call has no result"),
            _ => self.turn = None,
        }
        self.stop_clock(at);
        self.status = Status::Idle;
        self.stop_reason = Some(reason.clone());
        self.stop_details = details.clone();
        Ok(())
    }

    fn stop_clock(&mut self, at: Timestamp) {
        if let Some(since) = self.running_since.take() {
            self.active_ms += at.since_ms(since);
        }
    }

    fn open_request(&mut self) -> Result<&mut OpenRequest, &'static str> {
        self.turn.as_mut().and_then(|t| t.request.as_mut()).ok_or("no model request is under way")
    }

    fn open_call(&mut self, id: &CallId) -> Result<&mut OpenCall, &'static str> {
        let calls = self.turn.as_mut().map(|t| &mut t.calls).ok_or("no turn is open")?;
        calls.iter_mut().find(|c| &c.id == id && !c.settled).ok_or("no such call is open")
    }

    /// Calls that only the client can move, in the model's order.
    pub fn waiting(&self) -> Vec<CallId> {
        let calls = self.turn.iter().flat_map(|t| &t.calls);
        calls.filter(|c| c.waits_for_client()).map(|c| c.id.clone()).collect()
    }

    /// Calls that the room or the host may be at work on, in the model's order.
    pub fn running(&self) -> Vec<CallId> {
        let calls = self.turn.iter().flat_map(|t| &t.calls);
        calls.filter(|c| c.may_run()).map(|c| c.id.clone()).collect()
    }

    /// The stop reason `requires_action` while the session rests in the middle of a turn.
    pub fn is_waiting(&self) -> bool {
        self.turn.is_some() && self.status == Status::Idle
    }

    /// Nothing is under way that could be cut: between two turns, or in a turn that waits for the client and has said so.
    /// A journal may be copied up to here and go on as another session's.
    pub fn is_at_rest(&self) -> bool {
        if self.status != Status::Idle || self.input_first_seq.is_some() {
            return false;
        }
        match (&self.turn, &self.stop_reason) {
            (None, _) => self.queued.is_empty(),
            (Some(turn), Some(StopReason::RequiresAction { event_ids })) => {
                !turn.interrupted && turn.waits_for_client() && *event_ids == self.waiting()
            }
            (Some(_), _) => false,
        }
    }

    /// Somebody must own it: a turn is under way and not waiting for the client, or inputs wait for a turn.
    pub fn needs_owner(&self) -> bool {
        match self.status {
            Status::Running | Status::Rescheduling => true,
            Status::Idle => match &self.turn {
                // What the client sent moves the turn, or ends it: somebody must see to that.
                Some(turn) => turn.interrupted || !turn.waits_for_client(),
                None => !self.queued.is_empty(),
            },
            Status::Terminated => false,
        }
    }

    /// When somebody must own it: `None` is never, [`Timestamp`] 0 is now. A turn that waits for its next attempt needs
    /// nobody until that is due, or its own time is up; what the client asked for meanwhile does not wait.
    pub fn due_at(&self) -> Option<Timestamp> {
        if !self.needs_owner() {
            return None;
        }
        let now = Timestamp(0);
        Some(match (&self.turn, self.retry_at) {
            (Some(turn), Some(retry_at)) if !turn.interrupted => retry_at.min(turn.time_up_at()),
            _ => now,
        })
    }
}
