//! A journal with a time for each event, in milliseconds since the session began. What does not fold is refused.
#![allow(dead_code, reason = "each test program uses its part")]

use loopd_domain::content::ContentBlock;
use loopd_domain::event::*;
use loopd_domain::fold::SessionFold;
use loopd_domain::network::{Connection, ConnectionOutcome};
use loopd_domain::session::{StopReason, TurnSettings};
use loopd_domain::usage::{MicroUsd, Usage};
use loopd_domain::{EventId, SessionId, ThreadId, Timestamp};
use loopd_telemetry::Trace;
use serde_json::json;

/// A caller's trace id and span id.
pub const TRACE: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");

pub struct Journal {
    pub session: SessionId,
    pub events: Vec<Event>,
    fold: SessionFold,
}

impl Journal {
    pub fn new() -> Self {
        let session = SessionId::parse("session", "sesn_01TRACE").expect("well formed");
        Journal { session, events: Vec::new(), fold: SessionFold::default() }
    }

    pub fn trace(&self) -> Trace {
        Trace::of(&self.events, &self.session)
    }

    pub fn put(&mut self, ms: i64, body: EventBody) -> EventId {
        let id = id(self.events.len() as u32 + 1);
        self.put_as(ms, id.clone(), body);
        id
    }

    pub fn put_as(&mut self, ms: i64, id: EventId, body: EventBody) {
        let event = Event { seq: self.events.len() as u64 + 1, id, at: Timestamp::from_millis(1_000_000 + ms), body };
        self.fold.apply(&event).expect("legal");
        self.events.push(event);
    }

    pub fn say(&mut self, ms: i64) {
        self.put(ms, message());
    }

    pub fn running(&mut self, ms: i64, traceparent: Option<&str>) {
        let turn = self.fold.turn.as_ref().map_or(self.fold.turns + 1, |t| t.number);
        let settings = TurnSettings { traceparent: traceparent.map(str::to_owned), ..TurnSettings::default() };
        self.put(ms, EventBody::StatusRunning { turn, settings });
    }

    pub fn named(&mut self, ms: i64, agent_name: &str) {
        let session_thread_id = ThreadId::primary(&self.session);
        self.put(ms, EventBody::ThreadStatusRunning { session_thread_id, agent_name: agent_name.to_owned() });
    }

    pub fn idle(&mut self, ms: i64, stop_reason: StopReason) {
        self.put(ms, EventBody::StatusIdle { stop_reason, stop_details: None });
    }

    pub fn ask(&mut self, ms: i64, step: u32, attempt: u32) {
        let (model, request_digest) = ("anthropic/opus".to_owned(), "ab12".to_owned());
        self.put(ms, EventBody::ModelRequestStart { step, attempt, model, request_digest, messages: 1 });
    }

    pub fn answered(&mut self, ms: i64, input_tokens: u64, output_tokens: u64, cost: Option<u64>) {
        let usage = Usage { input_tokens, output_tokens, ..Usage::default() };
        self.end(ms, RequestOutcome::Answered { stop: AnswerStop::EndTurn, stop_details: None }, usage, cost);
    }

    pub fn failed(&mut self, ms: i64, class: &str, message: &str) {
        let (class, message) = (class.to_owned(), message.to_owned());
        self.end(ms, RequestOutcome::Failed { class, message, status: Some(529) }, Usage::default(), Some(0));
    }

    pub fn cut_off(&mut self, ms: i64) {
        self.end(ms, RequestOutcome::Interrupted, Usage::default(), Some(0));
    }

    pub fn end(&mut self, ms: i64, outcome: RequestOutcome, model_usage: Usage, cost: Option<u64>) {
        let request = self.fold.turn.as_ref().and_then(|t| t.request.clone()).expect("a request is open");
        let answered = matches!(outcome, RequestOutcome::Answered { .. });
        let body = EventBody::ModelRequestEnd {
            model_request_start_id: request.id,
            is_error: matches!(outcome, RequestOutcome::Failed { .. }),
            model_usage,
            outcome,
            cost: cost.map(MicroUsd),
            first_token_ms: answered.then_some(200),
            provider_request_id: answered.then(|| "req_abc".to_owned()),
            response_model: answered.then(|| "opus-20260101".to_owned()),
        };
        self.put(ms, body);
    }

    pub fn tool(&mut self, ms: i64, name: &str) -> EventId {
        self.call(ms, name, RunsIn::Room, Permission::Allow)
    }

    pub fn call(&mut self, ms: i64, name: &str, runs_in: RunsIn, permission: Permission) -> EventId {
        let call = Intent {
            provider_call_id: "toolu_1".to_owned(),
            runs_in,
            effect: EffectClass::Room,
            arguments_digest: "cd34".to_owned(),
            malformed: None,
            raw_arguments: None,
            native: None,
        };
        let (name, input) = (name.to_owned(), json!({"command": "cat /etc/secret"}));
        let body = match runs_in {
            RunsIn::Client => EventBody::AgentCustomToolUse { name, input, call },
            _ => EventBody::AgentToolUse { name, input, evaluated_permission: permission, call },
        };
        self.put(ms, body)
    }

    /// A connection that took 40 ms, told of at `ms`.
    pub fn connection(&mut self, ms: i64, started: i64, host: &str, outcome: ConnectionOutcome) {
        let connection = Connection {
            host: host.to_owned(),
            port: 443,
            outcome,
            credentials: Vec::new(),
            started_at: Timestamp::from_millis(1_000_000 + started),
            duration_ms: 40,
            bytes_out: 1_200,
            bytes_in: 5_300_000,
        };
        self.put(ms, EventBody::NetworkConnection { connection });
    }

    pub fn result(&mut self, ms: i64, call: &EventId, outcome: Outcome, is_error: bool, duration_ms: u64) {
        let content = vec![ContentBlock::text("what the tool said")];
        self.put(ms, EventBody::AgentToolResult { tool_use_id: call.clone(), content, is_error, outcome, duration_ms });
    }
}

pub fn id(n: u32) -> EventId {
    EventId::parse("id", &format!("sevt_{n:026}")).expect("well formed")
}

pub fn message() -> EventBody {
    EventBody::UserMessage { content: vec![ContentBlock::text("hello")] }
}

pub fn requires(ids: &[&EventId]) -> StopReason {
    StopReason::RequiresAction { event_ids: ids.iter().map(|i| (*i).clone()).collect() }
}
