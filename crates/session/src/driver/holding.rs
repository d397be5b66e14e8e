//! An answer that waits a moment for what follows from it, so that both are one commit.
//!
//! A call is written before it is dispatched, because afterwards somebody must know that it may have happened. A call of
//! class `pure` that runs in the room changes nothing anywhere, and an answer without calls sets nothing off at all: if they vanish with
//! the process, the model is asked again, as it would be if the process had ended a moment earlier. So the loop is told of such an
//! answer while it is only held, and its next word, which mostly comes within a millisecond, is written together with it (ADR 9).
//! Nothing else sees the answer meanwhile: whatever else wakes the driver finds it on disk.

use super::room::RoomState;
use super::{Driver, Halt};
use crate::ledger::Draft;
use loopd_domain::event::{EffectClass, EventBody, RunsIn};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer may wait to be written: longer than a small read takes in a busy room, too short for anybody to notice.
const HELD_AT_MOST: Duration = Duration::from_millis(10);

impl Driver {
    /// Goes on from an answer: held, where that is harmless, and on disk otherwise.
    pub(super) async fn take_answer(&mut self, draft: &Draft) -> Result<(), Halt> {
        if !self.may_hold(draft) {
            return self.commit(draft).await;
        }
        self.ledger.hold(draft).map_err(super::halt)?;
        self.held_until.get_or_insert(Instant::now() + HELD_AT_MOST);
        Ok(())
    }

    pub(super) async fn write_held(&mut self) -> Result<(), Halt> {
        if !self.ledger.holds() {
            return Ok(());
        }
        let rest = self.ledger.draft();
        self.commit(&rest).await
    }

    fn may_hold(&self, draft: &Draft) -> bool {
        let listens = self.begun && matches!(self.room, RoomState::Ready(_)) && self.drained_by.is_none();
        let is_ending = self.time_up || draft.fold.turn.as_ref().is_none_or(|turn| turn.interrupted);
        let mut calls = draft.fold.turn.iter().flat_map(|t| &t.calls).filter(|c| !c.settled);
        let is_pure =
            calls.all(|c| c.effect == EffectClass::Pure && matches!(c.runs_in, RunsIn::Room | RunsIn::Nowhere));
        let tells = |e: &EventBody| {
            matches!(e, EventBody::NetworkConnection { .. } | EventBody::NetworkConnectionsOmitted { .. })
        };
        listens && !is_ending && is_pure && !draft.events.iter().any(|e| tells(&e.body))
    }
}
