//! One world: a loop, what it has not heard of yet, and what it has decided and is not written yet.

use super::explain::Scene;
use crate::resume;
use loopd_agent_loop::{AgentLoop, Call, Command, Input, LoopConfig};
use loopd_domain::event::RunsIn;
use loopd_domain::fold::{OpenCall, OpenTurn, SessionFold};
use loopd_domain::session::{Status, StopReason};
use loopd_domain::{CallId, Timestamp};
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};

/// How far the clocks of host and room, and timers that fire late, may be apart.
const CLOCK_SLACK_MS: u64 = 2_000;

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct World {
    /// `None`: no loop is at work, and the host acts by itself.
    pub(super) machine: Option<AgentLoop>,
    /// Written by the host, on its way to the loop.
    pub(super) unheard: VecDeque<Input>,
    /// Decided by the loop, on its way to the journal.
    pub(super) wishes: VecDeque<Command>,
    /// Calls that the loop has started.
    pub(super) running: BTreeSet<CallId>,
    time_up: bool,
}

impl World {
    /// A loop that does not know yet what the host wrote will be told. One that is begun later learns it then.
    pub(super) fn tell(mut self, input: Input) -> Self {
        if self.machine.is_some() {
            self.unheard.push_back(input);
        }
        self
    }

    /// The loop hears `input` now.
    pub(super) fn hear(mut self, input: Input, now: Timestamp) -> Self {
        if let Some(machine) = &mut self.machine {
            let commands = machine.step(now, input);
            self.obey(commands);
        }
        self
    }

    fn obey(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::RunTool { id } => _ = self.running.insert(id),
                // The result of the first, and the end of the second, come whether or not the loop wants them.
                Command::CancelTool { .. } | Command::CancelModel => {}
                wish => self.wishes.push_back(wish),
            }
        }
    }

    /// The worlds that this one may have become without an event.
    pub(super) fn onward(
        self,
        fold: &SessionFold,
        at: Timestamp,
        begin: impl Fn(Timestamp) -> Option<World>,
    ) -> Vec<World> {
        let Some(turn) = &fold.turn else { return Vec::new() };
        let moments = moments(turn, at);
        let mut next = Vec::new();
        if self.machine.is_none() {
            return moments.into_iter().filter_map(begin).collect();
        }
        if let Some(input) = self.unheard.front() {
            let mut told = self.clone();
            told.unheard.pop_front();
            next.extend(moments.iter().map(|now| told.clone().hear(input.clone(), *now)));
        }
        if is_over(turn, at) && !self.time_up {
            let told = World { time_up: true, ..self.clone() };
            next.push(told.hear(Input::TimeUp, at));
        }
        next.extend(self.dropped(turn, at));
        next
    }

    /// The host did not do what the loop wanted, because the client or the clock was quicker.
    fn dropped(mut self, turn: &OpenTurn, at: Timestamp) -> Option<World> {
        match self.wishes.front()? {
            Command::CallModel { .. } if turn.interrupted || is_over(turn, at) => {}
            Command::Settle { id, .. } if turn.calls.iter().any(|c| &c.id == id && c.settled) => {}
            Command::EndTurn { reason: StopReason::RequiresAction { .. }, .. }
                if turn.interrupted || !turn.waits_for_client() =>
            {
                return Some(World::default());
            }
            _ => return None,
        }
        self.wishes.pop_front();
        Some(self)
    }

    /// What comes next in this world, in words.
    pub(super) fn expects(&self, fold: &SessionFold) -> String {
        match (self.wishes.front(), &self.machine) {
            (Some(Command::CallModel { step, take, repair }), _) => {
                let repair = repair.as_ref().map_or(String::new(), |text| format!(", after telling it `{text}`"));
                format!("model request of step {step} that takes up {} inputs{repair}", take.len())
            }
            (Some(Command::Settle { id, outcome, message }), _) => {
                format!("result `{outcome:?}` of call `{id}`: {message}")
            }
            (Some(Command::EndTurn { reason, .. }), _) => format!("end of the turn: {reason:?}"),
            (Some(other), _) => format!("{other:?}"),
            (None, _) if !self.running.is_empty() => {
                let ids: Vec<&str> = self.running.iter().map(|id| id.as_str()).collect();
                format!("result of a running call: {}", ids.join(", "))
            }
            (None, Some(_)) => "an answer of the model".to_owned(),
            (None, None) if fold.turn.is_some() => "a loop that is begun, or the client's answer".to_owned(),
            (None, None) => "a new turn".to_owned(),
        }
    }
}

/// A loop that is begun where the journal stands, if one can be begun there.
pub(super) fn begin(
    config: &LoopConfig,
    fold: &SessionFold,
    scene: &Scene,
    judge: &(dyn Fn(&OpenTurn, &loopd_domain::fold::FinalAnswer, &str) -> Option<String> + Send),
    now: Timestamp,
) -> Option<World> {
    let turn = fold.turn.as_ref().filter(|t| t.request.is_none())?;
    if fold.status != Status::Running {
        return None;
    }
    let calls = turn.calls.iter().map(call).collect();
    let output_error = turn.answered.as_ref().and_then(|answer| judge(turn, answer, &scene.answer));
    let resume = resume::standing(fold, turn, calls, output_error);
    let (machine, commands) = AgentLoop::resume(config.clone(), resume, now);
    let mut world = World { machine: Some(machine), ..World::default() };
    world.obey(commands);
    if turn.interrupted {
        // Only to end what runs in a room that was adopted.
        world.unheard.push_back(Input::Interrupt);
    }
    Some(world)
}

/// A call as the loop knows it; what it was asked to do is nothing to the loop.
pub(super) fn call(open: &OpenCall) -> Call {
    resume::call(open, Value::Null)
}

/// Does the room tell the loop of the call's end by itself, before anybody else knows?
pub(super) fn ends_in_room(call: &OpenCall) -> bool {
    call.runs_in == RunsIn::Room
}

/// Is the turn's time over, as far as clocks can tell?
pub(super) fn is_over(turn: &OpenTurn, at: Timestamp) -> bool {
    at.plus_ms(CLOCK_SLACK_MS) >= end(turn)
}

/// The moments at which the loop may have heard something: only whether the turn's time was over makes a difference.
pub(super) fn moments(turn: &OpenTurn, at: Timestamp) -> Vec<Timestamp> {
    match is_over(turn, at) {
        true => vec![turn.counts_from(), end(turn)],
        false => vec![at],
    }
}

fn end(turn: &OpenTurn) -> Timestamp {
    turn.counts_from().plus_ms(turn.settings.limits.seconds.saturating_mul(1_000))
}
