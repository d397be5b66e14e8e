//! The loop against random worlds: whatever happens, and in whatever order, the journal is a legal history, every call has
//! one result in its place, and the turn comes to an end.

mod desk;
mod host;

use desk::{answer, asks, client, config, hosted, room};
use host::Host;
use loopd_agent_loop::{Answer, Call};
use loopd_domain::event::{AnswerStop, Permission, RunsIn, Verdict};
use loopd_domain::session::{Status, TurnLimits};
use loopd_domain::usage::MicroUsd;
use proptest::prelude::*;

/// More than any turn below needs to end once the world has become kind.
const DRAIN_MAX: usize = 600;

/// Random bytes that run out; what happens then is the kindest thing.
struct Chance<'a>(std::slice::Iter<'a, u8>);

impl Chance<'_> {
    fn of(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |b| usize::from(*b) % n)
    }
}

/// Something that may happen now.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Turn {
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
fn possible(host: &Host) -> Vec<Turn> {
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

fn happen(host: &mut Host, turn: Turn, chance: &mut Chance<'_>) {
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
    Answer {
        has_text: chance.of(3) != 2,
        output_error: (chance.of(4) == 3 && calls.is_empty()).then(|| "not JSON".to_owned()),
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
        7 => {
            let of = [room(0), client(0), asks(0), hosted(0)][chance.of(4)].clone();
            Call { malformed: Some("not an object".to_owned()), ..of }
        }
        _ => Call { permission: Permission::Ask, ..client(0) },
    }
}

/// The world becomes kind: the model answers plainly, calls end, the client answers, nobody says more.
fn drain(host: &mut Host) {
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

fn limits() -> impl Strategy<Value = TurnLimits> {
    let cost = prop_oneof![Just(None), (1u64..3_000).prop_map(Some)];
    (1u32..20, 1u64..200, 1u64..100, cost).prop_map(|(steps, output_tokens, seconds, cost_micro_usd)| TurnLimits {
        steps,
        output_tokens,
        seconds,
        cost_micro_usd,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn a_legal_history_always_and_an_end_always(limits in limits(), world in prop::collection::vec(any::<u8>(), 0..400)) {
        let steps_max = u64::from(limits.steps);
        let mut host = Host::new(config(), limits);
        let mut chance = Chance(world.iter());
        host.say();
        while chance.0.len() > 0 {
            host.wait(chance.of(200) as u64 * 50);
            let list = possible(&host);
            let turn = list[chance.of(list.len())];
            happen(&mut host, turn, &mut chance);
            prop_assert!(host.fold.turn.as_ref().is_none_or(|t| u64::from(t.steps) <= steps_max));
        }
        drain(&mut host);
        prop_assert_eq!(host.fold.status, Status::Idle);
        prop_assert!(host.fold.turn.is_none(), "a turn is open: {:?}", host.fold.turn);
        prop_assert!(host.fold.queued.is_empty(), "an input was never taken up");
        prop_assert!(host.running.is_empty());
    }

    /// A model that never stops asking for calls is stopped by the limits, within the commands that its steps allow.
    #[test]
    fn a_model_that_never_stops_is_stopped(limits in limits(), calls in 1usize..7) {
        let bound = limits.steps as usize * (calls + 1) + 1;
        let mut host = Host::new(config(), limits);
        host.say();
        while host.fold.turn.is_some() {
            host.wait(10);
            match host.running.first().cloned() {
                Some(id) => host.call_done(id),
                None => host.answer(answer(AnswerStop::ToolUse, (0..calls).map(|_| room(0)).collect()), true),
            }
            prop_assert!(host.commands <= bound, "{} commands; at most {bound} are needed", host.commands);
        }
    }
}
