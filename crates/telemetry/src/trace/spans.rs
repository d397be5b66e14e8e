//! How a span of each kind is begun and ended: its name, its attributes, what its status follows from.

use super::ids::span_id;
use super::{Span, SpanKind, SpanStatus};
use crate::semconv;
use loopd_domain::Timestamp;
use loopd_domain::event::{AnswerStop, Event, EventBody, Intent, Outcome, RequestOutcome, RunsIn, Verdict};
use loopd_domain::network::{Connection, ConnectionOutcome};
use loopd_domain::session::{LimitName, StopReason};
use loopd_domain::usage::{MicroUsd, Usage};
use serde_json::{Value, json};

impl Span {
    /// An open span. `label` and `source` make its id.
    pub(super) fn open(kind: SpanKind, name: impl Into<String>, start: Timestamp, label: &str, source: &str) -> Self {
        let spends = matches!(kind, SpanKind::Session | SpanKind::Turn | SpanKind::Step | SpanKind::ModelCall);
        Span {
            trace_id: String::new(),
            span_id: span_id(label, source),
            parent_span_id: None,
            name: name.into(),
            kind,
            start,
            end: None,
            duration_ms: None,
            status: SpanStatus::Open,
            message: None,
            usage: spends.then(Usage::default),
            cost: spends.then_some(MicroUsd(0)),
            attributes: Default::default(),
            children: Vec::new(),
        }
    }

    pub(super) fn under(mut self, parent: &Span) -> Self {
        self.trace_id = parent.trace_id.clone();
        self.parent_span_id = Some(parent.span_id.clone());
        self
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.attributes.insert(name.to_owned(), value.into());
    }

    /// Ends it; what has ended stays as it is.
    pub(super) fn close(&mut self, at: Timestamp, status: SpanStatus) {
        if self.end.is_none() {
            self.end = Some(at);
            self.duration_ms = Some(at.since_ms(self.start));
            self.status = status;
        }
    }

    /// Adds what a model call below it, or it itself, has spent.
    pub(super) fn spend(&mut self, usage: &Usage, cost: Option<MicroUsd>) {
        let total = self.usage.get_or_insert_default();
        total.add(usage);
        let total = *total;
        self.cost = self.cost.zip(cost).map(|(a, b)| MicroUsd(a.0.saturating_add(b.0)));
        let cached = total.cache_read_input_tokens.saturating_add(total.cache_creation_input_tokens);
        self.set(semconv::USAGE_INPUT_TOKENS, total.input_tokens.saturating_add(cached));
        self.set(semconv::USAGE_OUTPUT_TOKENS, total.output_tokens);
        for (name, tokens) in [
            (semconv::USAGE_CACHE_READ_TOKENS, total.cache_read_input_tokens),
            (semconv::USAGE_CACHE_CREATION_TOKENS, total.cache_creation_input_tokens),
            (semconv::LOOPD_REASONING_TOKENS, total.reasoning_tokens),
        ] {
            if tokens > 0 {
                self.set(name, tokens);
            }
        }
        match self.cost {
            Some(cost) => self.set(semconv::LOOPD_COST_MICRO_USD, cost.0),
            None => {
                self.attributes.remove(semconv::LOOPD_COST_MICRO_USD);
            }
        }
    }
}

/// One attempt at a model call. `None` when the event is no request.
pub(super) fn model_call(event: &Event) -> Option<Span> {
    let EventBody::ModelRequestStart { attempt, model, request_digest, .. } = &event.body else { return None };
    let (provider, name) = model.split_once('/').unwrap_or(("_OTHER", model));
    let title = format!("{} {name}", semconv::OPERATION_CHAT);
    let mut span = Span::open(SpanKind::ModelCall, title, event.at, "model", event.id.as_str());
    span.set(semconv::OPERATION_NAME, semconv::OPERATION_CHAT);
    span.set(semconv::PROVIDER_NAME, provider);
    span.set(semconv::REQUEST_MODEL, name);
    span.set(semconv::LOOPD_ATTEMPT, *attempt);
    span.set(semconv::LOOPD_REQUEST_DIGEST, request_digest.as_str());
    Some(span)
}

pub(super) fn end_model_call(span: &mut Span, event: &Event) {
    let EventBody::ModelRequestEnd { outcome, first_token_ms, provider_request_id, response_model, .. } = &event.body
    else {
        return;
    };
    let texts = [
        (semconv::LOOPD_PROVIDER_REQUEST_ID, provider_request_id.as_deref()),
        (semconv::RESPONSE_MODEL, response_model.as_deref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            span.set(name, text);
        }
    }
    if let Some(ms) = first_token_ms {
        span.set(semconv::LOOPD_FIRST_TOKEN_MS, *ms);
    }
    match outcome {
        RequestOutcome::Answered { stop, .. } => {
            span.set(semconv::RESPONSE_FINISH_REASONS, json!([stop_name(*stop)]));
            span.close(event.at, SpanStatus::Ok);
        }
        RequestOutcome::Failed { class, message, status } => {
            span.set(semconv::ERROR_TYPE, class.as_str());
            if let Some(status) = status {
                span.set(semconv::HTTP_STATUS, *status);
            }
            span.message = Some(message.clone());
            span.close(event.at, SpanStatus::Error);
        }
        RequestOutcome::Interrupted => span.close(event.at, SpanStatus::Interrupted),
    }
}

/// A tool call, from the model's asking on.
pub(super) fn tool_call(event: &Event, name: &str, intent: &Intent) -> Span {
    let title = format!("{} {name}", semconv::OPERATION_EXECUTE_TOOL);
    let mut span = Span::open(SpanKind::ToolCall, title, event.at, "tool", event.id.as_str());
    span.set(semconv::OPERATION_NAME, semconv::OPERATION_EXECUTE_TOOL);
    span.set(semconv::TOOL_NAME, name);
    span.set(semconv::TOOL_CALL_ID, intent.provider_call_id.as_str());
    span.set(semconv::LOOPD_CALL_ID, event.id.as_str());
    span.set(semconv::LOOPD_CALL_EFFECT, intent.effect.as_str());
    span.set(semconv::LOOPD_CALL_ARGUMENTS_DIGEST, intent.arguments_digest.as_str());
    match intent.runs_in {
        RunsIn::Room | RunsIn::Host => span.set(semconv::TOOL_TYPE, semconv::TOOL_TYPE_EXTENSION),
        RunsIn::Client => span.set(semconv::TOOL_TYPE, semconv::TOOL_TYPE_FUNCTION),
        RunsIn::Nowhere => {}
    }
    span
}

/// The call has its result. A call that ran starts when it ran: the time before is `loopd.call.waited_ms`.
pub(super) fn end_tool_call(span: &mut Span, at: Timestamp, outcome: Outcome, is_error: bool, ran_ms: u64) {
    let asked = span.start;
    let waited_ms = at.since_ms(asked).saturating_sub(ran_ms);
    if ran_ms > 0 && waited_ms > 0 {
        span.start = asked.plus_ms(waited_ms);
        span.set(semconv::LOOPD_CALL_WAITED_MS, waited_ms);
    }
    let (name, status) = match outcome {
        Outcome::Completed => ("completed", if is_error { SpanStatus::Error } else { SpanStatus::Ok }),
        Outcome::TimedOut => ("timed_out", SpanStatus::Error),
        Outcome::Interrupted => ("interrupted", SpanStatus::Interrupted),
        Outcome::NotRun => ("not_run", SpanStatus::Error),
        Outcome::Unknown => ("unknown", SpanStatus::Unknown),
    };
    span.set(semconv::LOOPD_CALL_OUTCOME, name);
    match (status, outcome) {
        (SpanStatus::Ok, _) => {}
        (_, Outcome::Completed) => span.set(semconv::ERROR_TYPE, "tool_error"),
        _ => span.set(semconv::ERROR_TYPE, name),
    }
    span.close(at, status);
}

/// A connection that has ended. Its times are those of the connection, not of the entry that tells of it.
pub(super) fn connection(event: &Event, connection: &Connection) -> Span {
    let started = connection.started_at;
    let mut span = Span::open(SpanKind::Connection, "connect", started, "connection", event.id.as_str());
    span.set(semconv::SERVER_ADDRESS, connection.host.as_str());
    span.set(semconv::SERVER_PORT, connection.port);
    span.set(semconv::NETWORK_TRANSPORT, semconv::NETWORK_TRANSPORT_TCP);
    span.set(semconv::LOOPD_NETWORK_BYTES_OUT, connection.bytes_out);
    span.set(semconv::LOOPD_NETWORK_BYTES_IN, connection.bytes_in);
    if !connection.credentials.is_empty() {
        span.set(semconv::LOOPD_NETWORK_CREDENTIALS, json!(connection.credentials));
    }
    let error = match &connection.outcome {
        ConnectionOutcome::Done => None,
        ConnectionOutcome::Refused { .. } => Some("refused"),
        ConnectionOutcome::Violation { .. } => Some("violation"),
        ConnectionOutcome::Failed { .. } => Some("failed"),
    };
    if let Some(error) = error {
        span.set(semconv::ERROR_TYPE, error);
    }
    span.message = connection.outcome.reason().map(str::to_owned);
    let status = if error.is_some() { SpanStatus::Error } else { SpanStatus::Ok };
    span.close(started.plus_ms(connection.duration_ms), status);
    span
}

pub(super) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

/// As the API writes it; a limit with its name.
pub(super) fn stop_reason_name(reason: &StopReason) -> String {
    let name = match reason {
        StopReason::EndTurn => "end_turn",
        StopReason::RequiresAction { .. } => "requires_action",
        StopReason::RetriesExhausted => "retries_exhausted",
        StopReason::BudgetReached => "budget_reached",
        StopReason::Refusal => "refusal",
        StopReason::LimitReached { limit } => return format!("limit_reached: {}", limit_name(*limit)),
    };
    name.to_owned()
}

fn limit_name(limit: LimitName) -> &'static str {
    match limit {
        LimitName::Steps => "steps",
        LimitName::OutputTokens => "output_tokens",
        LimitName::Seconds => "seconds",
        LimitName::CostUsd => "cost_usd",
        LimitName::MaxTokens => "max_tokens",
        LimitName::OutputSchema => "output_schema",
    }
}

fn stop_name(stop: AnswerStop) -> &'static str {
    match stop {
        AnswerStop::EndTurn => "end_turn",
        AnswerStop::ToolUse => "tool_use",
        AnswerStop::MaxTokens => "max_tokens",
        AnswerStop::Refusal => "refusal",
        AnswerStop::Pause => "pause",
    }
}
