//! An answer that waits a moment for what follows from it, so that both are one commit.
//!
//! A call is written before it is dispatched, because afterwards somebody must know that it may have happened. A call of
//! class `pure` that runs in the room changes nothing anywhere, and an answer without calls sets nothing off at all: if they vanish with
//! the process, the model is asked again, as it would be if the process had ended a moment earlier. So the loop is told of such an
//! answer while it is only held, and its next word, which mostly comes within a millisecond, is written together with it (ADR 9).
//! Nothing else sees the answer meanwhile: whatever else wakes the driver finds it on disk.
//!
//! So it is with a new session and its first question: nobody knows of the session before whoever makes it is answered, and
//! that is when it is written, with the question if its room asks in time.

use super::room::RoomState;
use super::{Driver, Halt, Wake};
use crate::ledger::Draft;
use loopd_domain::event::{EffectClass, RunsIn};
use loopd_protocol::FromCell;
use loopd_store::AppendError;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Is told what became of a session's first commit.
pub type Born = oneshot::Sender<Result<(), AppendError>>;

impl Driver {
    /// Makes the session with its first commit, and says so. `waits`: with what the room asks, rather than before all else.
    pub fn unborn(mut self, born: Born, waits: bool) -> Self {
        self.born = Some(born);
        self.held_until = waits.then(|| self.hold_until());
        self
    }

    /// What is held was held for this.
    pub(super) fn is_held_for(&self, wake: &Wake) -> bool {
        match wake {
            Wake::Frame(Ok(FromCell::Batch { .. })) | Wake::Answer(_) | Wake::Landed(_) => true,
            // The room of a session that nobody knows yet, and its greeting: what it asks for first belongs to the first commit.
            Wake::Room(_) | Wake::Frame(Ok(FromCell::Hello { .. })) => self.ledger.is_unborn(),
            _ => false,
        }
    }

    /// The commit that makes the session. Tried once: nothing was acknowledged, and whoever asked for it waits.
    pub(super) async fn make_session(&mut self, draft: &Draft) -> Result<(), Halt> {
        let made = self.ledger.commit(draft, None).await;
        self.held_until = None;
        let halt = made.is_err().then_some(Halt::Unborn);
        if let Some(born) = self.born.take() {
            // Whoever has stopped waiting finds the session by the key of its request.
            let _ = born.send(made);
        }
        halt.map_or(Ok(()), Err)
    }

    /// Goes on from an answer: held, where that is harmless, and on disk otherwise.
    pub(super) async fn take_answer(&mut self, draft: &Draft) -> Result<(), Halt> {
        if !self.may_hold(draft) {
            return self.commit(draft).await;
        }
        self.ledger.hold(draft).map_err(super::halt)?;
        self.held_until = Some(self.hold_until());
        Ok(())
    }

    fn hold_until(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.parts.held_ms)
    }

    pub(super) async fn write_held(&mut self) -> Result<(), Halt> {
        self.land().await?;
        // A session that is unborn holds its first events.
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
        listens && !is_ending && is_pure && !draft.tells_of_connections()
    }
}
