//! Shorthand for what goes in and out of the loop.
#![allow(dead_code, reason = "each test program uses its part")]

use loopd_agent_loop::{Answer, Call, Command, Input, LoopConfig, Resume};
use loopd_domain::event::{AnswerStop, Outcome, Permission, RunsIn, Verdict};
use loopd_domain::session::{LimitName, StopReason, TurnLimits};
use loopd_domain::usage::MicroUsd;
use loopd_domain::{EventId, Timestamp};

pub const START: Timestamp = Timestamp(1_000_000_000);

pub fn id(n: u32) -> EventId {
    EventId::parse("id", &format!("sevt_{n:026}")).expect("well formed")
}

pub fn config() -> LoopConfig {
    LoopConfig {
        tools: vec!["bash".to_owned(), "read".to_owned()],
        parallel_max: 2,
        calls_max: 4,
        output_repairs_max: 2,
    }
}

pub fn new_turn() -> Resume {
    Resume {
        limits: TurnLimits::default(),
        started_at: START,
        steps: 0,
        output_tokens: 0,
        cost: Some(MicroUsd(0)),
        output_rejections: 0,
        calls: Vec::new(),
        queued: Vec::new(),
        answered: None,
    }
}

/// A call in the room that may run at once.
pub fn room(n: u32) -> Call {
    Call {
        id: id(n),
        name: "bash".to_owned(),
        input: serde_json::json!({"command": "ls"}),
        runs_in: RunsIn::Room,
        permission: Permission::Allow,
        malformed: None,
        verdict: None,
        deny_message: None,
        settled: false,
    }
}

/// A call that the host runs and that may run at once.
pub fn hosted(n: u32) -> Call {
    Call { name: "book".to_owned(), runs_in: RunsIn::Host, ..room(n) }
}

pub fn client(n: u32) -> Call {
    Call { name: "lookup".to_owned(), runs_in: RunsIn::Client, ..room(n) }
}

/// A call in the room that needs the client's word.
pub fn asks(n: u32) -> Call {
    Call { permission: Permission::Ask, ..room(n) }
}

pub fn settled(call: Call) -> Call {
    Call { settled: true, ..call }
}

pub fn answer(stop: AnswerStop, calls: Vec<Call>) -> Answer {
    Answer {
        stop,
        has_text: calls.is_empty(),
        calls,
        output_tokens: 10,
        cost: Some(MicroUsd(100)),
        stop_details: None,
        output_error: None,
    }
}

pub fn calls(calls: Vec<Call>) -> Input {
    Input::Answered { answer: answer(AnswerStop::ToolUse, calls) }
}

pub fn says(stop: AnswerStop) -> Input {
    Input::Answered { answer: answer(stop, Vec::new()) }
}

pub fn empty() -> Input {
    Input::Answered { answer: Answer { has_text: false, ..answer(AnswerStop::EndTurn, Vec::new()) } }
}

pub fn not_of_schema() -> Input {
    let output_error = Some("`age` is missing".to_owned());
    Input::Answered { answer: Answer { output_error, ..answer(AnswerStop::EndTurn, Vec::new()) } }
}

pub fn done(n: u32) -> Input {
    Input::CallDone { id: id(n) }
}

pub fn verdict(n: u32, verdict: Verdict) -> Input {
    Input::Verdict { id: id(n), verdict, deny_message: None }
}

pub fn queue(n: u32) -> Input {
    Input::Queued { id: id(n) }
}

pub fn call_model(step: u32, take: &[u32]) -> Command {
    Command::CallModel { step, take: take.iter().map(|n| id(*n)).collect(), repair: None }
}

pub fn run(n: u32) -> Command {
    Command::RunTool { id: id(n) }
}

pub fn cancel(n: u32) -> Command {
    Command::CancelTool { id: id(n) }
}

pub fn end(reason: StopReason) -> Command {
    Command::EndTurn { reason, details: None }
}

pub fn limit(limit: LimitName) -> Command {
    end(StopReason::LimitReached { limit })
}

pub fn requires(ids: &[u32]) -> Command {
    end(StopReason::RequiresAction { event_ids: ids.iter().map(|n| id(*n)).collect() })
}

/// The message of a `Settle`, after checking the rest of it.
pub fn settle_text(command: &Command, n: u32, expected: Outcome) -> String {
    match command {
        Command::Settle { id: call, outcome, message } if *call == id(n) && *outcome == expected => message.clone(),
        other => panic!("not a settle of {n} as {expected:?}: {other:?}"),
    }
}
