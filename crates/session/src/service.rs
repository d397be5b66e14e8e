//! The door to all sessions: what may be asked of them, what of that needs the session's driver, and what needs none.
//!
//! How a driver is found, started and put away is `drivers`'s.

use crate::census::{Census, Share};
use crate::driver::{self, Mail, Sent};
use crate::follow::Follower;
use crate::hub::{Channel, Hub};
use crate::ledger::{Birth, Ledger, seal};
use crate::requests::*;
use crate::slots::{Slot, Slots};
use crate::{admission, keeper, requirement, sweep};
use loopd_domain::chain::GENESIS;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::event::EventBody;
use loopd_domain::fold::SessionFold;
use loopd_domain::limits::{IDEMPOTENCY_WINDOW_MS, LEASE_MS};
use loopd_domain::session::{Session, Status, TurnSettings};
use loopd_domain::{Epoch, EventId, Seq, SessionId, Timestamp, WorkspaceId, ids};
use loopd_images::Images;
use loopd_store::{AppendError, Lease, OnceRecord, OwnerId, SessionFilter, StoreError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Drivers that a request tries: each but the last was about to end when the request came.
const DRIVER_TRIES: u32 = 8;
/// How long a request waits for room in its session's mailbox.
const MAILBOX_WAIT: Duration = Duration::from_secs(5);
/// A turn that ended this recently and that nobody saw is shown to a late follower.
const LATE_ATTACH_MS: u64 = 5_000;

/// The door to all sessions. Cheap to clone.
#[derive(Clone)]
pub struct SessionService(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    parts: Arc<Parts>,
    owner: OwnerId,
    pub(crate) hub: Hub,
    pub(crate) slots: Slots,
    pub(crate) census: Arc<Census>,
    /// Sessions that were given up and that nobody has taken up again yet.
    abandoned: Mutex<Vec<SessionId>>,
    stopping: watch::Sender<bool>,
}

impl SessionService {
    /// Starts the service; what has lost its owner is taken up in the background.
    pub async fn start(parts: Parts) -> Result<Self, ServiceError> {
        Self::start_with(parts, Share::default()).await
    }

    /// The same, where a workspace may have this much.
    pub async fn start_with(parts: Parts, share: Share) -> Result<Self, ServiceError> {
        let owner = OwnerId(format!("own_{}", ids::encode_ulid(parts.ids.ulid())));
        let (sole_owner, takes_up) = (parts.sole_owner, parts.takes_up);
        let service = SessionService(Arc::new(Inner {
            parts: Arc::new(parts),
            owner,
            hub: Hub::default(),
            slots: Slots::default(),
            census: Census::new(share),
            abandoned: Mutex::default(),
            stopping: watch::Sender::new(false),
        }));
        let first = service.clone();
        tokio::spawn(async move {
            if sole_owner && takes_up {
                keeper::take_up_all(&first).await;
            }
            keeper::keep(first).await;
        });
        if sole_owner && takes_up {
            tokio::spawn(sweep::keep(service.clone()));
        }
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
        let mut abandoned = self.0.abandoned.lock();
        if !abandoned.contains(&id) {
            abandoned.push(id);
        }
    }

    /// Returns when the service is told to stop.
    pub(crate) async fn stopping(&self) {
        // An error means that the service is gone, which is the same.
        let _ = self.0.stopping.subscribe().wait_for(|stop| *stop).await;
    }

    pub fn images(&self) -> &Images {
        &self.parts().images
    }

    /// Whether the workspace's sessions may have rooms of such an environment, and they could be made here, as far as this can be said
    /// without fetching anything. `at`: what the caller calls the environment.
    pub async fn check_room(
        &self,
        workspace: &WorkspaceId,
        at: &str,
        room: &EnvironmentConfig,
    ) -> Result<(), ServiceError> {
        requirement::check(self.parts().store.as_ref(), workspace, at, room).await?;
        self.check_root(room)
    }

    fn check_root(&self, room: &EnvironmentConfig) -> Result<(), ServiceError> {
        let checked = self.parts().images.check(&room.root);
        checked.map_err(|fault| ServiceError::Refused(format!("`config.root` of the environment: {fault}")))
    }

    pub async fn create(&self, new: NewSession, once: Option<OnceKey>) -> Result<Accepted, ServiceError> {
        let parts = self.parts();
        parts.models.resolve(&new.agent.spec.model)?;
        if let Some(first) = self.first_answer(&new.workspace, once.as_ref()).await? {
            return Ok(first);
        }
        self.check_room(&new.workspace, "environment", &new.room).await?;
        let now = parts.clock.now();
        let session = Session {
            id: SessionId::generate(parts.ids.as_ref()),
            workspace: new.workspace,
            agent: new.agent,
            environment: new.environment,
            room: new.room,
            vaults: new.vaults,
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
        // Until the driver is counted by itself.
        let share = starts.then(|| self.0.census.admit(&ledger.session.workspace, true, true)).transpose()?;
        let slot = self.slot(&ledger.session.id)?;
        let mut held = slot.lock().await;
        self.refuse_when_stopping()?;
        let digest = once.as_ref().map(|o| o.request_digest.clone());
        let once =
            once.map(|key| once_record(&ledger.session.workspace, key, &ledger.session.id, &admitted.inputs, 0, now));
        let stored = Session { fold: draft.fold.clone(), ..ledger.session.clone() };
        let made = match starts {
            // A session that only rests is nobody's.
            false => parts.store.journal().create(stored.clone(), seal(&GENESIS, &draft.events)?, None, once).await,
            true => {
                // Ahead of the disk: a session that does not arrive there takes its ledger along.
                ledger.hold(&draft)?;
                ledger.be_born(Birth { lease: Lease { owner: self.owner(), until: now.plus_ms(LEASE_MS) }, once });
                let begins = driver::begins_at_once(&ledger);
                let room = driver::start(parts, &ledger).spawned();
                let (born, made) = oneshot::channel();
                self.spawn_new(&mut held, ledger, room, born, begins);
                drop(share);
                made.await.unwrap_or(Err(AppendError::Store(StoreError::Closed)))
            }
        };
        drop(held);
        self.0.slots.forget(&stored.id, slot);
        match made {
            Ok(()) => Ok(Accepted { session: stored, inputs: admitted.inputs, seq: 0, repeated: false }),
            Err(AppendError::Repeated(record)) => self.repeated(record, digest.as_ref()).await,
            Err(fault) => Err(fault.into()),
        }
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
        let session = self.get(workspace, id).await?;
        if let Some(first) = self.first_answer(workspace, once.as_ref()).await? {
            return Ok(first);
        }
        let ends = |input: &EventBody| matches!(input, EventBody::UserInterrupt { .. });
        let starts = session.fold.status == Status::Idle && !inputs.iter().all(ends);
        if starts {
            // It may require more by now than when the session was made.
            requirement::check(self.parts().store.as_ref(), workspace, "environment", &session.room).await?;
        }
        let _share = match starts {
            true => Some(self.0.census.admit(workspace, self.0.slots.find(id).is_none(), true)?),
            false => None,
        };
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
        self.get(workspace, id).await?;
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
                // Read again: the driver that agreed has claimed the session, and its room obeys no earlier epoch.
                let removed = match self.get(workspace, id).await {
                    Ok(session) => self.remove(&session).await,
                    Err(fault) => Err(fault),
                };
                drop(held);
                self.0.slots.forget(id, slot);
                return removed;
            }
        }
        Err(ServiceError::Busy(format!("session `{id}` is in use; try again")))
    }

    /// Removes what is stored of a session that nobody drives.
    async fn remove(&self, session: &Session) -> Result<(), ServiceError> {
        let parts = self.parts();
        fail::fail_point!("session::before_delete");
        parts.store.sessions().delete(&session.workspace, &session.id).await?;
        fail::fail_point!("session::after_delete");
        let spec = driver::spec(parts, &session.id, session.epoch, &session.room);
        if let Err(fault) = parts.sandbox.remove(&spec).await {
            tracing::warn!(session = %session.id, %fault, "the files of a deleted session could not be removed");
        }
        let channel = self.0.hub.channel(&session.id);
        channel.forget();
        channel.publish(0, Followed::Deleted);
        Ok(())
    }

    /// Takes the content of one event out of the history. Refused while a turn runs.
    pub async fn redact(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
        event_id: EventId,
        reason: Option<String>,
    ) -> Result<RedactedEvent, ServiceError> {
        self.get(workspace, id).await?;
        self.ask(id, |reply| Mail::Redact { event_id: event_id.clone(), reason: reason.clone(), reply }).await
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
        Ok(self.follower(&session, after, &channel))
    }

    /// Follows what was just accepted, from its own inputs on.
    pub fn follow_accepted(&self, accepted: &Accepted) -> Follower {
        let session = &accepted.session;
        self.follower(session, accepted.seq, &self.0.hub.channel(&session.id))
    }

    fn follower(&self, session: &Session, after: Seq, channel: &Arc<Channel>) -> Follower {
        let store = self.parts().store.clone();
        let (workspace, id) = (session.workspace.clone(), session.id.clone());
        Follower::new(store, workspace, id, after, channel.attach(), self.0.stopping.subscribe())
    }

    /// Lets running sessions go: their turns are taken up at the next start. What becomes of their rooms is `mode`'s.
    pub async fn stop(&self, mode: StopMode) {
        self.0.stopping.send_replace(true);
        let slots = self.0.slots.all();
        let mut mailboxes = Vec::new();
        for slot in &slots {
            let mailbox = slot.lock().await.clone();
            if let Some(mailbox) = mailbox {
                // A closed mailbox belongs to a driver that ends anyway.
                let _ = mailbox.send(Mail::Stop { mode }).await;
                mailboxes.push((slot, mailbox));
            }
        }
        for (slot, mailbox) in mailboxes {
            mailbox.closed().await;
            drop(slot.lock().await);
        }
    }

    /// Asked again once a slot is held: `stop` may have passed it by then, and would not see another driver.
    pub(crate) fn refuse_when_stopping(&self) -> Result<(), ServiceError> {
        if *self.0.stopping.borrow() { Err(ServiceError::Stopping) } else { Ok(()) }
    }

    pub(crate) fn slot(&self, id: &SessionId) -> Result<Slot, ServiceError> {
        self.refuse_when_stopping()?;
        self.0.slots.of(id)
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

    /// Answers a repeated request, if its record is there already.
    pub(crate) async fn first_answer(
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
    pub(crate) async fn repeated(&self, record: OnceRecord, digest: Option<&String>) -> Result<Accepted, ServiceError> {
        if digest != Some(&record.request_digest) {
            return Err(ServiceError::KeyReused { key: record.key });
        }
        crate::history::first_answer(self.parts().store.as_ref(), record).await
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
