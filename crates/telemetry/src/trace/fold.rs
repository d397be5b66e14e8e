//! Journal → spans, event by event.
//!
//! Open spans are held apart (turn, step); their children are in place already. [`TraceFold::trace`] may be asked at any
//! point of the journal, and what is under way is then open. Events that fit nowhere change nothing: legality is
//! `domain::fold`'s business.

use super::ids::{self, Caller};
use super::spans;
use super::step::OpenStep;
use super::{Span, SpanKind, SpanStatus, Trace};
use crate::semconv;
use loopd_domain::environment::{Accelerator, Isolation};
use loopd_domain::event::{Event, EventBody, RetryStatus};
use loopd_domain::network::Connection;
use loopd_domain::session::{StopReason, TurnSettings};
use loopd_domain::{EventId, SessionId, ThreadId, Timestamp};

/// A session's trace as it grows.
#[derive(Debug, Clone)]
pub struct TraceFold {
    session: SessionId,
    /// With the turns that are over.
    root: Span,
    turn: Option<OpenTurn>,
    agent_name: Option<String>,
    /// Of the room that the session has had last, where they are not namespaces.
    walls: Option<(Isolation, Option<Accelerator>)>,
    /// Inputs that wait, and since when.
    queued: Vec<(EventId, Timestamp)>,
    /// Longest wait of the inputs that the next step takes up.
    queue_waited_ms: Option<u64>,
}

#[derive(Debug, Clone)]
struct OpenTurn {
    /// With the steps that are over.
    span: Span,
    step: Option<OpenStep>,
    interrupted: bool,
}

impl TraceFold {
    pub fn new(session: &SessionId) -> Self {
        let mut root = Span::open(SpanKind::Session, "session", Timestamp::default(), "session", session.as_str());
        root.trace_id = ids::trace_id(session);
        root.set(semconv::CONVERSATION_ID, session.as_str());
        let session = session.clone();
        TraceFold {
            session,
            root,
            turn: None,
            agent_name: None,
            walls: None,
            queued: Vec::new(),
            queue_waited_ms: None,
        }
    }

    /// What is known so far.
    pub fn trace(&self) -> Trace {
        let mut root = self.root.clone();
        if let Some(turn) = &self.turn {
            let mut span = turn.span.clone();
            span.children.extend(turn.step.iter().map(OpenStep::so_far));
            root.children.push(span);
        }
        if !self.queued.is_empty() {
            root.set(semconv::LOOPD_QUEUE_LENGTH, self.queued.len());
        }
        Trace {
            session_id: self.session.clone(),
            trace_id: root.trace_id.clone(),
            semconv: semconv::VERSION.to_owned(),
            root,
        }
    }

    pub fn apply(&mut self, event: &Event) {
        if event.seq <= 1 {
            self.root.start = event.at;
        }
        match &event.body {
            EventBody::InputQueued { input } => self.queued.push((input.id.clone(), event.at)),
            EventBody::UserMessage { .. } | EventBody::SystemMessage { .. } => self.take_up(event),
            EventBody::UserInterrupt { .. } => {
                self.take_up(event);
                if let Some(turn) = &mut self.turn {
                    turn.interrupted = true;
                }
            }
            EventBody::ThreadStatusRunning { session_thread_id, agent_name }
                if *session_thread_id == ThreadId::primary(&self.session) =>
            {
                self.agent_name = Some(agent_name.clone());
                self.name_turn();
            }
            EventBody::StatusRunning { turn, settings } => self.run(event, *turn, settings),
            EventBody::StatusIdle { stop_reason, .. } => self.rest(event, stop_reason),
            EventBody::StatusTerminated { reason } => self.terminate(event.at, reason),
            EventBody::RoomStarted { isolation, accelerator, waited_ms, woken } => {
                self.walls = Some((*isolation, *accelerator));
                self.name_walls();
                if let Some(turn) = &mut self.turn {
                    let before = turn.span.attributes.get(semconv::LOOPD_SANDBOX_WAITED_MS).and_then(|v| v.as_u64());
                    turn.span.set(semconv::LOOPD_SANDBOX_WAITED_MS, before.unwrap_or(0).max(*waited_ms));
                    if *woken {
                        turn.span.set(semconv::LOOPD_SANDBOX_WOKEN, true);
                    }
                }
            }
            EventBody::NetworkConnection { connection } => self.connect(event, connection),
            EventBody::NetworkConnectionsOmitted { count } => self.omit_connections(*count),
            _ => self.apply_to_turn(event),
        }
    }

    fn apply_to_turn(&mut self, event: &Event) {
        match &event.body {
            EventBody::ModelRequestStart { step, .. } => self.ask(event, *step),
            EventBody::ModelRequestEnd { .. } => self.answer(event),
            // What will be tried again shows as the attempt that failed.
            EventBody::SessionError { error } if error.retry_status != RetryStatus::Retrying => {
                if let Some(turn) = &mut self.turn {
                    turn.span.set(semconv::ERROR_TYPE, error.kind.as_str());
                    turn.span.message = Some(error.message.clone());
                }
            }
            EventBody::SessionRecovered { message, .. } => self.recover(event, message),
            _ => {
                if let Some(step) = self.turn.as_mut().and_then(|t| t.step.as_mut()) {
                    step.apply(event);
                }
            }
        }
    }

    fn take_up(&mut self, event: &Event) {
        if let Some(place) = self.queued.iter().position(|(id, _)| *id == event.id) {
            let (_, since) = self.queued.remove(place);
            self.queue_waited_ms = self.queue_waited_ms.max(Some(event.at.since_ms(since)));
        }
    }

    fn run(&mut self, event: &Event, number: u32, settings: &TurnSettings) {
        if let Some(turn) = &mut self.turn {
            if let Some(step) = &mut turn.step {
                step.close_waits(event.at, SpanStatus::Ok);
            }
            return;
        }
        let source = event.id.as_str();
        let mut span = Span::open(SpanKind::Turn, semconv::OPERATION_INVOKE_AGENT, event.at, "turn", source);
        span = span.under(&self.root);
        if let Some(caller) = settings.traceparent.as_deref().and_then(Caller::parse) {
            span.trace_id = caller.trace_id;
            span.parent_span_id = Some(caller.span_id);
        }
        span.set(semconv::OPERATION_NAME, semconv::OPERATION_INVOKE_AGENT);
        span.set(semconv::CONVERSATION_ID, self.session.as_str());
        span.set(semconv::LOOPD_TURN, number);
        self.turn = Some(OpenTurn { span, step: None, interrupted: false });
        self.name_turn();
        self.name_walls();
    }

    fn name_walls(&mut self) {
        let Some((isolation, accelerator)) = self.walls else { return };
        let turn = self.turn.as_mut().map(|turn| &mut turn.span);
        for span in turn.into_iter().chain([&mut self.root]) {
            span.set(semconv::LOOPD_SANDBOX_ISOLATION, isolation.as_str());
            if let Some(accelerator) = accelerator {
                span.set(semconv::LOOPD_SANDBOX_ACCELERATOR, accelerator.as_str());
            }
        }
    }

    fn name_turn(&mut self) {
        if let (Some(turn), Some(name)) = (&mut self.turn, &self.agent_name) {
            turn.span.name = format!("{} {name}", semconv::OPERATION_INVOKE_AGENT);
            turn.span.set(semconv::AGENT_NAME, name.as_str());
        }
    }

    fn ask(&mut self, event: &Event, number: u32) {
        let Some(turn) = &mut self.turn else { return };
        if turn.step.as_ref().is_some_and(|s| s.is_over(number)) {
            turn.end_step(event.at);
        }
        let step = turn.step.get_or_insert_with(|| OpenStep::begin(event, number, &turn.span, &self.session));
        if let Some(ms) = self.queue_waited_ms.take() {
            step.span.set(semconv::LOOPD_QUEUE_WAITED_MS, ms);
        }
        step.close_waits(event.at, SpanStatus::Ok);
        if let Some(mut call) = spans::model_call(event) {
            call.set(semconv::CONVERSATION_ID, self.session.as_str());
            step.span.children.push(call.under(&step.span));
        }
    }

    fn answer(&mut self, event: &Event) {
        let EventBody::ModelRequestEnd { model_usage, cost, outcome, .. } = &event.body else { return };
        let Some(turn) = &mut self.turn else { return };
        let Some(step) = &mut turn.step else { return };
        if step.answer(event, outcome, model_usage, *cost) {
            for span in [&mut step.span, &mut turn.span, &mut self.root] {
                span.spend(model_usage, *cost);
            }
        }
    }

    fn rest(&mut self, event: &Event, reason: &StopReason) {
        let Some(turn) = &mut self.turn else { return };
        if let StopReason::RequiresAction { .. } = reason {
            if let Some(step) = &mut turn.step {
                step.wait(SpanKind::ClientWait, "wait for client", event);
            }
            return;
        }
        turn.span.set(semconv::LOOPD_STOP_REASON, spans::stop_reason_name(reason));
        let status = match reason {
            StopReason::RetriesExhausted => SpanStatus::Error,
            _ if turn.interrupted => SpanStatus::Interrupted,
            _ => SpanStatus::Ok,
        };
        self.end_turn(event.at, status);
    }

    fn recover(&mut self, event: &Event, message: &str) {
        let Some(turn) = &mut self.turn else { return };
        let parent = turn.step.as_mut().map_or(&mut turn.span, |s| &mut s.span);
        let mut span = Span::open(SpanKind::Recovery, "recovery", event.at, "recovery", event.id.as_str());
        span.message = Some(message.to_owned());
        span.close(event.at, SpanStatus::Ok);
        parent.children.push(span.under(parent));
    }

    /// A connection belongs to the step in which it was begun, which may be over when the journal tells of it.
    fn connect(&mut self, event: &Event, connection: &Connection) {
        let span = spans::connection(event, connection);
        let began = span.start;
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.span.start <= began) {
            if let Some(step) = turn.step.as_mut().filter(|step| step.span.start <= began) {
                let span = span.under(&step.span);
                step.span.children.push(span);
                return;
            }
            return insert(&mut turn.span, span);
        }
        let held = |turn: &&mut Span| turn.start <= began && turn.end.is_some_and(|end| began <= end);
        let turns = self.root.children.iter_mut().rev().filter(|s| s.kind == SpanKind::Turn);
        match turns.into_iter().find(held) {
            Some(turn) => insert(turn, span),
            // Of a process that lived on between two turns.
            None => place(&mut self.root, span),
        }
    }

    fn omit_connections(&mut self, count: u64) {
        let last = self.root.children.iter_mut().rev().find(|s| s.kind == SpanKind::Turn);
        let span = match (&mut self.turn, last) {
            (Some(turn), _) => &mut turn.span,
            (None, Some(turn)) => turn,
            (None, None) => &mut self.root,
        };
        let before = span.attributes.get(semconv::LOOPD_NETWORK_OMITTED).and_then(|v| v.as_u64()).unwrap_or(0);
        span.set(semconv::LOOPD_NETWORK_OMITTED, before.saturating_add(count));
    }

    fn terminate(&mut self, at: Timestamp, reason: &str) {
        self.end_turn(at, SpanStatus::Interrupted);
        self.queued.clear();
        self.root.message = Some(reason.to_owned());
        self.root.close(at, SpanStatus::Ok);
    }

    fn end_turn(&mut self, at: Timestamp, status: SpanStatus) {
        if let Some(mut turn) = self.turn.take() {
            turn.end_step(at);
            turn.span.close(at, status);
            self.root.children.push(turn.span);
        }
    }
}

/// Into the step of the turn that was open then.
fn insert(turn: &mut Span, span: Span) {
    let steps = turn.children.iter_mut().rev().filter(|s| s.kind == SpanKind::Step);
    match steps.into_iter().find(|step| step.start <= span.start) {
        Some(step) => place(step, span),
        None => place(turn, span),
    }
}

/// Among the children, in the order of their start.
fn place(parent: &mut Span, span: Span) {
    let at = parent.children.partition_point(|s| s.start <= span.start);
    let span = span.under(parent);
    parent.children.insert(at, span);
}

impl OpenTurn {
    fn end_step(&mut self, at: Timestamp) {
        if let Some(step) = self.step.take() {
            self.span.children.push(step.end(at));
        }
    }
}
