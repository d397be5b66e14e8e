//! A host as the loop's neighbour: it keeps a journal, does what the loop commands, and lets the world happen to it.
//!
//! Whatever it writes must fold: an illegal history fails the test at the event that makes it so.

use loopd_agent_loop::{AgentLoop, Answer, Call, Command, Input, LoopConfig, Resume, messages};
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::{Block, Conversation, Role};
use loopd_domain::event::*;
use loopd_domain::fold::{OpenCall, SessionFold};
use loopd_domain::session::{Status, StopReason, TurnLimits, TurnSettings};
use loopd_domain::usage::{MicroUsd, Usage};
use loopd_domain::{CallId, EventId, Timestamp};
use serde_json::json;
use std::collections::BTreeSet;

pub struct Host {
    pub config: LoopConfig,
    pub settings: TurnSettings,
    pub fold: SessionFold,
    pub conversation: Conversation,
    /// All that was written, for those who look at it afterwards.
    pub journal: Vec<Event>,
    now: Timestamp,
    ids: u32,
    /// Dead after a crash, and while nothing is to be decided.
    machine: Option<AgentLoop>,
    /// Calls that run, in the room or on the host.
    pub running: Vec<CallId>,
    /// Every call that was ever started in this life of the room, to catch a second start.
    started: BTreeSet<CallId>,
    /// The last answer, as long as it asked for nothing and nothing followed it.
    answered: Option<Answer>,
    pub commands: usize,
}

impl Host {
    pub fn new(config: LoopConfig, limits: TurnLimits) -> Self {
        Host {
            config,
            settings: TurnSettings { limits, ..TurnSettings::default() },
            fold: SessionFold::default(),
            conversation: Conversation::default(),
            journal: Vec::new(),
            now: Timestamp::from_millis(1_000_000),
            ids: 0,
            machine: None,
            running: Vec::new(),
            started: BTreeSet::new(),
            answered: None,
            commands: 0,
        }
    }

    // ---- what the world does ----

    pub fn wait(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    pub fn is_asking(&self) -> bool {
        self.fold.turn.as_ref().is_some_and(|t| t.request.is_some())
    }

    pub fn open_calls(&self) -> Vec<OpenCall> {
        let calls = self.fold.turn.iter().flat_map(|t| &t.calls);
        calls.filter(|c| !c.settled).cloned().collect()
    }

    /// A user speaks. Starts a turn when the session is idle; else the input waits.
    pub fn say(&mut self) {
        let id = self.id();
        let body = Box::new(user_message());
        self.put(EventBody::InputQueued {
            input: QueuedInput { id: id.clone(), body, settings: self.settings.clone() },
        });
        match self.fold.turn.is_some() {
            true => self.deliver(Input::Queued { id }),
            false => self.begin(),
        }
    }

    /// The model answers; `shape` says what. `delivered` false: the host dies right after the commit.
    pub fn answer(&mut self, shape: Answer, delivered: bool) {
        let mut answer = shape;
        if answer.has_text {
            // What is wrong with an answer can be seen from its text.
            let text = answer.output_error.as_deref().unwrap_or("hm");
            self.put(EventBody::AgentMessage { content: vec![ContentBlock::text(text)], partial: false });
        }
        for call in &mut answer.calls {
            call.id = self.put(intent(call, self.ids));
        }
        let usage = Usage { output_tokens: answer.output_tokens, ..Usage::default() };
        self.end_request(RequestOutcome::Answered { stop: answer.stop, stop_details: None }, usage, answer.cost);
        self.answered = answer.calls.is_empty().then(|| answer.clone());
        match delivered {
            true => self.deliver(Input::Answered { answer }),
            false => self.crash(false),
        }
    }

    pub fn model_fails(&mut self) {
        let outcome =
            RequestOutcome::Failed { class: "server".to_owned(), message: "500".to_owned(), status: Some(500) };
        self.end_request(outcome, Usage::default(), Some(MicroUsd(0)));
        let (kind, message) = ("model_request_failed_error".to_owned(), "500".to_owned());
        self.put(EventBody::SessionError {
            error: SessionFault { kind, message, retry_status: RetryStatus::Exhausted, mcp_server_name: None },
        });
        self.deliver(Input::ModelFailed);
    }

    /// An attempt fails and the host tries again by itself; the loop is not told.
    pub fn attempt_fails(&mut self) {
        let request = self.fold.turn.as_ref().and_then(|t| t.request.clone()).expect("asking");
        let outcome =
            RequestOutcome::Failed { class: "server".to_owned(), message: "500".to_owned(), status: Some(500) };
        self.end_request(outcome, Usage::default(), Some(MicroUsd(0)));
        self.put(EventBody::StatusRescheduled { retry_at: self.now });
        self.start_request(request.step, request.attempt + 1);
    }

    pub fn call_done(&mut self, id: CallId) {
        self.running.retain(|r| r != &id);
        self.settle(&id, Outcome::Completed, "done");
        self.deliver(Input::CallDone { id });
    }

    /// The client gives its word, or the result of its tool, whichever the call waits for.
    pub fn client_acts(&mut self, call: &OpenCall, verdict: Verdict) {
        let id = call.id.clone();
        let asks = call.permission == Permission::Ask && call.verdict.is_none();
        match asks {
            true => {
                let deny_message = (verdict == Verdict::Deny).then(|| "no".to_owned());
                self.put(EventBody::UserToolConfirmation {
                    tool_use_id: id.clone(),
                    result: verdict,
                    deny_message: deny_message.clone(),
                    arguments_digest: None,
                });
                self.deliver(Input::Verdict { id, verdict, deny_message });
            }
            false => {
                let content = vec![ContentBlock::text("42")];
                self.put(EventBody::UserCustomToolResult {
                    custom_tool_use_id: id.clone(),
                    content,
                    is_error: false,
                    arguments_digest: None,
                });
                self.deliver(Input::CallDone { id });
            }
        }
        if self.fold.is_waiting() && self.fold.needs_owner() {
            self.run_turn(self.fold.turns);
        }
    }

    pub fn interrupt(&mut self) {
        self.put(EventBody::UserInterrupt { session_thread_id: None });
        match self.machine.is_some() {
            true => self.deliver(Input::Interrupt),
            false => self.end_interrupted(),
        }
    }

    pub fn time_up(&mut self) {
        self.deliver(Input::TimeUp);
    }

    /// The host and the room are lost; another host takes over from the journal. Calls that ran are run again when they
    /// are safe to `repeat`; else nobody can know what became of them.
    pub fn crash(&mut self, repeat: bool) {
        self.machine = None;
        self.started.clear();
        if self.fold.turn.is_none() || self.fold.is_waiting() {
            return;
        }
        self.put(EventBody::SessionRecovered {
            message: "owner lost".to_owned(),
            recoveries: self.fold.recoveries + 1,
        });
        if self.is_asking() {
            self.end_request(RequestOutcome::Interrupted, Usage::default(), Some(MicroUsd(0)));
        }
        for id in std::mem::take(&mut self.running) {
            if !repeat {
                self.settle(&id, Outcome::Unknown, "nobody knows");
            }
        }
        match self.fold.turn.as_ref().is_some_and(|t| t.interrupted) {
            true => self.end_interrupted(),
            false => self.resume(),
        }
    }

    // ---- what the host does about it ----

    fn begin(&mut self) {
        self.run_turn(self.fold.turns + 1);
    }

    fn run_turn(&mut self, turn: u32) {
        self.put(EventBody::StatusRunning { turn, settings: self.settings.clone() });
        self.resume();
    }

    fn resume(&mut self) {
        let (machine, commands) = AgentLoop::resume(self.config.clone(), self.folded(), self.now);
        self.machine = Some(machine);
        self.obey(commands);
    }

    /// Where the turn stands, from the fold alone (and the last answer, which the journal holds too).
    fn folded(&self) -> Resume {
        let turn = self.fold.turn.as_ref().expect("a turn is open");
        let call = |c: &OpenCall| Call {
            id: c.id.clone(),
            name: c.name.clone(),
            input: json!({}),
            runs_in: c.runs_in,
            permission: c.permission,
            malformed: c.malformed.clone(),
            verdict: c.verdict,
            deny_message: c.deny_message.clone(),
            settled: c.settled,
        };
        Resume {
            limits: turn.settings.limits.clone(),
            started_at: turn.counts_from(),
            steps: turn.steps,
            output_tokens: turn.output_tokens,
            cost: turn.cost,
            output_rejections: turn.output_rejections,
            calls: turn.calls.iter().map(call).collect(),
            queued: self.fold.queued.iter().map(|q| q.id.clone()).collect(),
            answered: self.answered.clone(),
        }
    }

    fn deliver(&mut self, input: Input) {
        if let Some(machine) = &mut self.machine {
            let commands = machine.step(self.now, input);
            self.obey(commands);
        }
    }

    fn obey(&mut self, commands: Vec<Command>) {
        self.commands += commands.len();
        for command in commands {
            assert!(self.machine.is_some(), "a command after the end of the turn: {command:?}");
            match command {
                Command::CallModel { step, take, repair } => self.call_model(step, take, repair),
                Command::CancelModel => {
                    self.end_request(RequestOutcome::Interrupted, Usage::default(), Some(MicroUsd(0)))
                }
                Command::RunTool { id } => self.run_tool(id),
                Command::CancelTool { id } => assert!(self.running.contains(&id), "{id} does not run"),
                Command::Settle { id, outcome, message } => {
                    assert!(!message.is_empty() && matches!(outcome, Outcome::NotRun | Outcome::Interrupted));
                    assert!(!self.running.contains(&id), "{id} runs");
                    self.settle(&id, outcome, &message);
                }
                Command::EndTurn { reason, details } => self.end_turn(reason, details),
            }
        }
        let (running, bound) = (self.running.len(), self.config.parallel_max);
        assert!(running <= bound, "{running} calls run; at most {bound} may");
    }

    fn call_model(&mut self, step: u32, take: Vec<EventId>, repair: Option<String>) {
        let paused = self.answered.as_ref().is_some_and(|a| a.stop == AnswerStop::Pause);
        let queued: Vec<EventId> = self.fold.queued.iter().map(|q| q.id.clone()).collect();
        assert!(take == queued || (paused && take.is_empty()), "takes {take:?} of {queued:?}");
        let repairs = self.fold.turn.as_ref().map_or(0, |t| t.output_rejections);
        if let Some(message) = repair {
            assert!(repairs < self.config.output_repairs_max, "asked again too often");
            self.put(EventBody::OutputRejected { message });
        }
        for id in take {
            self.put_as(id, user_message());
        }
        self.start_request(step, 1);
    }

    fn start_request(&mut self, step: u32, attempt: u32) {
        self.answered = None;
        self.check_conversation();
        self.put(EventBody::ModelRequestStart {
            step,
            attempt,
            model: "builtin/script".to_owned(),
            request_digest: String::new(),
            messages: 0,
        });
    }

    fn run_tool(&mut self, id: CallId) {
        let call = self.open_calls().into_iter().find(|c| c.id == id).expect("an open call");
        assert!(matches!(call.runs_in, RunsIn::Room | RunsIn::Host) && call.malformed.is_none());
        assert!(call.permission == Permission::Allow || call.verdict == Some(Verdict::Allow), "not allowed: {call:?}");
        assert!(self.started.insert(id.clone()), "{id} was started twice");
        self.running.push(id);
    }

    fn end_turn(&mut self, reason: StopReason, stop_details: Option<loopd_domain::session::StopDetails>) {
        if let StopReason::RequiresAction { event_ids } = &reason {
            assert_eq!(event_ids, &self.fold.waiting(), "all that waits, in call order");
        }
        self.machine = None;
        self.put(EventBody::StatusIdle { stop_reason: reason, stop_details });
        self.after_turn();
    }

    /// An interrupt of a turn that has no machine: what is open gets the interrupt's result, and the turn is over.
    fn end_interrupted(&mut self) {
        if self.fold.turn.is_none() {
            return;
        }
        for call in self.open_calls() {
            self.settle(&call.id, Outcome::Interrupted, messages::INTERRUPTED);
        }
        self.put(EventBody::StatusIdle { stop_reason: StopReason::EndTurn, stop_details: None });
        self.after_turn();
    }

    fn after_turn(&mut self) {
        self.answered = None;
        self.started.clear();
        self.check_conversation();
        if self.fold.status == Status::Idle && self.fold.turn.is_none() && !self.fold.queued.is_empty() {
            self.begin();
        }
    }

    fn end_request(&mut self, outcome: RequestOutcome, model_usage: Usage, cost: Option<MicroUsd>) {
        let request = self.fold.turn.as_ref().and_then(|t| t.request.clone()).expect("a request is under way");
        self.put(EventBody::ModelRequestEnd {
            model_request_start_id: request.id,
            is_error: matches!(outcome, RequestOutcome::Failed { .. }),
            model_usage,
            outcome,
            cost,
            first_token_ms: None,
            provider_request_id: None,
            response_model: None,
        });
    }

    fn settle(&mut self, id: &CallId, outcome: Outcome, message: &str) {
        self.put(EventBody::AgentToolResult {
            tool_use_id: id.clone(),
            content: vec![ContentBlock::text(message)],
            is_error: outcome != Outcome::Completed,
            outcome,
            duration_ms: 0,
        });
    }

    fn id(&mut self) -> EventId {
        self.ids += 1;
        EventId::parse("id", &format!("sevt_{:026}", self.ids)).expect("well formed")
    }

    fn put(&mut self, body: EventBody) -> EventId {
        let id = self.id();
        self.put_as(id.clone(), body);
        id
    }

    fn put_as(&mut self, id: EventId, body: EventBody) {
        let event = Event { seq: self.fold.last_seq + 1, id, at: self.now, body };
        self.fold.apply(&event).unwrap_or_else(|fault| panic!("illegal history: {fault}: {:?}", event.body));
        self.conversation.apply(&event);
        self.journal.push(event);
    }

    /// Every call of an answer has exactly one result, in the message that follows, in call order; nothing else has.
    fn check_conversation(&self) {
        if self.fold.is_waiting() {
            return;
        }
        let mut asked: Vec<String> = Vec::new();
        for message in self.conversation.messages() {
            let names = |pick: fn(&Block) -> Option<&String>| message.blocks.iter().filter_map(pick).cloned().collect();
            let results: Vec<String> = names(|b| match b {
                Block::ToolResult { provider_call_id, .. } => Some(provider_call_id),
                _ => None,
            });
            assert_eq!(results, asked, "results of the calls that were just asked, in order");
            asked = names(|b| match b {
                Block::ToolUse { provider_call_id, .. } => Some(provider_call_id),
                _ => None,
            });
            assert!(asked.is_empty() || message.role == Role::Assistant);
        }
        assert!(asked.is_empty(), "calls without results: {asked:?}");
    }
}

fn user_message() -> EventBody {
    EventBody::UserMessage { content: vec![ContentBlock::text("go on")] }
}

fn intent(call: &Call, n: u32) -> EventBody {
    let intent = Intent {
        provider_call_id: format!("call_{n}"),
        runs_in: call.runs_in,
        effect: EffectClass::Room,
        arguments_digest: String::new(),
        malformed: call.malformed.clone(),
        raw_arguments: None,
        native: None,
    };
    let (name, input) = (call.name.clone(), json!({}));
    match call.runs_in == RunsIn::Client && call.permission == Permission::Allow {
        true => EventBody::AgentCustomToolUse { name, input, call: intent },
        false => EventBody::AgentToolUse { name, input, evaluated_permission: call.permission, call: intent },
    }
}
