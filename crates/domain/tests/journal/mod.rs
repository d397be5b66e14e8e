//! A journal written by hand: each event gets the next seq, an id and a time, and must be legal to be kept.
#![allow(dead_code, reason = "each test program uses its part")]

use loopd_domain::content::ContentBlock;
use loopd_domain::event::*;
use loopd_domain::fold::{IllegalEvent, SessionFold};
use loopd_domain::network::{Connection, ConnectionOutcome};
use loopd_domain::session::{StopReason, TurnSettings};
use loopd_domain::usage::{MicroUsd, Usage};
use loopd_domain::{EventId, Timestamp};
use serde_json::json;

pub struct Journal {
    pub fold: SessionFold,
    pub events: Vec<Event>,
    pub now: Timestamp,
    ids: u32,
}

impl Journal {
    pub fn new() -> Self {
        Journal { fold: SessionFold::default(), events: Vec::new(), now: Timestamp::from_millis(1_000), ids: 0 }
    }

    /// A journal in which turn 1 runs and its first request is under way.
    pub fn asking() -> (Self, EventId) {
        let mut journal = Journal::new();
        journal.put(message("hello"));
        journal.put(running(1));
        let request = journal.put(start(1));
        (journal, request)
    }

    pub fn wait(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    pub fn id(&mut self) -> EventId {
        self.ids += 1;
        id(self.ids)
    }

    /// Appends what must be legal.
    pub fn put(&mut self, body: EventBody) -> EventId {
        let id = self.id();
        self.put_as(id.clone(), body).expect("legal");
        id
    }

    pub fn put_as(&mut self, id: EventId, body: EventBody) -> Result<(), IllegalEvent> {
        let event = Event { seq: self.fold.last_seq + 1, id, at: self.now, body };
        self.fold.apply(&event)?;
        self.events.push(event);
        Ok(())
    }

    /// Why `body` cannot follow. The fold must be as it was.
    pub fn refusal(&mut self, body: EventBody) -> &'static str {
        let before = self.fold.clone();
        let id = self.id();
        let fault = self.put_as(id, body).expect_err("must be refused");
        assert_eq!(self.fold, before);
        fault.reason
    }
}

pub fn id(n: u32) -> EventId {
    EventId::parse("id", &format!("sevt_{n:026}")).expect("well formed")
}

pub fn texts(text: &str) -> Vec<ContentBlock> {
    vec![ContentBlock::text(text)]
}

pub fn message(text: &str) -> EventBody {
    EventBody::UserMessage { content: texts(text) }
}

pub fn said(text: &str) -> EventBody {
    EventBody::AgentMessage { content: texts(text), partial: false }
}

pub fn queued(id: &EventId, body: EventBody) -> EventBody {
    EventBody::InputQueued {
        input: QueuedInput { id: id.clone(), body: Box::new(body), settings: TurnSettings::default() },
    }
}

pub fn running(turn: u32) -> EventBody {
    EventBody::StatusRunning { turn, settings: TurnSettings::default() }
}

pub fn idle(stop_reason: StopReason) -> EventBody {
    EventBody::StatusIdle { stop_reason, stop_details: None }
}

pub fn requires(ids: &[&EventId]) -> EventBody {
    idle(StopReason::RequiresAction { event_ids: ids.iter().map(|i| (*i).clone()).collect() })
}

pub fn start(step: u32) -> EventBody {
    EventBody::ModelRequestStart {
        step,
        attempt: 1,
        model: "builtin/script".to_owned(),
        request_digest: "00".to_owned(),
        messages: 1,
    }
}

pub fn end(request: &EventId, outcome: RequestOutcome) -> EventBody {
    EventBody::ModelRequestEnd {
        model_request_start_id: request.clone(),
        is_error: matches!(outcome, RequestOutcome::Failed { .. }),
        model_usage: Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() },
        outcome,
        cost: Some(MicroUsd(7)),
        first_token_ms: None,
        provider_request_id: None,
        response_model: None,
    }
}

pub fn answered(request: &EventId) -> EventBody {
    end(request, RequestOutcome::Answered { stop: AnswerStop::EndTurn, stop_details: None })
}

pub fn failed(request: &EventId) -> EventBody {
    let (class, message) = ("overloaded".to_owned(), "try later".to_owned());
    end(request, RequestOutcome::Failed { class, message, status: Some(529) })
}

pub fn intent(provider_call_id: &str, runs_in: RunsIn) -> Intent {
    Intent {
        provider_call_id: provider_call_id.to_owned(),
        runs_in,
        effect: EffectClass::Room,
        arguments_digest: "00".to_owned(),
        malformed: None,
        raw_arguments: None,
        native: None,
    }
}

pub fn tool(provider_call_id: &str, permission: Permission) -> EventBody {
    EventBody::AgentToolUse {
        name: "bash".to_owned(),
        input: json!({"command": "ls"}),
        evaluated_permission: permission,
        call: intent(provider_call_id, RunsIn::Room),
    }
}

pub fn custom(provider_call_id: &str) -> EventBody {
    EventBody::AgentCustomToolUse {
        name: "lookup".to_owned(),
        input: json!({}),
        call: intent(provider_call_id, RunsIn::Client),
    }
}

pub fn result(call: &EventId, text: &str) -> EventBody {
    EventBody::AgentToolResult {
        tool_use_id: call.clone(),
        content: texts(text),
        is_error: false,
        outcome: Outcome::Completed,
        duration_ms: 3,
    }
}

pub fn custom_result(call: &EventId, text: &str) -> EventBody {
    EventBody::UserCustomToolResult {
        custom_tool_use_id: call.clone(),
        content: texts(text),
        is_error: false,
        arguments_digest: None,
    }
}

pub fn connection() -> EventBody {
    let connection = Connection {
        host: "example.com".to_owned(),
        port: 443,
        outcome: ConnectionOutcome::Done,
        credentials: Vec::new(),
        started_at: Timestamp(1),
        duration_ms: 2,
        bytes_out: 3,
        bytes_in: 4,
    };
    EventBody::NetworkConnection { connection }
}

pub fn confirmation(call: &EventId, result: Verdict) -> EventBody {
    EventBody::UserToolConfirmation { tool_use_id: call.clone(), result, deny_message: None, arguments_digest: None }
}
