//! How a driver comes to a session that somebody else had: with its room if that lives, and with what was in flight.

use super::room::{ReadyRoom, RoomState};
use super::{Driver, Halt, Origin};
use crate::recovery::{self, Takeover};
use crate::requests::Parts;
use crate::{requirement, turn};
use loopd_domain::CallId;
use loopd_domain::environment::Hibernation;
use loopd_domain::session::Status;
use loopd_protocol::{FromCell, VERSION};
use loopd_sandbox::{RoomSpec, SandboxError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long a cell may take to say what it runs. One thread does all its work; a large answer may be in its way.
const HELLO_WAIT: Duration = Duration::from_secs(5);

impl Driver {
    /// Goes on where the journal stands.
    pub(super) async fn take_up(&mut self, origin: Origin) -> Result<(), Halt> {
        let fold = self.ledger.fold();
        // Who only asks something of a session that rests need not wake its machine. One that lives is held, so that it sleeps in time.
        let can_wait = fold.status == Status::Idle
            && fold.turn.is_none()
            && self.ledger.session.room.hibernation == Hibernation::Memory
            && self.parts.sandbox.sleeps(&self.spec());
        self.room_may_be_there = origin != Origin::Created && can_wait;
        let room_lives = origin != Origin::Created && !can_wait && self.adopt().await?;
        let mut draft = self.ledger.draft();
        match draft.fold.status {
            Status::Running if origin != Origin::Created => {
                let how = Takeover { handed_over: origin == Origin::Released, room_lives };
                recovery::take_over(&mut draft, &self.ledger.session, how)?;
            }
            Status::Rescheduling => self.resume_wait(),
            _ => {}
        }
        if draft.fold.turn.is_none() && draft.fold.status == Status::Idle {
            turn::take_up_queue(&mut draft, &self.ledger.session, &self.ledger.waiting)?;
        }
        let rests = draft.fold.status == Status::Idle;
        if !draft.events.is_empty() {
            self.commit(&draft).await?;
            fail::fail_point!("session::after_takeover");
        }
        if origin != Origin::Created {
            let open = self.ledger.fold().turn.iter().flat_map(|t| &t.calls);
            self.host.inherit(open.filter(|c| recovery::host_may_have_sent(c)).map(|c| c.id.clone()));
        }
        if rests && !self.dispatched.is_empty() {
            // Given up, yet something of it runs.
            self.end_room().await;
            self.dispatched.clear();
        }
        self.go_on().await
    }

    /// Takes over the room that an earlier driver left, if it lives and its workspace still allows it.
    async fn adopt(&mut self) -> Result<bool, Halt> {
        let room = match self.parts.sandbox.adopt(&self.spec()).await {
            Ok(Some(room)) => room,
            Ok(None) => return Ok(false),
            Err(SandboxError::Fenced { .. }) => return Err(Halt::Fenced),
            Err(fault) => {
                // If one lives after all, it ends before another one starts.
                tracing::warn!(session = %self.id(), %fault, "an earlier room could not be looked for");
                return Ok(false);
            }
        };
        fail::fail_point!("session::after_adopt");
        let session = &self.ledger.session;
        let allowed = requirement::check(self.parts.store.as_ref(), &session.workspace, "environment", &session.room);
        if let Err(refusal) = allowed.await {
            tracing::warn!(session = %self.id(), %refusal, "a room that its workspace does not allow ends");
            self.room = RoomState::Ready(Box::new(ReadyRoom::new(room)));
            self.end_room().await;
            return Ok(false);
        }
        let mut room = ReadyRoom::new(room);
        let known = match room.attach(self.id(), self.epoch()) {
            Ok(()) => greeting(&mut room).await,
            Err(fault) => Err(fault.to_string()),
        };
        self.room = RoomState::Ready(Box::new(room));
        self.image_variables = self.parts.images.variables(&self.ledger.session.room.root);
        match known {
            Ok(calls) => {
                tracing::info!(session = %self.id(), calls = calls.len(), "a room was adopted");
                let open = self.ledger.fold().turn.iter().flat_map(|t| &t.calls).filter(|c| !c.settled);
                let now = Instant::now();
                self.dispatched = open.filter(|c| calls.contains(&c.id)).map(|c| (c.id.clone(), now)).collect();
                self.serve_outlet();
                Ok(true)
            }
            Err(reason) => {
                tracing::warn!(session = %self.id(), reason, "a room could not be adopted and ends");
                self.end_room().await;
                Ok(false)
            }
        }
    }

    /// Ends the room that an earlier driver left, alive or suspended, and waits until it is gone.
    pub(super) async fn end_earlier_room(&mut self) {
        match find(&self.parts, &self.spec()).await {
            Ok(None) => {}
            Ok(Some(room)) => {
                self.room = RoomState::Ready(Box::new(room));
                self.end_room().await;
            }
            Err(fault) => {
                tracing::warn!(session = %self.id(), %fault, "an earlier room could not be ended; it goes with its session")
            }
        }
    }

    /// The wait for the model goes on until the time that the journal names.
    fn resume_wait(&mut self) {
        let fold = self.ledger.fold();
        let attempt = fold.turn.as_ref().map_or(1, |turn| turn.attempts + 1);
        let left_ms = fold.retry_at.map_or(0, |at| at.since_ms(self.ledger.now()));
        self.retry = Some((Instant::now() + Duration::from_millis(left_ms), attempt));
    }
}

/// The room that an earlier driver of a session left, alive or suspended, if it can be had. One that does not answer ends.
pub(super) async fn find(parts: &Parts, spec: &RoomSpec) -> Result<Option<ReadyRoom>, SandboxError> {
    let session = &spec.session;
    let room = match parts.sandbox.adopt(spec).await {
        Ok(Some(room)) => room,
        Ok(None) => return Ok(None),
        Err(fault @ (SandboxError::Fenced { .. } | SandboxError::Unavailable { .. })) => return Err(fault),
        Err(fault) => {
            // If one lives after all, it ends before another one starts.
            tracing::warn!(%session, %fault, "an earlier room could not be looked for");
            return Ok(None);
        }
    };
    fail::fail_point!("session::after_adopt");
    let mut room = ReadyRoom::new(room);
    let known = match room.attach(session, spec.epoch) {
        Ok(()) => greeting(&mut room).await,
        Err(fault) => Err(fault.to_string()),
    };
    match known {
        // The session rests: no call of it is open, whatever results the cell still has.
        Ok(_) => Ok(Some(room)),
        Err(reason) => {
            tracing::warn!(%session, reason, "a room could not be adopted and ends");
            // Another one may start when this one is gone, which whoever starts it sees to.
            drop(room);
            Ok(None)
        }
    }
}

/// What the cell runs, or has the results of.
async fn greeting(room: &mut ReadyRoom) -> Result<Vec<CallId>, String> {
    match timeout(HELLO_WAIT, room.link.next()).await {
        Ok(Ok(FromCell::Hello { version: VERSION, calls })) => Ok(calls),
        Ok(Ok(FromCell::Hello { version, .. })) => Err(format!("its cell speaks version {version}, not {VERSION}")),
        Ok(Ok(FromCell::Log { message })) => Err(format!("its cell refused: {}", message.escape_debug())),
        Ok(Ok(other)) => Err(format!("its cell did not greet but said {other:?}")),
        Ok(Err(fault)) => Err(fault.to_string()),
        Err(_) => Err(format!("its cell did not answer in {} s", HELLO_WAIT.as_secs())),
    }
}
