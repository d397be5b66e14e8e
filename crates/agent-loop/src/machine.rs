//! The machine: phases of one turn and what moves it from one to the next.
//!
//! ```text
//!   Asking ── answer with calls ──► Acting ── all settled ──► Asking
//!     │  ▲                            │  └── only the client can go on ──► Over(requires_action)
//!     │  └─ pause, repair, queue ─┐   │
//!     └── answer without calls ───┴─► Over
//!   Asking ── interrupt, time up ──► Over        Acting ── interrupt, time up ──► Ending ── running calls ended ──► Over
//! ```
//!
//! It owns the phase and the order of commands. What a call needs is [`crate::calls`]'s, what a turn may spend is
//! [`crate::limits`]'s, what the model is told is [`crate::messages`]'s.

use crate::calls::{Calls, Standing};
use crate::limits::Budget;
use crate::messages;
use crate::types::{Answer, Call, Command, Input, LoopConfig, Resume};
use loopd_domain::event::{AnswerStop, Outcome};
use loopd_domain::session::{LimitName, StopDetails, StopReason};
use loopd_domain::{CallId, EventId, Timestamp};

/// One turn of one session.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentLoop {
    config: LoopConfig,
    budget: Budget,
    /// Accepted inputs that no step has taken up, oldest first.
    queued: Vec<EventId>,
    calls: Calls,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// The model is asked. `after_results`: the last thing it was told is what its calls came to.
    Asking {
        after_results: bool,
    },
    /// Calls of the last answer run, or wait.
    Acting,
    /// The turn will end for this reason as soon as the running calls have ended.
    Ending(StopReason),
    Over,
}

impl AgentLoop {
    /// Takes a turn up where it stands, and says what is to be done first.
    pub fn resume(config: LoopConfig, resume: Resume, now: Timestamp) -> (Self, Vec<Command>) {
        let budget = Budget::of(&resume);
        let Resume { calls, queued, answered, .. } = resume;
        let acts = !calls.is_empty();
        let mut machine = AgentLoop { config, budget, queued, calls: Calls::new(calls, false), phase: Phase::Acting };
        let commands = match answered {
            Some(answer) if !acts => machine.finish(now, &answer, false),
            _ if acts => machine.act(now),
            _ => machine.ask(now, None, false),
        };
        (machine, commands)
    }

    /// What follows from `input`. After `Command::EndTurn` the machine answers nothing more.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Command> {
        match input {
            Input::Answered { answer } => self.answered(now, answer),
            Input::ModelFailed => match self.phase {
                Phase::Asking { .. } => self.end(StopReason::RetriesExhausted, None),
                _ => Vec::new(),
            },
            Input::CallDone { id } => match self.calls.settle(&id) {
                true => self.go_on(now),
                false => Vec::new(),
            },
            Input::Verdict { id, verdict, deny_message } => match self.phase {
                Phase::Acting if self.calls.decide(&id, verdict, deny_message) => self.go_on(now),
                _ => Vec::new(),
            },
            Input::Queued { id } => {
                if !matches!(self.phase, Phase::Over) && !self.queued.contains(&id) {
                    self.queued.push(id);
                }
                Vec::new()
            }
            Input::Interrupt => self.wind_up(StopReason::EndTurn, messages::INTERRUPTED),
            Input::TimeUp => self.wind_up(StopReason::LimitReached { limit: LimitName::Seconds }, messages::TIME_UP),
        }
    }

    /// A call of the current step.
    pub fn call(&self, id: &CallId) -> Option<&Call> {
        self.calls.get(id)
    }

    fn answered(&mut self, now: Timestamp, answer: Answer) -> Vec<Command> {
        let Phase::Asking { after_results } = self.phase else { return Vec::new() };
        self.budget.add(&answer);
        if answer.calls.is_empty() {
            return self.finish(now, &answer, after_results);
        }
        self.calls = Calls::new(answer.calls, answer.stop == AnswerStop::MaxTokens);
        self.phase = Phase::Acting;
        if answer.stop == AnswerStop::Refusal {
            let mut commands = self.calls.stop(Outcome::NotRun, messages::REFUSED);
            commands.append(&mut self.end(StopReason::Refusal, answer.stop_details));
            return commands;
        }
        self.act(now)
    }

    /// A call moved.
    fn go_on(&mut self, now: Timestamp) -> Vec<Command> {
        match &self.phase {
            Phase::Acting => self.act(now),
            Phase::Ending(reason) if self.calls.all_settled() => {
                let reason = reason.clone();
                self.end(reason, None)
            }
            Phase::Ending(_) | Phase::Asking { .. } | Phase::Over => Vec::new(),
        }
    }

    /// Refuses, starts and waits for calls, until the step is done or stands still.
    fn act(&mut self, now: Timestamp) -> Vec<Command> {
        let mut commands = self.calls.advance(&self.config);
        match self.calls.standing() {
            Standing::Running => {}
            Standing::Settled => commands.append(&mut self.ask(now, None, true)),
            Standing::Waiting(event_ids) => {
                commands.append(&mut self.end(StopReason::RequiresAction { event_ids }, None));
            }
        }
        commands
    }

    /// An answer that asked for nothing: the turn is over, unless there is more to say to the model.
    fn finish(&mut self, now: Timestamp, answer: &Answer, after_results: bool) -> Vec<Command> {
        match answer.stop {
            AnswerStop::Refusal => self.end(StopReason::Refusal, answer.stop_details.clone()),
            AnswerStop::MaxTokens => self.end(StopReason::LimitReached { limit: LimitName::MaxTokens }, None),
            AnswerStop::Pause => self.ask_on(now),
            AnswerStop::EndTurn | AnswerStop::ToolUse => self.conclude(now, answer, after_results),
        }
    }

    /// An answer that the model holds to be final.
    fn conclude(&mut self, now: Timestamp, answer: &Answer, after_results: bool) -> Vec<Command> {
        let may_repair = self.budget.repairs < self.config.output_repairs_max;
        if let Some(error) = &answer.output_error {
            return match may_repair {
                true => self.ask(now, Some(messages::output_rejected(error)), false),
                false => self.end(StopReason::LimitReached { limit: LimitName::OutputSchema }, None),
            };
        }
        if !self.queued.is_empty() {
            return self.ask(now, None, false);
        }
        if !answer.has_text && after_results && may_repair {
            return self.ask(now, Some(messages::EMPTY_ANSWER.to_owned()), false);
        }
        self.end(StopReason::EndTurn, None)
    }

    /// The next step, with everything that waits to be taken up; or the end, when the turn may spend no more.
    fn ask(&mut self, now: Timestamp, repair: Option<String>, after_results: bool) -> Vec<Command> {
        if let Some(limit) = self.budget.reached(now) {
            return self.end(StopReason::LimitReached { limit }, None);
        }
        self.budget.repairs += u32::from(repair.is_some());
        self.phase = Phase::Asking { after_results };
        let take = std::mem::take(&mut self.queued);
        vec![Command::CallModel { step: self.budget.steps.saturating_add(1), take, repair }]
    }

    /// The next step after a pause. Takes nothing up: the provider wants its own words back as the last ones.
    fn ask_on(&mut self, now: Timestamp) -> Vec<Command> {
        let queued = std::mem::take(&mut self.queued);
        let commands = self.ask(now, None, false);
        self.queued = queued;
        commands
    }

    /// Ends the turn as soon as what runs has ended.
    fn wind_up(&mut self, reason: StopReason, message: &str) -> Vec<Command> {
        match self.phase {
            Phase::Ending(_) | Phase::Over => Vec::new(),
            Phase::Asking { .. } => {
                let mut commands = vec![Command::CancelModel];
                commands.append(&mut self.end(reason, None));
                commands
            }
            Phase::Acting => {
                let mut commands = self.calls.stop(Outcome::Interrupted, message);
                match self.calls.all_settled() {
                    true => commands.append(&mut self.end(reason, None)),
                    false => self.phase = Phase::Ending(reason),
                }
                commands
            }
        }
    }

    fn end(&mut self, reason: StopReason, details: Option<StopDetails>) -> Vec<Command> {
        self.phase = Phase::Over;
        vec![Command::EndTurn { reason, details }]
    }
}
