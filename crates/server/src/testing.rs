//! Samples for this crate's tests.

use loopd_domain::agent::{AgentSpec, ModelRef};
use loopd_domain::content::ContentBlock;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::event::{AnswerStop, EffectClass, Event, EventBody, Intent, RequestOutcome, RunsIn};
use loopd_domain::fold::SessionFold;
use loopd_domain::session::{Session, SessionAgent, StopReason, TurnSettings};
use loopd_domain::usage::{MicroUsd, Usage};
use loopd_domain::{Epoch, EventId, Seq, SessionId, Timestamp, WorkspaceId};
use serde_json::Value;

pub fn event_id(n: u64) -> EventId {
    EventId::parse("id", &format!("sevt_{n}")).expect("an id")
}

/// The event at `seq`, that many milliseconds after the epoch, with an id of the same number.
pub fn event(seq: Seq, body: EventBody) -> Event {
    Event { seq, id: event_id(seq), at: Timestamp::from_millis(seq as i64), body }
}

pub fn intent(provider_call_id: &str) -> Intent {
    Intent {
        provider_call_id: provider_call_id.to_owned(),
        runs_in: RunsIn::Room,
        effect: EffectClass::Room,
        arguments_digest: String::new(),
        malformed: None,
        raw_arguments: None,
        native: None,
    }
}

pub fn message(text: &str) -> EventBody {
    EventBody::UserMessage { content: vec![ContentBlock::text(text)] }
}

pub fn said(text: &str) -> EventBody {
    EventBody::AgentMessage { content: vec![ContentBlock::text(text)], partial: false }
}

pub fn status_running(turn: u32) -> EventBody {
    EventBody::StatusRunning { turn, settings: TurnSettings::default() }
}

pub fn idle(stop_reason: StopReason) -> EventBody {
    EventBody::StatusIdle { stop_reason, stop_details: None }
}

pub fn request(step: u32) -> EventBody {
    let (model, request_digest) = ("builtin/shell".to_owned(), String::new());
    EventBody::ModelRequestStart { step, attempt: 1, model, request_digest, messages: 1 }
}

pub fn answered(start: u64, output_tokens: u64, cost: Option<u64>) -> EventBody {
    EventBody::ModelRequestEnd {
        model_request_start_id: event_id(start),
        is_error: false,
        model_usage: Usage { output_tokens, ..Usage::default() },
        outcome: RequestOutcome::Answered { stop: AnswerStop::EndTurn, stop_details: None },
        cost: cost.map(MicroUsd),
        first_token_ms: None,
        provider_request_id: None,
        response_model: None,
    }
}

pub fn custom_call(name: &str, input: Value) -> EventBody {
    EventBody::AgentCustomToolUse { name: name.to_owned(), input, call: intent("call_1") }
}

pub fn session(id: &str) -> Session {
    let model = ModelRef {
        id: "builtin/shell".to_owned(),
        effort: None,
        base_url: None,
        max_tokens: None,
        temperature: None,
        extra: None,
    };
    let spec = AgentSpec {
        name: "a".to_owned(),
        description: None,
        model,
        system: None,
        tools: Vec::new(),
        on_unknown_outcome: Default::default(),
        mcp_servers: Vec::new(),
        metadata: Default::default(),
    };
    Session {
        id: SessionId::parse("id", id).expect("an id"),
        workspace: WorkspaceId::default_workspace(),
        agent: SessionAgent { id: None, version: 1, spec },
        environment: None,
        room: EnvironmentConfig::default(),
        vaults: Vec::new(),
        title: None,
        metadata: Default::default(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        archived_at: None,
        fold: SessionFold::default(),
        epoch: Epoch(1),
    }
}
