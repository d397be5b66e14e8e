//! Random worlds for a host: what may happen to it, the usual more often than the rare, and an end in kindness.
#![allow(dead_code, reason = "each test program uses its part")]

use crate::desk::{answer, asks, client, hosted, room};
use crate::host::Host;
use loopd_agent_loop::{Answer, Call};
use loopd_domain::event::{AnswerStop, Permission, RunsIn, Verdict};
use loopd_domain::session::TurnLimits;
use loopd_domain::usage::MicroUsd;
use proptest::prelude::*;

/// More than any turn below needs to end once the world has become kind.
const DRAIN_MAX: usize = 600;
/// What an answer says that is not of the output schema.
pub const NOT_JSON: &str = "not JSON";

/// Random bytes that run out; what happens then is the kindest thing.
pub struct Chance<'a>(pub std::slice::Iter<'a, u8>);

impl Chance<'_> {
    pub fn of(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |b| usize::from(*b) % n)
    }
}

/// Something that may happen now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Turn {
    Answer,
    AttemptFails,
    ModelFails,
    CallDone,
    ClientActs,
    Say,
    Interrupt,
    TimeUp,
    Crash,
}

/// What may happen to the host as it is, the usual more often than the rare.
pub fn possible(host: &Host) -> Vec<Turn> {
    let mut list = Vec::new();
    if host.is_asking() {
        list.extend([Turn::Answer, Turn::Answer, Turn::Answer, Turn::Answer, Turn::AttemptFails, Turn::ModelFails]);
    }
    if !host.running.is_empty() {
        list.extend([Turn::CallDone; 5]);
    }
    if !host.fold.waiting().is_empty() && !host.is_asking() {
        list.extend([Turn::ClientActs; 3]);
    }
    list.push(Turn::Say);
    if host.fold.turn.is_some() {
        list.extend([Turn::Interrupt, Turn::Crash, Turn::TimeUp]);
    }
    list
}

pub fn happen(host: &mut Host, turn: Turn, chance: &mut Chance<'_>) {
    match turn {
        Turn::Answer => {
            let shape = shape(chance);
            host.answer(shape, chance.of(5) != 4);
        }
        Turn::AttemptFails => host.attempt_fails(),
        Turn::ModelFails => host.model_fails(),
        Turn::CallDone => {
            let id = host.running[chance.of(host.running.len())].clone();
            host.call_done(id);
        }
        Turn::ClientActs => {
            let waiting: Vec<_> = host.open_calls().into_iter().filter(|c| c.waits_for_client()).collect();
            let call = &waiting[chance.of(waiting.len())];
            host.client_acts(call, [Verdict::Allow, Verdict::Deny][chance.of(2)]);
        }
        Turn::Say => host.say(),
        Turn::Interrupt => host.interrupt(),
        Turn::TimeUp => host.time_up(),
        Turn::Crash => host.crash(chance.of(2) == 1),
    }
}

/// An answer of any kind; with no chance left, a plain final one.
fn shape(chance: &mut Chance<'_>) -> Answer {
    use AnswerStop::*;
    let calls: Vec<Call> = (0..chance.of(7)).map(|_| call(chance)).collect();
    let stop = [EndTurn, ToolUse, EndTurn, ToolUse, MaxTokens, Refusal, Pause][chance.of(7)];
    let output_error = (chance.of(4) == 3 && calls.is_empty()).then(|| NOT_JSON.to_owned());
    Answer {
        has_text: output_error.is_some() || chance.of(3) != 2,
        output_error,
        cost: (chance.of(9) != 8).then_some(MicroUsd(100)),
        ..answer(stop, calls)
    }
}

fn call(chance: &mut Chance<'_>) -> Call {
    match chance.of(12) {
        0..=2 => room(0),
        9 | 10 => hosted(0),
        11 => Call { permission: Permission::Ask, ..hosted(0) },
        3 => client(0),
        4 => asks(0),
        5 => Call { permission: Permission::Deny, ..room(0) },
        6 => Call { runs_in: RunsIn::Nowhere, name: "bsh".to_owned(), ..room(0) },
        7 => Call {
            malformed: Some("not an object".to_owned()),
            ..[room(0), client(0), asks(0), hosted(0)][chance.of(4)].clone()
        },
        _ => Call { permission: Permission::Ask, ..client(0) },
    }
}

/// The world becomes kind: the model answers plainly, calls end, the client answers, nobody says more.
pub fn drain(host: &mut Host) {
    let mut none = Chance([].iter());
    for _ in 0..DRAIN_MAX {
        let kind = [Turn::Answer, Turn::CallDone, Turn::ClientActs];
        match possible(host).into_iter().find(|t| kind.contains(t)) {
            Some(turn) => happen(host, turn, &mut none),
            None => return,
        }
    }
    panic!("no end after {DRAIN_MAX} kind turns of the world: {:?}", host.fold);
}

pub fn limits() -> impl Strategy<Value = TurnLimits> {
    let cost = prop_oneof![Just(None), (1u64..3_000).prop_map(Some)];
    (1u32..20, 1u64..200, 1u64..100, cost).prop_map(|(steps, output_tokens, seconds, cost_micro_usd)| TurnLimits {
        steps,
        output_tokens,
        seconds,
        cost_micro_usd,
    })
}
