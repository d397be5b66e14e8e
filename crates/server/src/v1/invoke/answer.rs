//! A turn's events folded into one answer. Pure.
//!
//! The answer covers what follows from this invocation's own inputs: it begins with the first of them that the session
//! took up and ends where the session next rests. An input that joined a turn which already ran is therefore answered by
//! the rest of that turn. If the session comes to wait for its client before it could take the inputs up, that is the
//! answer (`requires_action`): nothing else would happen until somebody brings what is needed.

use loopd_domain::content::ContentBlock;
use loopd_domain::event::{Event, EventBody, RequestOutcome, RetryStatus};
use loopd_domain::session::{StopDetails, StopReason};
use loopd_domain::usage::{MicroUsd, Usage};
use loopd_domain::{EventId, SessionId};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use utoipa::ToSchema;

/// What `POST /v1/invoke` answers.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct InvokeAnswer {
    /// The event of the first input; stable across retries.
    pub id: String,
    pub session_id: String,
    /// `completed`, `requires_action` (the caller must bring what `pending_actions` names), `incomplete` (a limit, a
    /// budget or a refusal ended it), `interrupted`, `failed`, or `running` (only where nobody waited).
    pub status: &'static str,
    #[schema(value_type = Option<Object>)]
    pub stop_reason: Value,
    #[schema(value_type = Option<Object>)]
    pub stop_details: Value,
    /// The content blocks of the last step that said something.
    #[schema(value_type = Vec<Object>)]
    pub output: Value,
    /// The value that satisfies `output_schema`, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output_json: Option<Value>,
    #[schema(value_type = Vec<Object>)]
    pub pending_actions: Value,
    /// Why it failed.
    #[schema(value_type = Option<Object>)]
    pub error: Value,
    #[schema(value_type = Object)]
    pub usage: Value,
    /// In US dollars; null when a price is not known.
    pub cost: Option<f64>,
    pub steps: u32,
    pub trace_id: String,
}

/// What identifies an answer before anything has happened.
#[derive(Debug, Clone)]
pub struct Head {
    pub session: SessionId,
    pub inputs: Vec<EventId>,
    pub trace_id: String,
    pub output_schema: Option<Value>,
}

/// A call that somebody outside must move.
#[derive(Debug, Clone, PartialEq)]
struct Call {
    is_custom: bool,
    name: String,
    input: Value,
    arguments_digest: String,
}

#[derive(Debug)]
pub struct AnswerFold {
    head: Head,
    taken_up: bool,
    interrupted: bool,
    /// Messages of the last step that said something; `fresh` until it says something.
    output: Vec<ContentBlock>,
    fresh: bool,
    calls: HashMap<EventId, Call>,
    usage: Usage,
    cost: Option<MicroUsd>,
    steps: u32,
    error: Option<Value>,
    end: Option<End>,
}

#[derive(Debug, Clone, PartialEq)]
enum End {
    Rest(StopReason, Option<StopDetails>),
    Gone(String),
}

impl AnswerFold {
    pub fn new(head: Head) -> Self {
        AnswerFold {
            head,
            taken_up: false,
            interrupted: false,
            output: Vec::new(),
            fresh: true,
            calls: HashMap::new(),
            usage: Usage::default(),
            cost: Some(MicroUsd(0)),
            steps: 0,
            error: None,
            end: None,
        }
    }

    /// Takes the session's next event. True: the answer is complete.
    pub fn apply(&mut self, event: &Event) -> bool {
        self.learn(event);
        self.taken_up |= self.head.inputs.contains(&event.id);
        match &event.body {
            EventBody::StatusTerminated { reason } => self.end = Some(End::Gone(reason.clone())),
            EventBody::StatusIdle { stop_reason: waits @ StopReason::RequiresAction { .. }, stop_details } => {
                self.end = Some(End::Rest(waits.clone(), stop_details.clone()));
            }
            _ if self.taken_up => self.step(event),
            _ => {}
        }
        self.end.is_some()
    }

    /// The session was deleted while somebody waited.
    pub fn gone(&mut self, reason: &str) {
        self.end = Some(End::Gone(reason.to_owned()));
    }

    /// Remembers a call, so that it can be shown when it waits. Also for calls from before this invocation.
    pub fn learn(&mut self, event: &Event) {
        if let Some((name, input, _, intent)) = event.body.intent() {
            let is_custom = matches!(event.body, EventBody::AgentCustomToolUse { .. });
            self.calls.insert(
                event.id.clone(),
                Call {
                    is_custom,
                    name: name.to_owned(),
                    input: input.clone(),
                    arguments_digest: intent.arguments_digest.clone(),
                },
            );
        }
    }

    fn step(&mut self, event: &Event) {
        match &event.body {
            EventBody::UserInterrupt { .. } => self.interrupted = true,
            EventBody::ModelRequestStart { .. } => self.fresh = true,
            EventBody::AgentMessage { content, .. } => {
                if std::mem::take(&mut self.fresh) {
                    self.output.clear();
                }
                self.output.extend(content.iter().cloned());
            }
            EventBody::ModelRequestEnd { model_usage, outcome, cost, .. } => {
                self.usage.add(model_usage);
                let sum = |total: MicroUsd, more: MicroUsd| MicroUsd(total.0.saturating_add(more.0));
                self.cost = self.cost.zip(*cost).map(|(total, more)| sum(total, more));
                self.steps += u32::from(matches!(outcome, RequestOutcome::Answered { .. }));
            }
            EventBody::SessionError { error } if error.retry_status != RetryStatus::Retrying => {
                self.error = Some(json!({"type": error.kind, "message": error.message}));
            }
            EventBody::StatusIdle { stop_reason, stop_details } => {
                self.end = Some(End::Rest(stop_reason.clone(), stop_details.clone()));
            }
            _ => {}
        }
    }

    /// Calls that wait and whose names and inputs were not seen.
    pub fn unknown_calls(&self) -> bool {
        self.waiting().iter().any(|id| !self.calls.contains_key(id))
    }

    fn waiting(&self) -> &[EventId] {
        match &self.end {
            Some(End::Rest(StopReason::RequiresAction { event_ids }, _)) => event_ids,
            _ => &[],
        }
    }

    pub fn answer(&self) -> InvokeAnswer {
        let (stop_reason, stop_details) = match &self.end {
            Some(End::Rest(reason, details)) => (json!(reason), json!(details)),
            Some(End::Gone(_)) | None => (Value::Null, Value::Null),
        };
        let error = match &self.end {
            Some(End::Gone(reason)) => json!({"type": "session_ended_error", "message": reason}),
            _ => json!(self.error),
        };
        InvokeAnswer {
            id: self.head.inputs.first().map_or(String::new(), |id| id.to_string()),
            session_id: self.head.session.to_string(),
            status: self.status(),
            stop_reason,
            stop_details,
            output: json!(self.output),
            output_json: self.output_json(),
            pending_actions: self.waiting().iter().map(|id| self.action(id)).collect(),
            error,
            usage: json!(self.usage),
            cost: self.cost.map(|c| c.0 as f64 / 1_000_000.0),
            steps: self.steps,
            trace_id: self.head.trace_id.clone(),
        }
    }

    fn status(&self) -> &'static str {
        match &self.end {
            None => "running",
            Some(End::Gone(_)) => "failed",
            Some(End::Rest(reason, _)) => match reason {
                StopReason::EndTurn if self.interrupted => "interrupted",
                StopReason::EndTurn => "completed",
                StopReason::RequiresAction { .. } => "requires_action",
                StopReason::RetriesExhausted => "failed",
                StopReason::BudgetReached | StopReason::Refusal | StopReason::LimitReached { .. } => "incomplete",
            },
        }
    }

    fn output_json(&self) -> Option<Value> {
        let schema = self.head.output_schema.as_ref().filter(|_| self.status() == "completed")?;
        let text: String = self.output.iter().filter_map(text_of).collect();
        loopd_session::output::check(schema, &text).ok()
    }

    /// What waits, in the shape in which it is to be answered in `input`.
    fn action(&self, id: &EventId) -> Value {
        let call = self.calls.get(id);
        let (name, input) = call.map_or((Value::Null, Value::Null), |c| (json!(c.name), c.input.clone()));
        let kind = if call.is_some_and(|c| c.is_custom) { "tool_result" } else { "tool_confirmation" };
        let digest = call.map(|c| c.arguments_digest.clone());
        json!({"type": kind, "tool_use_id": id, "name": name, "input": input, "arguments_digest": digest})
    }
}

fn text_of(block: &ContentBlock) -> Option<&str> {
    match block {
        ContentBlock::Text { text } => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{answered, custom_call, event, event_id, idle, message, request, said, status_running};

    fn fold(schema: Option<Value>) -> AnswerFold {
        AnswerFold::new(Head {
            session: SessionId::parse("id", "sesn_1").expect("an id"),
            inputs: vec![event_id(2)],
            trace_id: "t".into(),
            output_schema: schema,
        })
    }

    /// Feeds events numbered from 1; says at which one the answer was complete.
    fn feed(fold: &mut AnswerFold, bodies: Vec<EventBody>) -> Option<u64> {
        let events = bodies.into_iter().zip(1..).map(|(body, seq)| event(seq, body));
        events.into_iter().find_map(|e| fold.apply(&e).then_some(e.seq))
    }

    #[test]
    fn the_last_step_that_spoke_is_the_output() {
        let mut fold = fold(None);
        let bodies = vec![
            status_running(1),
            message("do it"),
            request(1),
            said("first I look"),
            answered(3, 10, Some(5)),
            request(2),
            said("a"),
            said("b"),
            answered(6, 20, Some(7)),
            idle(StopReason::EndTurn),
        ];
        assert_eq!(feed(&mut fold, bodies), Some(10));
        let answer = fold.answer();
        assert_eq!((answer.status, answer.id.as_str(), answer.steps), ("completed", "sevt_2", 2));
        assert_eq!(answer.output, json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]));
        assert_eq!((answer.usage["output_tokens"].as_u64(), answer.cost), (Some(30), Some(0.000_012)));
        assert_eq!(answer.output_json, None);
    }

    #[test]
    fn what_came_before_the_input_does_not_count() {
        let mut fold = fold(None);
        let other = |text: &str| said(text);
        let bodies = vec![
            answered(0, 99, None),
            message("ours"),
            request(1),
            other("mine"),
            answered(3, 1, Some(1)),
            idle(StopReason::EndTurn),
        ];
        assert_eq!(feed(&mut fold, bodies), Some(6));
        assert_eq!((fold.answer().usage["output_tokens"].as_u64(), fold.answer().cost), (Some(1), Some(0.000_001)));
        // An idle of the turn before, when our input still waits, is not ours.
        let mut waiting = self::fold(None);
        let first = waiting.apply(&event(1, idle(StopReason::EndTurn)));
        assert!(!first && waiting.answer().status == "running");
    }

    #[test]
    fn waiting_calls_are_shown_as_they_are_to_be_answered() {
        let mut fold = fold(None);
        let waits = StopReason::RequiresAction { event_ids: vec![event_id(4), event_id(77)] };
        let bodies = vec![
            status_running(1),
            message("hi"),
            request(1),
            custom_call("ask", json!({"q": 1})),
            answered(3, 1, Some(1)),
            idle(waits),
        ];
        assert_eq!(feed(&mut fold, bodies), Some(6));
        assert!(fold.unknown_calls());
        fold.learn(&event(77, custom_call("older", json!({}))));
        assert!(!fold.unknown_calls());
        let answer = fold.answer();
        assert_eq!(answer.status, "requires_action");
        let expected = json!({"type": "tool_result", "tool_use_id": "sevt_4", "name": "ask", "input": {"q": 1}, "arguments_digest": ""});
        assert_eq!((&answer.pending_actions[0], &answer.pending_actions[1]["name"]), (&expected, &json!("older")));
    }

    #[test]
    fn a_session_that_waits_for_somebody_is_an_answer_even_before_the_input_was_taken_up() {
        let mut fold = fold(None);
        let waits = StopReason::RequiresAction { event_ids: vec![event_id(9)] };
        assert!(fold.apply(&event(1, idle(waits))));
        assert_eq!(fold.answer().status, "requires_action");
    }

    #[test]
    fn ends_are_told_apart() {
        let ended = |body: EventBody| {
            let mut fold = fold(None);
            fold.apply(&event(2, message("hi")));
            assert!(fold.apply(&event(3, body)));
            fold.answer()
        };
        assert_eq!(ended(idle(StopReason::RetriesExhausted)).status, "failed");
        assert_eq!(ended(idle(StopReason::Refusal)).status, "incomplete");
        let gone = ended(EventBody::StatusTerminated { reason: "parked".into() });
        assert_eq!((gone.status, &gone.error["message"]), ("failed", &json!("parked")));
        let mut stopped = fold(None);
        stopped.apply(&event(2, message("hi")));
        stopped.apply(&event(3, EventBody::UserInterrupt { session_thread_id: None }));
        stopped.apply(&event(4, idle(StopReason::EndTurn)));
        assert_eq!(stopped.answer().status, "interrupted");
    }

    #[test]
    fn a_schema_gives_a_value() {
        let mut fold = fold(Some(json!({"type": "object", "required": ["n"]})));
        feed(
            &mut fold,
            vec![
                status_running(1),
                message("hi"),
                request(1),
                said("```json\n{\"n\": 1}\n```"),
                idle(StopReason::EndTurn),
            ],
        );
        assert_eq!(fold.answer().output_json, Some(json!({"n": 1})));
    }
}
