//! Histories that the loop's own test host writes are replayed without a divergence, and one that was changed is not.

#[path = "../../agent-loop/tests/desk/mod.rs"]
mod desk;
#[path = "../../agent-loop/tests/host/mod.rs"]
mod host;
#[path = "../../agent-loop/tests/world/mod.rs"]
mod world;

use desk::config;
use host::Host;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{AnswerStop, Event, EventBody, Outcome};
use loopd_domain::session::{LimitName, StopReason, TurnLimits};
use loopd_session::replay::{Replay, Replayer};
use proptest::prelude::*;
use world::*;

fn replay(events: &[Event]) -> Replay {
    let judge = |_: &_, _: &_, text: &str| (text == NOT_JSON).then(|| NOT_JSON.to_owned());
    let mut replayer = Replayer::new(config(), Box::new(judge));
    events.iter().for_each(|event| _ = replayer.apply(event).expect("a legal history"));
    replayer.report()
}

/// A history of random events. The turn's time is over only when it is.
fn history(limits: TurnLimits, world: &[u8]) -> Vec<Event> {
    let seconds = limits.seconds;
    let mut host = Host::new(config(), limits);
    let mut chance = Chance(world.iter());
    host.say();
    while chance.0.len() > 0 {
        host.wait(chance.of(200) as u64 * 50);
        let list = possible(&host);
        let turn = list[chance.of(list.len())];
        if turn == Turn::TimeUp {
            host.wait(seconds * 1_000);
        }
        happen(&mut host, turn, &mut chance);
    }
    drain(&mut host);
    host.journal
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_the_loop_did_it_does_again(limits in limits(), world in prop::collection::vec(any::<u8>(), 0..300)) {
        let events = history(limits, &world);
        let report = replay(&events);
        prop_assert_eq!(report.divergence, None);
        prop_assert_eq!((report.events, report.unannounced_takeovers), (events.len() as u64, 0));
    }

    /// A history in which one decision was changed, and which is still legal, is caught at that decision; or it takes a
    /// takeover to explain it, and that is reported.
    #[test]
    fn another_decision_is_a_divergence(world in prop::collection::vec(any::<u8>(), 0..200), pick in any::<prop::sample::Index>()) {
        let events = history(TurnLimits::default(), &world);
        let changed: Vec<(usize, EventBody)> =
            events.iter().enumerate().filter_map(|(at, event)| Some((at, changed(&event.body)?))).collect();
        prop_assume!(!changed.is_empty());
        let (at, body) = changed[pick.index(changed.len())].clone();
        let mut events = events;
        events[at].body = body;
        events.truncate(at + 1);
        let report = replay(&events);
        let seq = events[at].seq;
        let is_told = report.divergence.as_ref().is_some_and(|d| d.seq == seq) || report.unannounced_takeovers > 0;
        prop_assert!(is_told, "{report:?}");
    }
}

/// The same place in the journal with another decision of the loop, where there is one that the fold would take.
fn changed(body: &EventBody) -> Option<EventBody> {
    match body.clone() {
        EventBody::StatusIdle { stop_reason: StopReason::EndTurn, stop_details } => {
            let stop_reason = StopReason::LimitReached { limit: LimitName::OutputSchema };
            Some(EventBody::StatusIdle { stop_reason, stop_details })
        }
        EventBody::AgentToolResult { tool_use_id, outcome: Outcome::NotRun, is_error, duration_ms, content } => {
            // A loop that is begun after a refusal does not know of it, and runs the call: such a world is possible.
            if matches!(content.as_slice(), [ContentBlock::Text { text }] if text.contains("refusal")) {
                return None;
            }
            let content = vec![ContentBlock::text("This call was not run: somebody else decided.")];
            Some(EventBody::AgentToolResult { tool_use_id, content, is_error, outcome: Outcome::NotRun, duration_ms })
        }
        _ => None,
    }
}

#[test]
fn a_divergence_says_what_was_expected_and_what_is_there() {
    let mut host = Host::new(config(), TurnLimits::default());
    host.say();
    host.answer(desk::answer(AnswerStop::ToolUse, vec![desk::room(0)]), true);
    let call = host.running[0].clone();
    host.call_done(call);
    host.answer(desk::answer(AnswerStop::EndTurn, Vec::new()), true);
    let mut events = host.journal;
    assert_eq!(replay(&events), Replay { turns: 1, steps: 2, events: events.len() as u64, ..Replay::default() });
    let last = events.last_mut().expect("events");
    last.body = EventBody::StatusIdle { stop_reason: StopReason::Refusal, stop_details: None };
    let found = replay(&events).divergence.expect("a divergence");
    assert_eq!((found.kind.as_str(), found.expected.as_str()), ("session.status_idle", "end of the turn: EndTurn"));
    assert_eq!(found.got, "end of the turn: Refusal");
}
