//! The door to all sessions: how a request finds its session's driver, and what needs none.
//!
//! At most one driver of a session lives in this process: its *slot* is locked while a driver is started or put away, so
//! nobody starts a second one beside it. Between processes the journal's epoch does the same.

use crate::driver::{self, Driver, Halt, Mail, Sent};
use crate::follow::Follower;
use crate::hub::{Channel, Hub};
use crate::ledger::{Ledger, seal};
use crate::requests::*;
use crate::{admission, keeper};
use futures_util::FutureExt;
use loopd_domain::chain::GENESIS;
use loopd_domain::event::EventBody;
use loopd_domain::fold::SessionFold;
use loopd_domain::limits::{IDEMPOTENCY_WINDOW_MS, LEASE_MS, MAILBOX_MAX, SESSIONS_LIVING_MAX};
use loopd_domain::session::{Session, Status, TurnSettings};
use loopd_domain::{Epoch, Seq, SessionId, Timestamp, WorkspaceId, ids};
use loopd_store::{AppendError, ClaimOutcome, OnceRecord, OwnerId, SessionFilter};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, mpsc, oneshot, watch};

/// Drivers that a request tries: each but the last was about to end when the request came.
const DRIVER_TRIES: u32 = 8;
/// How long a request waits for room in its session's mailbox.
const MAILBOX_WAIT: Duration = Duration::from_secs(5);
/// A turn that ended this recently and that nobody saw is shown to a late follower.
const LATE_ATTACH_MS: u64 = 5_000;

/// The driver's mailbox, when one lives.
type Slot = Arc<AsyncMutex<Option<mpsc::Sender<Mail>>>>;

/// The door to all sessions. Cheap to clone.
#[derive(Clone)]
pub struct SessionService(Arc<Inner>);

struct Inner {
    parts: Arc<Parts>,
    owner: OwnerId,
    hub: Hub,
    slots: Mutex<HashMap<SessionId, Slot>>,
    /// Sessions whose driver gave up because of the store.
    abandoned: Mutex<Vec<SessionId>>,
    stopping: watch::Sender<bool>,
}

impl SessionService {
    /// Starts the service; what has lost its owner is taken up in the background.
    pub async fn start(parts: Parts) -> Result<Self, ServiceError> {
        let owner = OwnerId(format!("own_{}", ids::encode_ulid(parts.ids.ulid())));
        let sole_owner = parts.sole_owner;
        let service = SessionService(Arc::new(Inner {
            parts: Arc::new(parts),
            owner,
            hub: Hub::default(),
            slots: Mutex::default(),
            abandoned: Mutex::default(),
            stopping: watch::Sender::new(false),
        }));
        let first = service.clone();
        tokio::spawn(async move {
            if sole_owner {
                keeper::take_up_all(&first).await;
            }
            keeper::keep(first).await;
        });
        Ok(service)
    }

    pub(crate) fn parts(&self) -> &Arc<Parts> {
        &self.0.parts
    }

    pub(crate) fn owner(&self) -> OwnerId {
        self.0.owner.clone()
    }

    /// Sessions that were given up and are to be taken up again. Whoever takes the list sees to all of it.
    pub(crate) fn abandoned(&self) -> Vec<SessionId> {
        std::mem::take(&mut *self.0.abandoned.lock())
    }

    pub(crate) fn abandon(&self, id: SessionId) {
        self.0.abandoned.lock().push(id);
    }

    /// Returns when the service is told to stop.
    pub(crate) async fn stopping(&self) {
        // An error means that the service is gone, which is the same.
        let _ = self.0.stopping.subscribe().wait_for(|stop| *stop).await;
    }

    pub async fn create(&self, new: NewSession, once: Option<OnceKey>) -> Result<Accepted, ServiceError> {
        let parts = self.parts();
        parts.models.resolve(&new.agent.spec.model)?;
        if let Some(first) = self.first_answer(&new.workspace, once.as_ref()).await? {
            return Ok(first);
        }
        let now = parts.clock.now();
        let session = Session {
            id: SessionId::generate(parts.ids.as_ref()),
            workspace: new.workspace,
            agent: new.agent,
            environment: new.environment,
            room: new.room,
            title: new.title,
            metadata: new.metadata,
            created_at: now,
            updated_at: now,
            archived_at: None,
            fold: SessionFold::default(),
            epoch: Epoch(1),
        };
        let mut ledger = Ledger::fresh(parts.store.clone(), parts.clock.clone(), parts.ids.clone(), session, GENESIS);
        let mut draft = ledger.draft();
        let starts = !new.inputs.is_empty();
        let admitted = admission::admit(&mut draft, &ledger.session, &[], new.inputs, &new.settings)?;
        let slot = self.slot(&ledger.session.id)?;
        let mut held = slot.lock().await;
        self.refuse_when_stopping()?;
        // The room is built while the session is being written.
        let room = starts.then(|| {
            let start = driver::start(parts, &ledger.session.id, ledger.session.room.limits);
            tokio::spawn(start)
        });
        let digest = once.as_ref().map(|o| o.request_digest.clone());
        let entries = seal(&GENESIS, &draft.events)?;
        let last_hash = entries.last().map_or(GENESIS, |e| e.hash);
        let once =
            once.map(|key| once_record(&ledger.session.workspace, key, &ledger.session.id, &admitted.inputs, 0, now));
        let stored = Session { fold: draft.fold.clone(), ..ledger.session.clone() };
        // A session that only rests is nobody's.
        let owner = if starts { self.owner() } else { OwnerId(String::new()) };
        let lease_until = if starts { now.plus_ms(LEASE_MS) } else { now };
        let created = parts.store.journal().create(stored.clone(), entries, &owner, lease_until, once).await;
        if let Err(fault) = created {
            drop(held);
            self.forget_slot(&stored.id, slot);
            return match fault {
                AppendError::Repeated(record) => self.repeated(record, digest.as_ref()).await,
                fault => Err(fault.into()),
            };
        }
        ledger.adopt(draft.fold, last_hash, &draft.events);
        let accepted = Accepted { session: stored, inputs: admitted.inputs, seq: 0, repeated: false };
        if let Some(room) = room {
            let room: driver::StartingRoom = Box::pin(async move {
                let lost = |e| loopd_sandbox::SandboxError::Launcher(format!("starting a room: {e}"));
                room.await.map_err(lost)?
            });
            self.spawn(&mut held, ledger, Some(room), false);
        }
        drop(held);
        self.forget_slot(&accepted.session.id, slot);
        Ok(accepted)
    }

    /// Accepts inputs (client kinds of `EventBody`), all or none.
    pub async fn send(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        inputs: Vec<EventBody>,
        settings: TurnSettings,
        once: Option<OnceKey>,
    ) -> Result<Accepted, ServiceError> {
        self.get(workspace, id).await?;
        if let Some(first) = self.first_answer(workspace, once.as_ref()).await? {
            return Ok(first);
        }
        let sent = self
            .ask(id, |reply| Mail::Send {
                inputs: inputs.clone(),
                settings: settings.clone(),
                once: once.clone(),
                reply,
            })
            .await?;
        match sent {
            Sent::Accepted(accepted) => Ok(*accepted),
            Sent::Repeated(record) => self.repeated(record, once.as_ref().map(|o| &o.request_digest)).await,
        }
    }

    pub async fn get(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Session, ServiceError> {
        let session = self.parts().store.sessions().get(workspace, id).await?;
        session.ok_or_else(|| ServiceError::Absent(id.clone()))
    }

    pub async fn list(&self, filter: SessionFilter) -> Result<Vec<Session>, ServiceError> {
        Ok(self.parts().store.sessions().list(filter).await?)
    }

    /// Appends `session.updated` when something changed.
    pub async fn edit(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        edit: SessionEdit,
    ) -> Result<Session, ServiceError> {
        self.get(workspace, id).await?;
        self.ask(id, |reply| Mail::Edit { edit: edit.clone(), reply }).await
    }

    /// Ends the session for good; its history stays readable. Refused while a turn runs.
    pub async fn archive(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Session, ServiceError> {
        self.get(workspace, id).await?;
        self.ask(id, |reply| Mail::Archive { reply }).await
    }

    /// Removes history and files. Refused while a turn runs.
    pub async fn delete(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<(), ServiceError> {
        let session = self.get(workspace, id).await?;
        for _ in 0..DRIVER_TRIES {
            self.ask(id, |reply| Mail::Delete { reply }).await?;
            let slot = self.slot(id)?;
            // The slot is not held while waiting: the driver that agreed needs it to put its room away.
            let mailbox = slot.lock().await.clone();
            if let Some(mailbox) = mailbox {
                mailbox.closed().await;
            }
            let held = slot.lock().await;
            // Another request may have woken the session in between: then it has to agree anew.
            if held.is_none() {
                self.remove(&session).await?;
                drop(held);
                self.forget_slot(id, slot);
                return Ok(());
            }
        }
        Err(ServiceError::Busy(format!("session `{id}` is in use; try again")))
    }

    /// Removes what is stored of a session that nobody drives.
    async fn remove(&self, session: &Session) -> Result<(), ServiceError> {
        let parts = self.parts();
        parts.store.sessions().delete(&session.workspace, &session.id).await?;
        let spec = driver::spec(parts, &session.id, session.room.limits);
        if let Err(fault) = parts.sandbox.remove(&spec).await {
            tracing::warn!(session = %session.id, %fault, "the files of a deleted session could not be removed");
        }
        self.0.hub.channel(&session.id).publish(0, Followed::Deleted);
        Ok(())
    }

    pub async fn events(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        query: EventQuery,
    ) -> Result<EventPage, ServiceError> {
        let session = self.get(workspace, id).await?;
        Ok(crate::history::page(self.parts().store.as_ref(), &session, query).await?)
    }

    /// Registered before it returns: nothing that is appended afterwards is missed.
    pub async fn follow(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        from: FollowFrom,
    ) -> Result<Follower, ServiceError> {
        let session = self.get(workspace, id).await?;
        let channel = self.0.hub.channel(id);
        let after = match from {
            FollowFrom::After(seq) => seq,
            FollowFrom::Live => live_start(&session.fold, &channel, self.parts().clock.now()),
        };
        let store = self.parts().store.clone();
        let stopping = self.0.stopping.subscribe();
        Ok(Follower::new(store, workspace.clone(), id.clone(), after, channel.attach(), stopping))
    }

    /// Lets running sessions go (their turns are taken up at the next start) and ends every room.
    pub async fn stop(&self) {
        self.0.stopping.send_replace(true);
        let slots: Vec<Slot> = self.0.slots.lock().values().cloned().collect();
        let mut mailboxes = Vec::new();
        for slot in &slots {
            let mailbox = slot.lock().await.clone();
            if let Some(mailbox) = mailbox {
                // A closed mailbox belongs to a driver that ends anyway.
                let _ = mailbox.send(Mail::Stop).await;
                mailboxes.push((slot, mailbox));
            }
        }
        for (slot, mailbox) in mailboxes {
            mailbox.closed().await;
            drop(slot.lock().await);
        }
    }

    /// Makes sure that a session which needs an owner has one here.
    pub(crate) async fn wake(&self, id: &SessionId) -> Result<(), ServiceError> {
        self.mailbox(id).await.map(|_| ())
    }

    /// Puts a request to the session's driver and waits for the answer.
    async fn ask<T>(
        &self,
        id: &SessionId,
        mail: impl Fn(oneshot::Sender<Result<T, ServiceError>>) -> Mail,
    ) -> Result<T, ServiceError> {
        for _ in 0..DRIVER_TRIES {
            let mailbox = self.mailbox(id).await?;
            let (reply, answer) = oneshot::channel();
            match mailbox.send_timeout(mail(reply), MAILBOX_WAIT).await {
                Ok(()) => {}
                Err(mpsc::error::SendTimeoutError::Closed(_)) => continue,
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                    return Err(ServiceError::Busy(format!("session `{id}` has too many requests waiting; try again")));
                }
            }
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
        Err(ServiceError::Elsewhere)
    }

    /// The mailbox of the session's driver, started if none lives.
    async fn mailbox(&self, id: &SessionId) -> Result<mpsc::Sender<Mail>, ServiceError> {
        let slot = self.slot(id)?;
        let mut held = slot.lock().await;
        let outcome = match held.as_ref().filter(|mailbox| !mailbox.is_closed()) {
            Some(mailbox) => Ok(mailbox.clone()),
            None => self.claim(&mut held, id).await,
        };
        drop(held);
        if outcome.is_err() {
            self.forget_slot(id, slot);
        }
        outcome
    }

    async fn claim(
        &self,
        held: &mut MutexGuard<'_, Option<mpsc::Sender<Mail>>>,
        id: &SessionId,
    ) -> Result<mpsc::Sender<Mail>, ServiceError> {
        self.refuse_when_stopping()?;
        let parts = self.parts();
        let lease_until = parts.clock.now().plus_ms(LEASE_MS);
        // Where nobody else can be alive, whoever holds the session is gone.
        let now = if parts.sole_owner { Timestamp(i64::MAX) } else { parts.clock.now() };
        let claim = match parts.store.journal().claim(id, &self.0.owner, now, lease_until).await? {
            ClaimOutcome::Claimed(claim) => *claim,
            ClaimOutcome::Held { .. } => return Err(ServiceError::Elsewhere),
            ClaimOutcome::Absent => return Err(ServiceError::Absent(id.clone())),
        };
        let ledger = Ledger::load(parts.store.clone(), parts.clock.clone(), parts.ids.clone(), claim).await?;
        Ok(self.spawn(held, ledger, None, true))
    }

    fn spawn(
        &self,
        held: &mut MutexGuard<'_, Option<mpsc::Sender<Mail>>>,
        ledger: Ledger,
        room: Option<driver::StartingRoom>,
        taken_over: bool,
    ) -> mpsc::Sender<Mail> {
        let (sender, mailbox) = mpsc::channel(MAILBOX_MAX);
        **held = Some(sender.clone());
        let channel = self.0.hub.channel(&ledger.session.id);
        if room.is_some() {
            channel.work_accepted();
        }
        let mut driver = Driver::new(self.parts().clone(), ledger, channel, mailbox);
        if let Some(room) = room {
            driver = driver.with_room(room);
        }
        tokio::spawn(survive(self.clone(), driver, taken_over));
        sender
    }

    /// Answers a repeated request, if its record is there already.
    async fn first_answer(
        &self,
        workspace: &WorkspaceId,
        once: Option<&OnceKey>,
    ) -> Result<Option<Accepted>, ServiceError> {
        let Some(once) = once else { return Ok(None) };
        let parts = self.parts();
        let not_before = Timestamp(parts.clock.now().micros() - (IDEMPOTENCY_WINDOW_MS as i64) * 1_000);
        match parts.store.once().find(workspace, &once.key, not_before).await? {
            None => Ok(None),
            Some(record) => self.repeated(record, Some(&once.request_digest)).await.map(Some),
        }
    }

    /// What the request that `record` is of was answered, if the request of `digest` is the same.
    async fn repeated(&self, record: OnceRecord, digest: Option<&String>) -> Result<Accepted, ServiceError> {
        if digest != Some(&record.request_digest) {
            return Err(ServiceError::KeyReused { key: record.key });
        }
        crate::history::first_answer(self.parts().store.as_ref(), record).await
    }

    /// Asked again once a slot is held: `stop` may have passed it by then, and would not see another driver.
    fn refuse_when_stopping(&self) -> Result<(), ServiceError> {
        if *self.0.stopping.borrow() { Err(ServiceError::Stopping) } else { Ok(()) }
    }

    fn slot(&self, id: &SessionId) -> Result<Slot, ServiceError> {
        self.refuse_when_stopping()?;
        let mut slots = self.0.slots.lock();
        if let Some(slot) = slots.get(id) {
            return Ok(slot.clone());
        }
        if slots.len() >= SESSIONS_LIVING_MAX {
            let text = format!("{SESSIONS_LIVING_MAX} sessions are alive on this server; try again when some are idle");
            return Err(ServiceError::Busy(text));
        }
        let slot = Slot::default();
        slots.insert(id.clone(), slot.clone());
        Ok(slot)
    }

    /// Forgets a slot without a driver that nobody else is looking at.
    fn forget_slot(&self, id: &SessionId, slot: Slot) {
        let mut slots = self.0.slots.lock();
        let is_empty = slot.try_lock().is_ok_and(|held| held.as_ref().is_none_or(mpsc::Sender::is_closed));
        // Two: the map's and ours. Slots are handed out under the map's lock, so nobody can join now.
        if is_empty && Arc::strong_count(&slot) == 2 {
            slots.remove(id);
        }
    }
}

/// A driver that panics takes nothing but itself along: its session is taken up again.
async fn survive(service: SessionService, driver: Driver, taken_over: bool) {
    let id = driver.id().clone();
    let life = AssertUnwindSafe(live(service.clone(), driver, taken_over));
    if life.catch_unwind().await.is_err() {
        tracing::error!(session = %id, "a driver panicked; its session will be taken up again");
        service.abandon(id);
    }
}

/// A driver's whole life, and its orderly end.
async fn live(service: SessionService, mut driver: Driver, taken_over: bool) {
    let id = driver.id().clone();
    let halt = driver.run(taken_over).await;
    let slot = service.0.slots.lock().get(&id).cloned();
    let mut held = match &slot {
        Some(slot) => Some(slot.lock().await),
        None => None,
    };
    driver.close().await;
    match &halt {
        Halt::Hibernate | Halt::Stopping | Halt::Deleted => tracing::debug!(session = %id, %halt, "a driver ends"),
        Halt::Fenced => tracing::warn!(session = %id, %halt, "a driver ends"),
        Halt::Broken(_) | Halt::Store(_) | Halt::Overtaken => {
            tracing::error!(session = %id, %halt, "a session was given up; it will be taken up again");
            service.abandon(id.clone());
        }
    }
    if !matches!(halt, Halt::Fenced | Halt::Deleted) {
        let released = service.parts().store.journal().release(&id, driver.epoch()).await;
        if let Err(fault) = released {
            tracing::warn!(session = %id, %fault, "the claim could not be given up; its lease will end");
        }
    }
    if let Some(held) = held.as_mut() {
        **held = None;
    }
    drop(held);
    if let Some(slot) = slot {
        service.forget_slot(&id, slot);
    }
}

/// Where a follower that names no place begins.
fn live_start(fold: &SessionFold, channel: &Arc<Channel>, now: Timestamp) -> Seq {
    let unseen = !channel.was_seen() && now.since_ms(fold.last_at) < LATE_ATTACH_MS;
    let shows_run = fold.status != Status::Idle || unseen;
    match shows_run && fold.run_first_seq > 0 && fold.status != Status::Terminated {
        true => fold.run_first_seq - 1,
        false => fold.last_seq,
    }
}
