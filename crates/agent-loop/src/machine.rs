//! The machine itself.

use crate::types::{Call, Command, Input, LoopConfig, Resume};
use loopd_domain::{CallId, Timestamp};

/// One turn of one session.
#[derive(Debug)]
pub struct AgentLoop {
    config: LoopConfig,
    turn: Resume,
}

impl AgentLoop {
    /// Takes a turn up where it stands, and says what is to be done first.
    pub fn resume(config: LoopConfig, resume: Resume, now: Timestamp) -> (Self, Vec<Command>) {
        let _ = now;
        (AgentLoop { config, turn: resume }, Vec::new())
    }

    /// What follows from `input`. After `Command::EndTurn` the machine answers nothing more.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Command> {
        let _ = (now, input, &self.config);
        Vec::new()
    }

    /// A call of the current step.
    pub fn call(&self, id: &CallId) -> Option<&Call> {
        self.turn.calls.iter().find(|c| &c.id == id)
    }
}
