//! How a session comes to its driver, and what becomes of a driver that ends: claimed, started, put away, given up.
//!
//! Which requests need a driver is `service`'s; what a driver does while it lives is `driver`'s.

use crate::driver::{self, Born, Driver, Halt, Mail, Origin};
use crate::ledger::Ledger;
use crate::requests::ServiceError;
use crate::service::SessionService;
use crate::slots::HeldSlot;
use futures_util::FutureExt;
use loopd_domain::limits::{LEASE_MS, MAILBOX_MAX};
use loopd_domain::{Epoch, SessionId, Timestamp};
use loopd_store::ClaimOutcome;
use std::panic::AssertUnwindSafe;
use tokio::sync::mpsc;

impl SessionService {
    /// The mailbox of the session's driver, started if none lives.
    pub(crate) async fn mailbox(&self, id: &SessionId) -> Result<mpsc::Sender<Mail>, ServiceError> {
        let slot = self.slot(id)?;
        let mut held = slot.lock().await;
        let outcome = match held.as_ref().filter(|mailbox| !mailbox.is_closed()) {
            Some(mailbox) => Ok(mailbox.clone()),
            None => self.claim(&mut held, id).await,
        };
        drop(held);
        if outcome.is_err() {
            self.0.slots.forget(id, slot);
        }
        outcome
    }

    async fn claim(&self, held: &mut HeldSlot<'_>, id: &SessionId) -> Result<mpsc::Sender<Mail>, ServiceError> {
        self.refuse_when_stopping()?;
        let parts = self.parts();
        let lease_until = parts.clock.now().plus_ms(LEASE_MS);
        // Where nobody else can be alive, whoever holds the session is gone.
        let now = if parts.sole_owner { Timestamp(i64::MAX) } else { parts.clock.now() };
        fail::fail_point!("session::before_claim");
        let claim = match parts.store.journal().claim(id, &self.owner(), now, lease_until).await? {
            ClaimOutcome::Claimed(claim) => *claim,
            ClaimOutcome::Held { .. } => return Err(ServiceError::Elsewhere),
            ClaimOutcome::Absent => return Err(ServiceError::Absent(id.clone())),
        };
        fail::fail_point!("session::after_claim");
        let epoch = claim.session.epoch;
        let origin = if claim.handed_over { Origin::Released } else { Origin::Lost };
        match Ledger::load(parts.store.clone(), parts.clock.clone(), parts.ids.clone(), claim).await {
            Ok(ledger) => Ok(self.spawn(held, ledger, origin, |driver| driver)),
            Err(fault) => {
                self.give_back(id, epoch).await;
                Err(fault.into())
            }
        }
    }

    /// Gives a claim up that no driver stands behind: our lease on it would be renewed for ever.
    async fn give_back(&self, id: &SessionId, epoch: Epoch) {
        fail::fail_point!("session::before_release");
        if let Err(fault) = self.parts().store.journal().release(id, epoch).await {
            tracing::warn!(session = %id, %fault, "a claim could not be given up; the session will be taken up again");
            self.abandon(id.clone());
        }
    }

    /// The driver of a new session, with the room that was begun for it. `waits`: its loop asks at once, and the session may
    /// wait for that to be made.
    pub(crate) fn spawn_new(
        &self,
        held: &mut HeldSlot<'_>,
        ledger: Ledger,
        room: driver::StartingRoom,
        born: Born,
        waits: bool,
    ) {
        self.spawn(held, ledger, Origin::Created, |driver| driver.with_room(room).unborn(born, waits));
    }

    fn spawn(
        &self,
        held: &mut HeldSlot<'_>,
        mut ledger: Ledger,
        origin: Origin,
        furnish: impl FnOnce(Driver) -> Driver,
    ) -> mpsc::Sender<Mail> {
        let channel = self.0.hub.channel(&ledger.session.id);
        ledger.enter(&self.0.census, &channel);
        let (sender, mailbox) = mpsc::channel(MAILBOX_MAX);
        **held = Some(sender.clone());
        let driver = furnish(Driver::new(self.parts().clone(), ledger, channel, mailbox));
        tokio::spawn(survive(self.clone(), driver, origin));
        sender
    }
}

/// A driver that panics takes nothing but itself along: its session is taken up again.
async fn survive(service: SessionService, driver: Driver, origin: Origin) {
    let id = driver.id().clone();
    let life = AssertUnwindSafe(live(service.clone(), driver, origin));
    if life.catch_unwind().await.is_err() {
        tracing::error!(session = %id, "a driver panicked; its session will be taken up again");
        service.abandon(id);
    }
}

/// A driver's whole life, and its orderly end.
async fn live(service: SessionService, mut driver: Driver, origin: Origin) {
    let id = driver.id().clone();
    let halt = driver.run(origin).await;
    let slot = service.0.slots.find(&id);
    let mut held = match &slot {
        Some(slot) => Some(slot.lock().await),
        None => None,
    };
    driver.close(&halt).await;
    match &halt {
        Halt::Hibernate | Halt::Stopping(_) | Halt::Deleted | Halt::Unborn => {
            tracing::debug!(session = %id, %halt, "a driver ends")
        }
        Halt::Fenced => tracing::warn!(session = %id, %halt, "a driver ends"),
        Halt::Broken(_) | Halt::Store(_) | Halt::Overtaken => {
            tracing::error!(session = %id, %halt, "a session was given up; it will be taken up again");
            service.abandon(id.clone());
        }
    }
    // One that broke on its session keeps the lease, as if it had died: whoever takes that up next counts it.
    if !matches!(halt, Halt::Fenced | Halt::Deleted | Halt::Unborn | Halt::Broken(_)) {
        service.give_back(&id, driver.epoch()).await;
    }
    if let Some(held) = held.as_mut() {
        **held = None;
    }
    drop(held);
    if let Some(slot) = slot {
        service.0.slots.forget(&id, slot);
    }
}
