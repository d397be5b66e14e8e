//! The loop against random worlds: whatever happens, and in whatever order, the journal is a legal history, every call has
//! one result in its place, and the turn comes to an end.

mod desk;
mod host;
mod world;

use desk::{answer, config, room};
use host::Host;
use loopd_domain::event::AnswerStop;
use loopd_domain::session::Status;
use proptest::prelude::*;
use world::*;

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
