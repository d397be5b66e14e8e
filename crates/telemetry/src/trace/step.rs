//! One step while it is open: its model calls, its tool calls, and what it waits for.

use super::spans;
use super::{Span, SpanKind, SpanStatus};
use crate::semconv;
use loopd_domain::chain::sha256_hex;
use loopd_domain::event::{Event, EventBody, Outcome, RequestOutcome, RunsIn, idempotency_key};
use loopd_domain::usage::{MicroUsd, Usage};
use loopd_domain::{CallId, SessionId, Timestamp};

#[derive(Debug, Clone)]
pub(super) struct OpenStep {
    pub(super) span: Span,
    session: SessionId,
    number: u32,
    answered: bool,
    /// Calls of the answer, by their place among the span's children.
    calls: Vec<(CallId, usize)>,
}

impl OpenStep {
    pub(super) fn begin(event: &Event, number: u32, turn: &Span, session: &SessionId) -> Self {
        let name = format!("step {number}");
        let mut span = Span::open(SpanKind::Step, name, event.at, "step", event.id.as_str()).under(turn);
        span.set(semconv::LOOPD_STEP, number);
        OpenStep { span, session: session.clone(), number, answered: false, calls: Vec::new() }
    }

    /// Does a request of that step not belong to this one?
    pub(super) fn is_over(&self, number: u32) -> bool {
        self.answered || self.number != number
    }

    /// The open model call has ended. False when none is open.
    pub(super) fn answer(
        &mut self,
        event: &Event,
        outcome: &RequestOutcome,
        usage: &Usage,
        cost: Option<MicroUsd>,
    ) -> bool {
        let open = |s: &&mut Span| s.kind == SpanKind::ModelCall && s.end.is_none();
        let Some(call) = self.span.children.iter_mut().find(open) else { return false };
        spans::end_model_call(call, event);
        call.spend(usage, cost);
        self.answered = matches!(outcome, RequestOutcome::Answered { .. });
        // Calls stand in the journal before the end of the answer that asked for them; nothing can start before it.
        for (_, place) in &self.calls {
            self.span.children[*place].start = event.at;
        }
        true
    }

    /// What happens to a step besides its model calls.
    pub(super) fn apply(&mut self, event: &Event) {
        match &event.body {
            EventBody::AgentToolUse { .. }
            | EventBody::AgentMcpToolUse { .. }
            | EventBody::AgentCustomToolUse { .. } => {
                if let Some((name, _, _, intent)) = event.body.intent() {
                    self.calls.push((event.id.clone(), self.span.children.len()));
                    let mut span = spans::tool_call(event, name, intent).under(&self.span);
                    if intent.runs_in == RunsIn::Host {
                        let key = idempotency_key(&self.session, &event.id);
                        span.set(semconv::LOOPD_CALL_KEY_DIGEST, sha256_hex(key.as_bytes()));
                    }
                    self.span.children.push(span);
                }
            }
            EventBody::AgentToolResult { tool_use_id, outcome, is_error, duration_ms, .. }
            | EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, outcome, is_error, duration_ms, .. } => {
                self.result(tool_use_id, event.at, *outcome, *is_error, *duration_ms);
            }
            EventBody::UserCustomToolResult { custom_tool_use_id, is_error, .. } => {
                self.result(custom_tool_use_id, event.at, Outcome::Completed, *is_error, 0);
            }
            EventBody::UserToolConfirmation { tool_use_id, result, .. } => {
                if let Some(span) = self.call(tool_use_id) {
                    span.set(semconv::LOOPD_CALL_VERDICT, spans::verdict_name(*result));
                }
            }
            EventBody::StatusRescheduled { retry_at } => {
                self.wait(SpanKind::RetryWait, "wait for retry", event);
                if let Some(span) = self.span.children.last_mut() {
                    span.set(semconv::LOOPD_RETRY_AT, retry_at.to_string());
                }
            }
            EventBody::OutputRejected { message } => self.span.set(semconv::LOOPD_OUTPUT_REJECTED, message.as_str()),
            _ => {}
        }
    }

    fn call(&mut self, id: &CallId) -> Option<&mut Span> {
        let (_, place) = self.calls.iter().find(|(call, _)| call == id)?;
        self.span.children.get_mut(*place)
    }

    fn result(&mut self, id: &CallId, at: Timestamp, outcome: Outcome, is_error: bool, ran_ms: u64) {
        if let Some(span) = self.call(id) {
            spans::end_tool_call(span, at, outcome, is_error, ran_ms);
        }
    }

    pub(super) fn wait(&mut self, kind: SpanKind, name: &str, event: &Event) {
        let span = Span::open(kind, name, event.at, "wait", event.id.as_str()).under(&self.span);
        self.span.children.push(span);
    }

    pub(super) fn close_waits(&mut self, at: Timestamp, status: SpanStatus) {
        let waits = |s: &&mut Span| matches!(s.kind, SpanKind::ClientWait | SpanKind::RetryWait);
        self.span.children.iter_mut().filter(waits).for_each(|s| s.close(at, status));
    }

    /// As it is so far, with its children in the order of their start: a connection is told of when it has ended.
    pub(super) fn so_far(&self) -> Span {
        let mut span = self.span.clone();
        order(&mut span);
        span
    }

    /// A step ends with the last thing that it did, not when the next one begins.
    pub(super) fn end(mut self, at: Timestamp) -> Span {
        self.close_waits(at, SpanStatus::Interrupted);
        self.span.children.iter_mut().for_each(|s| s.close(at, SpanStatus::Interrupted));
        let end = self.span.children.iter().filter_map(|s| s.end).max().unwrap_or(at);
        let last = self.span.children.iter().rev().find(|s| s.kind == SpanKind::ModelCall);
        let status = match self.answered {
            true => SpanStatus::Ok,
            false => last.map_or(SpanStatus::Interrupted, |s| s.status),
        };
        self.span.close(end, status);
        order(&mut self.span);
        self.span
    }
}

fn order(span: &mut Span) {
    if span.children.iter().any(|s| s.kind == SpanKind::Connection) {
        span.children.sort_by_key(|s| s.start);
    }
}
