//! A write that is on its way to disk while the model is asked.
//!
//! A question's start is written with all that came before it, and the model takes longer than the disk. So the question leaves beside that
//! write: nobody sees what the model says, and nothing is done that could be noticed outside the room, before the write has *landed*
//! (ADR 10). An answer that sets nothing off may be held meanwhile, as after any other write (`holding`); all else that wakes the
//! driver waits for the landing first. If it fails, the driver ends, and with it the request and whatever it answered.

use super::room::RoomState;
use super::{Driver, Halt, WRITE_PAUSE, WRITE_TRIES, Wake};
use crate::ledger::{Draft, Flight};
use loopd_domain::event::{EffectClass, EventBody};
use loopd_store::AppendError;

impl Driver {
    /// Writes a draft after which the model is asked, and goes on from it at once where nothing forbids that.
    pub(super) async fn commit_question(&mut self, draft: Draft) -> Result<(), Halt> {
        self.land().await?;
        if !self.may_fly(&draft) {
            return self.commit(&draft).await;
        }
        self.room_keeps_results = self.has_results_of_effects(&draft);
        let flight = self.ledger.depart(draft, WRITE_TRIES, WRITE_PAUSE).map_err(super::halt)?;
        self.held_until = None;
        let flight = self.flight.insert(flight);
        // It is in the writer's queue from now on, or waits for a place in it.
        match flight.poll_once() {
            Some(outcome) => self.landed(outcome),
            None => Ok(()),
        }
    }

    fn may_fly(&self, draft: &Draft) -> bool {
        // Whoever was stopped, and replaced meanwhile, finds out before it asks a model in another's name.
        self.parts.store.is_ours()
            // A turn without a room makes one next, which is more than a question.
            && matches!(self.room, RoomState::Ready(_))
            // A repeated request may have made the session already.
            && !self.ledger.is_born_once()
            && self.drained_by.is_none()
            && !draft.tells_of_connections()
    }

    /// A room keeps the results of a step until it hears of the model's answer to them. Without them a call would be run again by
    /// whoever has the session next; so the answer must not be heard before results of calls that may change something are on disk.
    pub(super) async fn land_before_answer(&mut self) -> Result<(), Halt> {
        match self.room_keeps_results {
            true => self.land().await,
            false => Ok(()),
        }
    }

    fn has_results_of_effects(&self, draft: &Draft) -> bool {
        let calls = || self.ledger.fold().turn.iter().flat_map(|turn| &turn.calls);
        draft.events.iter().any(|event| match &event.body {
            EventBody::AgentToolResult { tool_use_id, .. } => {
                calls().any(|call| &call.id == tool_use_id && call.effect != EffectClass::Pure)
            }
            _ => false,
        })
    }

    /// Waits until what is on its way is on disk.
    pub(super) async fn land(&mut self) -> Result<(), Halt> {
        match &mut self.flight {
            None => Ok(()),
            Some(flight) => {
                let outcome = flight.landing().await;
                self.landed(outcome)
            }
        }
    }

    /// What was written may be seen now, and so may what the model has said since.
    pub(super) fn landed(&mut self, outcome: Result<(), AppendError>) -> Result<(), Halt> {
        let Some(flight) = self.flight.take() else { return Ok(()) };
        self.room_keeps_results = false;
        fail::fail_point!("session::landed");
        let halt =
            outcome.clone().err().map(|fault| if self.born.is_some() { Halt::Unborn } else { super::halt(fault) });
        if let Some(born) = self.born.take() {
            // Whoever has stopped waiting finds the session by the key of its request.
            let _ = born.send(outcome);
        }
        if let Some(halt) = halt {
            return Err(halt);
        }
        self.ledger.landed(flight);
        for asking in self.asking.iter().chain(&self.unshown.take()) {
            asking.release();
        }
        Ok(())
    }

    /// The driver ends: what is on its way is still waited for, and told of. Whoever waits for the session to be made is answered.
    pub(super) async fn land_last(&mut self) {
        if let Err(fault) = self.land().await {
            tracing::warn!(session = %self.id(), %fault, "what was last written did not reach the disk");
        }
        self.born = None;
    }
}

/// Wakes the driver when what is on its way has landed.
pub(super) async fn landing(flight: &mut Option<Flight>) -> Wake {
    match flight {
        Some(flight) => Wake::Landed(flight.landing().await),
        None => std::future::pending().await,
    }
}
