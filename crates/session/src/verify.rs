//! Is a session's journal what was written, and a legal history, and is its cached fold what follows from it?

use crate::requests::ServiceError;
use crate::service::SessionService;
use loopd_domain::chain::{GENESIS, hex};
use loopd_domain::event::{Event, EventBody};
use loopd_domain::fold::SessionFold;
use loopd_domain::session::Session;
use loopd_domain::{EventId, Seq, SessionId, WorkspaceId};
use loopd_store::chain::verify;
use loopd_store::{Head, SealedEntry};
use serde::Serialize;

/// Entries read at a time.
const READ_ROWS: usize = 256;
/// Looks at a session whose journal grows between the two parts of a look.
const LOOKS: u32 = 5;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    pub valid: bool,
    pub entries: Seq,
    /// Hash of the last entry that was proved, hex. Whoever keeps it can prove later that nothing before it was changed.
    pub head: String,
    /// Entries whose content was taken out; that they stood there, and when, is proved all the same.
    pub redacted: Vec<RedactedEntry>,
    /// The first place where it is not what was written.
    pub broken: Option<Breach>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedactedEntry {
    pub seq: Seq,
    pub event_id: EventId,
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breach {
    pub seq: Seq,
    pub reason: String,
}

impl SessionService {
    pub async fn verify(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Verification, ServiceError> {
        let (session, recorded) = self.look(workspace, id).await?;
        let mut proof =
            Proof { head: Head { seq: 0, hash: GENESIS }, fold: SessionFold::default(), redacted: Vec::new() };
        let mut broken = None;
        while proof.head.seq < recorded.seq && broken.is_none() {
            let left = usize::try_from(recorded.seq - proof.head.seq).unwrap_or(READ_ROWS).min(READ_ROWS);
            let entries = self.parts().store.journal().sealed(id, proof.head.seq, left).await?;
            broken = match entries.is_empty() {
                true => Some(proof.breach(format!("the journal ends here; {} entries had been written", recorded.seq))),
                false => entries.iter().find_map(|entry| proof.apply(entry).err()),
            };
        }
        let broken = broken.or_else(|| proof.compare(&session, recorded));
        let Proof { head, redacted, .. } = proof;
        Ok(Verification { valid: broken.is_none(), entries: head.seq, head: hex(&head.hash), redacted, broken })
    }

    /// The session and the end of its journal at the same moment.
    async fn look(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<(Session, Head), ServiceError> {
        for _ in 0..LOOKS {
            let session = self.get(workspace, id).await?;
            let head = self.parts().store.journal().head(id).await?;
            let head = head.ok_or_else(|| ServiceError::Absent(id.clone()))?;
            let again = self.get(workspace, id).await?;
            if again.fold == session.fold {
                return Ok((session, head));
            }
        }
        Err(ServiceError::Busy(format!("session `{id}` does too much to be looked at; try again")))
    }
}

struct Proof {
    head: Head,
    fold: SessionFold,
    redacted: Vec<RedactedEntry>,
}

impl Proof {
    fn apply(&mut self, entry: &SealedEntry) -> Result<(), Breach> {
        let head = verify(self.head, std::slice::from_ref(entry)).map_err(|fault| self.breach(fault.to_string()))?;
        let event = event_of(entry).map_err(|fault| self.breach(fault))?;
        self.fold.apply(&event).map_err(|fault| self.breach(fault.to_string()))?;
        if entry.redacted.is_some() {
            self.redacted.push(RedactedEntry { seq: entry.seq, event_id: entry.id.clone(), kind: entry.kind.clone() });
        }
        self.head = head;
        Ok(())
    }

    /// At the entry that is looked at.
    fn breach(&self, reason: String) -> Breach {
        Breach { seq: self.head.seq + 1, reason }
    }

    fn compare(&self, session: &Session, recorded: Head) -> Option<Breach> {
        let reason = if self.head.hash != recorded.hash {
            "the last entry is not the one that had been written"
        } else if self.fold != session.fold {
            "the session's cached state is not what follows from its journal"
        } else {
            return None;
        };
        Some(Breach { seq: self.head.seq, reason: reason.to_owned() })
    }
}

/// The event that an entry holds.
pub(crate) fn event_of(entry: &SealedEntry) -> Result<Event, String> {
    let body: EventBody =
        serde_json::from_str(&entry.payload).map_err(|e| format!("its payload cannot be read: {e}"))?;
    if body.kind() != entry.kind {
        return Err(format!("it is said to be `{}`, and its payload is `{}`", entry.kind, body.kind()));
    }
    Ok(Event { seq: entry.seq, id: entry.id.clone(), at: entry.at, body })
}
