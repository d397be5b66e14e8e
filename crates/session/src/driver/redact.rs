//! Taking the content of an event out of the journal: tombstone first, then the event that tells of it.
//!
//! A crash between the two leaves a tombstone that nothing tells of; the same request again finishes what is missing.

use super::Driver;
use crate::requests::{RedactedEvent, ServiceError};
use loopd_domain::event::{Event, EventBody};
use loopd_domain::fold::SessionFold;
use loopd_domain::{EventId, Seq, SessionId, redaction};
use loopd_store::{RedactError, Redaction, Store};
use std::sync::Arc;

/// Events read at a time.
const READ_ROWS: usize = 512;

/// What of the journal concerns one event.
#[derive(Default)]
struct Found {
    event: Option<Event>,
    /// The entry that had held the event while it waited to be taken up.
    queued: Option<Event>,
    /// The journal tells of its redaction already.
    is_told: bool,
    /// Entries that no open turn needs any more.
    settled: Seq,
}

impl Driver {
    pub(super) async fn redact(
        &mut self,
        event_id: EventId,
        reason: Option<String>,
    ) -> Result<RedactedEvent, ServiceError> {
        let fold = self.ledger.fold();
        if fold.needs_owner() || (fold.turn.is_some() && !fold.is_waiting()) {
            let text = format!("session `{}` is running; interrupt it and wait until it is idle", self.id());
            return Err(ServiceError::Refused(text));
        }
        let found = find(self.parts.store.clone(), self.id().clone(), &event_id).await?;
        let refuse = |why: String| Err(ServiceError::Refused(format!("`event_id` is `{event_id}`: {why}")));
        let Some(event) = found.event else {
            return refuse("no event of that id is in this session's history".to_owned());
        };
        if event.seq > found.settled {
            return refuse("it belongs to a turn that is open; end that first".to_owned());
        }
        let mut outcome = RedactedEvent { event_id: event_id.clone(), entries: 0, purged: true };
        for entry in found.queued.iter().chain([&event]) {
            let Some(tombstone) = redaction::tombstone(&entry.body) else {
                return refuse(format!("`{}` holds nothing that somebody said", entry.body.kind()));
            };
            let (session, epoch) = (self.id().clone(), self.ledger.session.epoch);
            let redaction = Redaction { session, epoch, seq: entry.seq, tombstone };
            let redacted = self.parts.store.journal().redact(redaction).await.map_err(|fault| match fault {
                RedactError::Append(fault) => fault.into(),
                fault => ServiceError::Refused(format!("`event_id` is `{event_id}`: {fault}")),
            })?;
            self.channel.forget();
            outcome.entries += 1;
            outcome.purged &= redacted.purged;
        }
        // What the session knows must not be the old text.
        self.ledger.reload().await?;
        if !found.is_told {
            let mut draft = self.ledger.draft();
            draft.push(EventBody::EventRedacted { event_id, reason }).map_err(crate::admission::broken)?;
            self.ledger.commit(&draft, None).await?;
        }
        Ok(outcome)
    }
}

async fn find(store: Arc<dyn Store>, session: SessionId, id: &EventId) -> Result<Found, ServiceError> {
    let (mut found, mut fold) = (Found::default(), SessionFold::default());
    loop {
        let events = store.journal().read(&session, fold.last_seq, READ_ROWS).await?;
        if events.is_empty() {
            return Ok(found);
        }
        for event in events {
            fold.apply(&event).map_err(crate::admission::broken)?;
            if fold.turn.is_none() && fold.input_first_seq.is_none() && fold.queued.is_empty() {
                found.settled = event.seq;
            }
            match &event.body {
                EventBody::InputQueued { input } if input.id == *id => found.queued = Some(event),
                EventBody::EventRedacted { event_id, .. } if event_id == id => found.is_told = true,
                _ if event.id == *id => found.event = Some(event),
                _ => {}
            }
        }
    }
}
