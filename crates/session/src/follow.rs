//! A follower: journal entries, each once and in order, with previews in between.
//!
//! The session's driver hands over what it has just written; what it does not (of before, of another process, too much for a
//! slow reader, too large to be kept for one) is read from the journal by seq. The store's watch only says when to look. Previews
//! come the same way, and may be lost; a follower that lost some is silent about that message until the journal has it.

use crate::hub::{Attachment, Preview, Told};
use crate::requests::Followed;
use loopd_domain::event::{Event, EventBody};
use loopd_domain::{EventId, Seq, SessionId, WorkspaceId};
use loopd_store::{Store, StoreError};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// Events read at a time. All of them wait in memory for a reader that is slow, and one may be a whole tool result.
const READ_ROWS: usize = 32;
/// Ids remembered so that a late preview of a message already shown is dropped.
const SHOWN_MAX: usize = 256;

/// A place in a session's journal that moves on as the journal grows.
pub struct Follower {
    store: Arc<dyn Store>,
    workspace: WorkspaceId,
    session: SessionId,
    after: Seq,
    hint: watch::Receiver<Seq>,
    attachment: Attachment,
    events: VecDeque<Arc<Event>>,
    /// What was heard last and is not shown yet.
    told: Option<Told>,
    /// The journal may hold more than was told.
    is_behind: bool,
    /// Messages that were shown whole.
    shown: VecDeque<EventId>,
    /// Messages whose start was previewed on this connection.
    started: VecDeque<EventId>,
    stopping: watch::Receiver<bool>,
    ended: bool,
}

impl Follower {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        workspace: WorkspaceId,
        session: SessionId,
        after: Seq,
        attachment: Attachment,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let hint = store.journal().watch(&session);
        Follower {
            store,
            workspace,
            session,
            after,
            hint,
            attachment,
            events: VecDeque::new(),
            told: None,
            // Look once at the start, whatever was told.
            is_behind: true,
            shown: VecDeque::new(),
            started: VecDeque::new(),
            stopping,
            ended: false,
        }
    }

    /// The next item; waits for it. `None` after `Deleted`, and when the service stops. Safe to cancel.
    ///
    /// A preview was made before the entry that it previews was written, so it goes before every event after its base.
    pub async fn next(&mut self) -> Option<Result<Followed, StoreError>> {
        while !self.ended {
            self.hear();
            let next_seq = self.events.front().map(|e| e.seq);
            match self.told.take() {
                Some(Told::Preview(Preview { base, item }))
                    if next_seq.map_or(base <= self.after, |seq| base < seq) =>
                {
                    if let Some(item) = self.admit(item) {
                        return Some(Ok(item));
                    }
                }
                // It was read already.
                Some(Told::Written(written)) if written.seq <= self.events.back().map_or(self.after, |e| e.seq) => {}
                Some(Told::Written(written)) if next_seq.is_none() => {
                    let follows = !self.is_behind && written.seq == self.after + 1;
                    match self.attachment.event(&written).filter(|_| follows) {
                        Some(event) => self.events.push_back(event),
                        None => self.is_behind = true,
                    }
                }
                told => {
                    self.told = told;
                    if let Some(event) = self.events.pop_front() {
                        self.after = event.seq;
                        if event.body.is_public() {
                            self.note_shown(&event);
                            return Some(Ok(Followed::Event(event)));
                        }
                    } else if let Err(fault) = self.look().await {
                        return Some(Err(fault));
                    }
                }
            }
        }
        None
    }

    fn hear(&mut self) {
        while self.told.is_none() {
            match self.attachment.told.try_recv() {
                Ok(told) => self.heard(told),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.missed(),
                Err(_) => return,
            }
        }
    }

    fn heard(&mut self, told: Told) {
        match told {
            Told::Look => self.is_behind = true,
            told => self.told = Some(told),
        }
    }

    fn missed(&mut self) {
        self.started.clear();
        self.is_behind = true;
    }

    /// Reads what there is, or waits for it.
    async fn look(&mut self) -> Result<(), StoreError> {
        // The entry that a preview follows has not been heard of.
        let awaits_entry = self.told.is_some();
        if !awaits_entry && !self.is_behind {
            return self.wait().await;
        }
        if !self.read().await? && awaits_entry {
            // It is not there: the session is gone, and so is what it said.
            self.told = None;
        }
        Ok(())
    }

    /// Waits until there may be something to look at.
    async fn wait(&mut self) -> Result<(), StoreError> {
        let is_announced = self.attachment.is_announced();
        tokio::select! {
            told = self.attachment.told.recv() => match told {
                Ok(told) => self.heard(told),
                Err(broadcast::error::RecvError::Lagged(_)) => self.missed(),
                Err(broadcast::error::RecvError::Closed) => return Err(StoreError::Closed),
            },
            Ok(()) = self.attachment.progress.changed() => {
                // Only what stands now is shown, and to those who have seen all that is written.
                let progress = self.attachment.progress.borrow_and_update().clone();
                let item = progress.map(Followed::RoomProgress);
                self.told = item.map(|item| Told::Preview(Preview { base: self.after, item }));
            }
            changed = self.hint.changed(), if !is_announced => {
                if changed.is_err() {
                    // The store drops a watch that it no longer needs; take a new one.
                    self.hint = self.store.journal().watch(&self.session);
                }
                self.is_behind = true;
            }
            // Whoever waits for what comes would wait for ever.
            () = stopped(&mut self.stopping) => self.ended = true,
            // The hint is of this process only, and a hint: another node may append.
            () = tokio::time::sleep(std::time::Duration::from_secs(2)) => {
                if self.store.sessions().get(&self.workspace, &self.session).await?.is_none() {
                    self.told = Some(Told::Preview(Preview { base: 0, item: Followed::Deleted }));
                }
                self.is_behind = true;
            }
        }
        Ok(())
    }

    /// Reads what follows. False when there is nothing.
    async fn read(&mut self) -> Result<bool, StoreError> {
        let events = self.store.journal().read(&self.session, self.after, READ_ROWS).await?;
        self.is_behind = events.len() == READ_ROWS;
        self.events = events.into_iter().map(Arc::new).collect();
        Ok(!self.events.is_empty())
    }

    /// Lets a preview through if it still makes sense here.
    fn admit(&mut self, item: Followed) -> Option<Followed> {
        match &item {
            Followed::MessageStart { id } | Followed::ThinkingStart { id } => {
                if self.shown.contains(id) || self.started.contains(id) {
                    return None;
                }
                self.started.push_back(id.clone());
                if self.started.len() > SHOWN_MAX {
                    self.started.pop_front();
                }
            }
            Followed::MessageText { id, .. } if self.shown.contains(id) || !self.started.contains(id) => return None,
            Followed::Deleted => self.ended = true,
            _ => {}
        }
        Some(item)
    }

    fn note_shown(&mut self, event: &Event) {
        if matches!(event.body, EventBody::AgentMessage { .. } | EventBody::AgentThinking { .. }) {
            self.shown.push_back(event.id.clone());
            if self.shown.len() > SHOWN_MAX {
                self.shown.pop_front();
            }
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the service is gone, which is the same.
    drop(stopping.wait_for(|stop| *stop).await);
}

#[cfg(test)]
mod tests;
