//! What goes in and out of the loop. These types also travel in frames (see `protocol`), hence serde.

use loopd_domain::event::{AnswerStop, Outcome, Permission, RunsIn, Verdict};
use loopd_domain::session::{StopDetails, StopReason, TurnLimits};
use loopd_domain::usage::MicroUsd;
use loopd_domain::{CallId, EventId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What does not change while a cell lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoopConfig {
    /// Names of the tools that this session has, for the message about an unknown one.
    pub tools: Vec<String>,
    /// Calls of one step that may run at the same time.
    pub parallel_max: usize,
    /// Calls that one answer may ask for; the rest is settled with an error.
    pub calls_max: usize,
    /// Times that the model is asked again when its final answer is not of the output schema.
    pub output_repairs_max: u32,
}

/// Where a turn stands, folded from the journal by the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    pub limits: TurnLimits,
    /// From when `seconds` count. Later than the turn's first moment by the time that the client let it wait
    /// (`OpenTurn::counts_from`): nobody loses a turn because a human took a night to answer.
    pub started_at: Timestamp,
    /// Steps answered so far in this turn.
    pub steps: u32,
    pub output_tokens: u64,
    /// `None`: a price was unknown.
    pub cost: Option<MicroUsd>,
    /// Times that the model was asked again in this turn because its final answer could not be used.
    pub output_rejections: u32,
    /// Calls of the last answer, in the model's order; empty when the model is to be asked next.
    pub calls: Vec<Call>,
    /// Accepted inputs that no step has taken up.
    pub queued: Vec<EventId>,
    /// The last step's answer asked for nothing and only the turn's end was not written.
    pub answered: Option<Answer>,
}

/// One tool call of the current step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub id: CallId,
    pub name: String,
    pub input: Value,
    pub runs_in: RunsIn,
    pub permission: Permission,
    /// Why its arguments cannot be used.
    pub malformed: Option<String>,
    pub verdict: Option<Verdict>,
    pub deny_message: Option<String>,
    /// Its result is in the journal already.
    pub settled: bool,
}

/// A model's whole answer, as far as the loop must know it. Already in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub stop: AnswerStop,
    /// In the model's order.
    pub calls: Vec<Call>,
    /// It said something to the user.
    pub has_text: bool,
    /// Of the whole step: failed attempts included.
    pub output_tokens: u64,
    /// Of the whole step; `None` when a price was unknown.
    pub cost: Option<MicroUsd>,
    pub stop_details: Option<StopDetails>,
    /// Set when the turn has an output schema and this answer, being final, does not satisfy it: what is wrong.
    pub output_error: Option<String>,
}

/// What happened. Everything here is in the journal, or is a result on its way there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Input {
    Answered {
        answer: Answer,
    },
    /// The host tried as often as it may.
    ModelFailed,
    /// A call came to its end, wherever it ran.
    CallDone {
        id: CallId,
    },
    /// The client confirmed or denied a call.
    Verdict {
        id: CallId,
        verdict: Verdict,
        deny_message: Option<String>,
    },
    /// An input was accepted while this turn runs.
    Queued {
        id: EventId,
    },
    /// The client wants the turn to end now. Once the host has sent this or `TimeUp`, it takes no answer to the request
    /// that is under way: whatever still arrives is cut off.
    Interrupt,
    /// The turn's `seconds` are over (the host keeps the clock).
    TimeUp,
}

/// What is to be done next. The host validates each one as it would a stranger's request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// Ask the model. `take` names the queued inputs that become part of the conversation with this request. With
    /// `repair`, the model is first told what is wrong with its last answer (`loopd.output_rejected`).
    CallModel { step: u32, take: Vec<EventId>, repair: Option<String> },
    /// Abandon the model request that is under way. No input follows.
    CancelModel,
    /// Run a call. The cell does this itself for a call in the room; the host sees those that it runs itself.
    RunTool { id: CallId },
    /// Stop a call that runs; its `CallDone` still follows.
    CancelTool { id: CallId },
    /// Give a call its result without running it. `message` is what the model reads; always an error.
    /// No `CallDone` need follow. A call that got its result meanwhile keeps that one.
    Settle { id: CallId, outcome: Outcome, message: String },
    /// The turn is over, or waits for the client (`requires_action`).
    EndTurn { reason: StopReason, details: Option<StopDetails> },
}
