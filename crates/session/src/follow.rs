//! A follower: journal entries, each once and in order, with previews in between.
//!
//! The journal is read by seq; the store's watch only says when to look. Previews come by a bounded broadcast that may
//! lose them; a follower that lost some is silent about that message until the journal has it.

use crate::hub::{Attachment, Preview};
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
    events: VecDeque<Event>,
    preview: Option<Preview>,
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
        let mut hint = store.journal().watch(&session);
        // Look once at the start, whatever the hint says.
        hint.mark_changed();
        Follower {
            store,
            workspace,
            session,
            after,
            hint,
            attachment,
            events: VecDeque::new(),
            preview: None,
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
            self.take_preview();
            let next_seq = self.events.front().map(|e| e.seq);
            let base = self.preview.as_ref().map(|p| p.base);
            let is_due = base.is_some_and(|base| next_seq.map_or(base <= self.after, |seq| base < seq));
            if is_due {
                if let Some(item) = self.preview.take().and_then(|p| self.admit(p.item)) {
                    return Some(Ok(item));
                }
            } else if let Some(event) = self.events.pop_front() {
                self.after = event.seq;
                if event.body.is_public() {
                    self.note_shown(&event);
                    return Some(Ok(Followed::Event(event)));
                }
            } else if let Err(fault) = self.look().await {
                return Some(Err(fault));
            }
        }
        None
    }

    fn take_preview(&mut self) {
        while self.preview.is_none() {
            match self.attachment.previews.try_recv() {
                Ok(preview) => self.preview = Some(preview),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.started.clear(),
                Err(_) => return,
            }
        }
    }

    /// Reads what there is, or waits for it.
    async fn look(&mut self) -> Result<(), StoreError> {
        let is_behind = self.preview.is_some();
        if !is_behind && !self.hint.has_changed().unwrap_or(true) {
            return self.wait().await;
        }
        self.hint.mark_unchanged();
        match self.read().await {
            Ok(false) if is_behind => {
                // The entry that the preview follows is not there: the session is gone, and so is what it said.
                self.preview = None;
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(fault) => {
                self.hint.mark_changed();
                Err(fault)
            }
        }
    }

    /// Waits until there may be something to look at.
    async fn wait(&mut self) -> Result<(), StoreError> {
        tokio::select! {
            preview = self.attachment.previews.recv() => match preview {
                Ok(preview) => self.preview = Some(preview),
                Err(broadcast::error::RecvError::Lagged(_)) => self.started.clear(),
                Err(broadcast::error::RecvError::Closed) => return Err(StoreError::Closed),
            },
            changed = self.hint.changed() => {
                if changed.is_err() {
                    // The store drops a watch that it no longer needs; take a new one.
                    self.hint = self.store.journal().watch(&self.session);
                }
                self.hint.mark_changed();
            }
            // Whoever waits for what comes would wait for ever.
            () = stopped(&mut self.stopping) => self.ended = true,
            // The hint is of this process only, and a hint: another node may append.
            () = tokio::time::sleep(std::time::Duration::from_secs(2)) => {
                if self.store.sessions().get(&self.workspace, &self.session).await?.is_none() {
                    self.preview = Some(Preview { base: 0, item: Followed::Deleted });
                }
                self.hint.mark_changed();
            }
        }
        Ok(())
    }

    /// Reads what follows. False when there is nothing.
    async fn read(&mut self) -> Result<bool, StoreError> {
        let events = self.store.journal().read(&self.session, self.after, READ_ROWS).await?;
        if events.len() == READ_ROWS {
            self.hint.mark_changed();
        }
        self.events = events.into();
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
