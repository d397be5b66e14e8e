//! What the journal holds. One enum; its `type` strings are the wire's.
//!
//! A body may carry more than clients see: fields whose documentation says *journal only* are dropped by the server's
//! projection (`server/wire/event.rs`). Types that start with `loopd.` are our own additions to the wire format.
//!
//! An assistant's answer is not one event but several, in the provider's order: `agent.thinking`, `agent.message`,
//! `agent.tool_use` … between `span.model_request_start` and `span.model_request_end`. Together they carry all that the
//! provider must get back, so that the conversation is a fold of the journal (see [`crate::conversation`]).

use crate::chain::sha256_hex;
use crate::content::ContentBlock;
use crate::environment::{Accelerator, Isolation};
use crate::mcp::McpTool;
use crate::network::Connection;
use crate::session::{StopDetails, StopReason, TurnSettings};
use crate::usage::{MicroUsd, Usage};
use crate::{CallId, EventId, Seq, SessionId, ThreadId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One journal entry with its place and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub seq: Seq,
    pub id: EventId,
    /// When the journal took it. Never decreases within a session.
    pub at: Timestamp,
    pub body: EventBody,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum EventBody {
    // ---- from the client; the entry's time is when a turn took it up ----
    #[serde(rename = "user.message")]
    UserMessage { content: Vec<ContentBlock> },
    #[serde(rename = "user.interrupt")]
    UserInterrupt {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_thread_id: Option<ThreadId>,
    },
    #[serde(rename = "user.tool_confirmation")]
    UserToolConfirmation {
        tool_use_id: EventId,
        result: Verdict,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny_message: Option<String>,
        /// The digest of the arguments that the client was shown: what it answers, and nothing else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments_digest: Option<String>,
    },
    #[serde(rename = "user.custom_tool_result")]
    UserCustomToolResult {
        custom_tool_use_id: EventId,
        #[serde(default)]
        content: Vec<ContentBlock>,
        #[serde(default)]
        is_error: bool,
        /// The digest of the arguments that the client was shown: what it answers, and nothing else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments_digest: Option<String>,
    },
    #[serde(rename = "system.message")]
    SystemMessage { content: Vec<ContentBlock> },

    // ---- from the model ----
    #[serde(rename = "agent.message")]
    AgentMessage {
        content: Vec<ContentBlock>,
        /// Journal only: the answer was cut off (interrupt, deadline); this is what had arrived.
        #[serde(default, skip_serializing_if = "is_false")]
        partial: bool,
    },
    /// The wire shows only that it happened.
    #[serde(rename = "agent.thinking")]
    AgentThinking {
        /// Journal only: the provider's own item, sent back to it untouched.
        native: NativeBlock,
    },
    #[serde(rename = "agent.tool_use")]
    AgentToolUse {
        name: String,
        input: Value,
        evaluated_permission: Permission,
        /// Journal only.
        call: Intent,
    },
    #[serde(rename = "agent.custom_tool_use")]
    AgentCustomToolUse {
        name: String,
        input: Value,
        /// Journal only.
        call: Intent,
    },
    /// A call of a tool of an MCP server.
    #[serde(rename = "agent.mcp_tool_use")]
    AgentMcpToolUse {
        mcp_server_name: String,
        /// As the server names it.
        name: String,
        input: Value,
        evaluated_permission: Permission,
        /// Journal only, this and below. As the model wrote it.
        called_as: String,
        call: Intent,
    },
    #[serde(rename = "agent.mcp_tool_result")]
    AgentMcpToolResult {
        mcp_tool_use_id: EventId,
        content: Vec<ContentBlock>,
        is_error: bool,
        outcome: Outcome,
        /// As of `agent.tool_result`.
        duration_ms: u64,
    },
    #[serde(rename = "agent.tool_result")]
    AgentToolResult {
        tool_use_id: EventId,
        content: Vec<ContentBlock>,
        is_error: bool,
        outcome: Outcome,
        /// Wall time from dispatch to result, measured by the host; 0 when the call never ran.
        duration_ms: u64,
    },

    // ---- the session's life ----
    #[serde(rename = "session.status_running")]
    StatusRunning {
        /// Number of the turn, from 1. The same number again when a turn goes on after waiting for the client.
        turn: u32,
        /// Journal only.
        settings: TurnSettings,
    },
    #[serde(rename = "session.status_idle")]
    StatusIdle {
        stop_reason: StopReason,
        #[serde(default)]
        stop_details: Option<StopDetails>,
    },
    #[serde(rename = "session.status_rescheduled")]
    StatusRescheduled {
        /// When the next attempt is due.
        retry_at: Timestamp,
    },
    #[serde(rename = "session.status_terminated")]
    StatusTerminated { reason: String },
    #[serde(rename = "session.thread_status_running")]
    ThreadStatusRunning { session_thread_id: ThreadId, agent_name: String },
    #[serde(rename = "session.thread_status_idle")]
    ThreadStatusIdle {
        session_thread_id: ThreadId,
        agent_name: String,
        stop_reason: StopReason,
        #[serde(default)]
        stop_details: Option<StopDetails>,
    },
    #[serde(rename = "session.thread_status_rescheduled")]
    ThreadStatusRescheduled { session_thread_id: ThreadId, agent_name: String },
    #[serde(rename = "session.thread_status_terminated")]
    ThreadStatusTerminated { session_thread_id: ThreadId, agent_name: String },
    /// Totals of the session so far; stands right before every `session.status_idle`.
    #[serde(rename = "session.usage")]
    SessionUsage { usage: Usage, cost: Option<MicroUsd>, active_ms: u64 },
    #[serde(rename = "session.updated")]
    SessionUpdated { changed: Value },
    #[serde(rename = "session.error")]
    SessionError { error: SessionFault },

    // ---- spans of model calls ----
    #[serde(rename = "span.model_request_start")]
    ModelRequestStart {
        /// Journal only, this and all below. Step within the turn, from 1.
        step: u32,
        /// From 1; a retry of the same step has the next number.
        attempt: u32,
        /// As resolved: `anthropic/claude-…`.
        model: String,
        /// SHA-256 of the request as it will be sent, hex.
        request_digest: String,
        messages: u32,
    },
    #[serde(rename = "span.model_request_end")]
    ModelRequestEnd {
        model_request_start_id: EventId,
        is_error: bool,
        model_usage: Usage,
        /// Journal only, this and all below.
        outcome: RequestOutcome,
        /// `None` when the price of the model is not known.
        cost: Option<MicroUsd>,
        /// Milliseconds to the first piece of the answer.
        first_token_ms: Option<u64>,
        /// The provider's id of the request.
        provider_request_id: Option<String>,
        /// The model as the provider named it in its answer.
        response_model: Option<String>,
    },

    // ---- our own ----
    /// An input that was accepted while it could not be taken up. Journal only: the wire lists it with `processed_at: null`
    /// until the event with `input.id` follows.
    #[serde(rename = "loopd.input_queued")]
    InputQueued { input: QueuedInput },
    /// The final answer was not of the turn's `output_schema`; the model was asked again.
    #[serde(rename = "loopd.output_rejected")]
    OutputRejected { message: String },
    /// What an MCP server offers for the turn that was just begun. Journal only.
    #[serde(rename = "loopd.mcp_tools_listed")]
    McpToolsListed {
        mcp_server_name: String,
        /// `None`: the same as it listed last. Empty when it could not be asked; `session.error` says why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tools: Option<Vec<McpTool>>,
    },
    /// The session's owner was lost and another one took over. `recoveries` counts those without a finished step in between.
    #[serde(rename = "loopd.session_recovered")]
    SessionRecovered { message: String, recoveries: u32 },
    /// Nobody knows what became of a call, and the agent wants the client to decide: a `user.tool_confirmation` with `allow`
    /// has it run again, one with `deny` tells the model what is known.
    #[serde(rename = "loopd.outcome_unknown")]
    OutcomeUnknown { tool_use_id: EventId, message: String },
    /// The room was built anew: what lived in its memory is gone, and the model is told.
    #[serde(rename = "loopd.room_restarted")]
    RoomRestarted { message: String },
    /// What stands around the session's room from now on. Only of rooms with other walls than namespaces.
    #[serde(rename = "loopd.room_started")]
    RoomStarted {
        isolation: Isolation,
        /// How its processor is made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accelerator: Option<Accelerator>,
        /// How long the session waited for it.
        waited_ms: u64,
        /// It had been suspended, and went on with all its processes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        woken: bool,
    },
    /// A program of the room has connected to somewhere, or was kept from it. Written some time after it ended.
    #[serde(rename = "loopd.network_connection")]
    NetworkConnection { connection: Connection },
    /// So many more connections ended than the journal takes of one turn.
    #[serde(rename = "loopd.network_connections_omitted")]
    NetworkConnectionsOmitted { count: u64 },
    /// Everything before this was copied from another session's journal; what follows is this session's own.
    #[serde(rename = "loopd.session_forked")]
    SessionForked {
        from_session_id: SessionId,
        /// The last event that was copied; `None` from a journal without events.
        at_event_id: Option<EventId>,
        /// Hash of the source's journal at that event, hex: which history this is a copy of.
        source_hash: String,
        /// The files were copied as well, as they were when the fork was made.
        workspace: bool,
    },
    /// The content of an earlier event was replaced by a tombstone.
    #[serde(rename = "loopd.event_redacted")]
    EventRedacted { event_id: EventId, reason: Option<String> },
}

/// An accepted client event and the id that it has kept since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueuedInput {
    pub id: EventId,
    pub body: Box<EventBody>,
    pub settings: TurnSettings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    Deny,
}

/// What policy said of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    Allow,
    Ask,
    Deny,
}

/// Who executes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunsIn {
    /// The cell, inside the session's room.
    Room,
    /// The host: HTTP and MCP tools.
    Host,
    /// The caller: custom tools.
    Client,
    /// Nobody: no tool has this name.
    Nowhere,
}

/// What may be done about a call whose result is not known. See `journal.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    Pure,
    Keyed,
    Room,
    Once,
    Client,
}

impl EffectClass {
    /// Classes that a caller may declare for a tool that the host runs.
    pub const DECLARED: [EffectClass; 3] = [EffectClass::Pure, EffectClass::Keyed, EffectClass::Once];

    pub fn as_str(self) -> &'static str {
        match self {
            EffectClass::Pure => "pure",
            EffectClass::Keyed => "keyed",
            EffectClass::Room => "room",
            EffectClass::Once => "once",
            EffectClass::Client => "client",
        }
    }

    /// What a call of the host's came to that was stopped when it may have been sent.
    pub fn stopped(self) -> Outcome {
        match self {
            EffectClass::Pure => Outcome::Interrupted,
            EffectClass::Keyed | EffectClass::Once | EffectClass::Room | EffectClass::Client => Outcome::Unknown,
        }
    }
}

/// The key under which a `keyed` call is sent, the same at every attempt. Nobody else's call has it.
pub fn idempotency_key(session: &SessionId, call: &CallId) -> String {
    format!("loopd_{}", sha256_hex(format!("{session}:{call}").as_bytes()))
}

/// Written before the call is dispatched. The call's id is the id of the event that holds this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The provider's own id of the call (`toolu_…`, `call_…`), sent back with the result.
    pub provider_call_id: String,
    pub runs_in: RunsIn,
    pub effect: EffectClass,
    /// SHA-256 of the arguments as the model wrote them, hex.
    pub arguments_digest: String,
    /// Why the arguments cannot be used: not JSON, not an object, cut off. Such a call is never run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed: Option<String>,
    /// The arguments as the model wrote them, kept only when they are malformed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_arguments: Option<String>,
    /// The provider's own item where `input` alone would not reproduce it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeBlock>,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran to its end; `is_error` says how that went.
    Completed,
    /// It ran out of its time and was killed.
    TimedOut,
    /// It was stopped by an interrupt or a limit.
    Interrupted,
    /// It was refused (policy, malformed, unknown tool) and never ran.
    NotRun,
    /// It may or may not have happened. Not the same as failed.
    Unknown,
}

/// How a model request ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RequestOutcome {
    Answered {
        stop: AnswerStop,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop_details: Option<StopDetails>,
    },
    /// `class` is the error class of `models`, e.g. `rate_limited`.
    Failed { class: String, message: String, status: Option<u16> },
    /// Cut off by an interrupt, a limit, or the loss of its owner. Its usage is what had been reported until then.
    Interrupted,
}

/// Why a model stopped writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerStop {
    EndTurn,
    ToolUse,
    MaxTokens,
    Refusal,
    /// The provider paused a long answer and wants to be called again with what it wrote.
    Pause,
}

/// A provider's own item, kept untouched so that it can be sent back. Only the same dialect understands it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NativeBlock {
    /// `anthropic` or `openai`.
    pub dialect: String,
    pub block: Value,
}

/// The `error` object of `session.error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionFault {
    /// One of the wire's error types, e.g. `model_overloaded_error`.
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    pub retry_status: RetryStatus,
    /// Of the errors that an MCP server makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_server_name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RetryStatus {
    Retrying,
    Exhausted,
    Terminal,
}

impl EventBody {
    /// The wire's `type`, also the `type` column of the journal.
    pub fn kind(&self) -> &'static str {
        use EventBody::*;
        match self {
            UserMessage { .. } => "user.message",
            UserInterrupt { .. } => "user.interrupt",
            UserToolConfirmation { .. } => "user.tool_confirmation",
            UserCustomToolResult { .. } => "user.custom_tool_result",
            SystemMessage { .. } => "system.message",
            AgentMessage { .. } => "agent.message",
            AgentThinking { .. } => "agent.thinking",
            AgentToolUse { .. } => "agent.tool_use",
            AgentCustomToolUse { .. } => "agent.custom_tool_use",
            AgentToolResult { .. } => "agent.tool_result",
            AgentMcpToolUse { .. } => "agent.mcp_tool_use",
            AgentMcpToolResult { .. } => "agent.mcp_tool_result",
            StatusRunning { .. } => "session.status_running",
            StatusIdle { .. } => "session.status_idle",
            StatusRescheduled { .. } => "session.status_rescheduled",
            StatusTerminated { .. } => "session.status_terminated",
            ThreadStatusRunning { .. } => "session.thread_status_running",
            ThreadStatusIdle { .. } => "session.thread_status_idle",
            ThreadStatusRescheduled { .. } => "session.thread_status_rescheduled",
            ThreadStatusTerminated { .. } => "session.thread_status_terminated",
            SessionUsage { .. } => "session.usage",
            SessionUpdated { .. } => "session.updated",
            SessionError { .. } => "session.error",
            ModelRequestStart { .. } => "span.model_request_start",
            ModelRequestEnd { .. } => "span.model_request_end",
            InputQueued { .. } => "loopd.input_queued",
            OutputRejected { .. } => "loopd.output_rejected",
            McpToolsListed { .. } => "loopd.mcp_tools_listed",
            SessionRecovered { .. } => "loopd.session_recovered",
            OutcomeUnknown { .. } => "loopd.outcome_unknown",
            RoomRestarted { .. } => "loopd.room_restarted",
            RoomStarted { .. } => "loopd.room_started",
            NetworkConnection { .. } => "loopd.network_connection",
            NetworkConnectionsOmitted { .. } => "loopd.network_connections_omitted",
            SessionForked { .. } => "loopd.session_forked",
            EventRedacted { .. } => "loopd.event_redacted",
        }
    }

    /// Does the stream and the list show it in its own place?
    pub fn is_public(&self) -> bool {
        !matches!(self, EventBody::InputQueued { .. } | EventBody::McpToolsListed { .. })
    }

    /// The intent that this event records, if it is a call; its name is what the model called.
    pub fn intent(&self) -> Option<(&str, &Value, Permission, &Intent)> {
        match self {
            EventBody::AgentToolUse { name, input, evaluated_permission, call } => {
                Some((name, input, *evaluated_permission, call))
            }
            EventBody::AgentMcpToolUse { called_as, input, evaluated_permission, call, .. } => {
                Some((called_as, input, *evaluated_permission, call))
            }
            EventBody::AgentCustomToolUse { name, input, call } => Some((name, input, Permission::Allow, call)),
            _ => None,
        }
    }
}

fn is_false(b: &bool) -> bool {
    !*b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::ConnectionOutcome;

    fn refused() -> Connection {
        Connection {
            host: "example.com".to_owned(),
            port: 443,
            outcome: ConnectionOutcome::Refused { reason: "not allowed".to_owned() },
            credentials: Vec::new(),
            started_at: Timestamp(1),
            duration_ms: 2,
            bytes_out: 3,
            bytes_in: 4,
        }
    }

    #[test]
    fn kind_is_the_serialised_type() {
        let samples = [
            EventBody::UserMessage { content: vec![ContentBlock::text("hi")] },
            EventBody::UserInterrupt { session_thread_id: None },
            EventBody::OutputRejected { message: String::new() },
            EventBody::SessionUpdated { changed: Value::Null },
            EventBody::SessionUsage { usage: Usage::default(), cost: None, active_ms: 0 },
            EventBody::StatusIdle { stop_reason: StopReason::EndTurn, stop_details: None },
            EventBody::NetworkConnection { connection: refused() },
            EventBody::NetworkConnectionsOmitted { count: 3 },
        ];
        for body in samples {
            let json = serde_json::to_value(&body).expect("serialises");
            assert_eq!(json["type"], body.kind());
            assert_eq!(serde_json::from_value::<EventBody>(json).expect("reads back"), body);
        }
    }
}
