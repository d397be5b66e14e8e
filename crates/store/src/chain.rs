//! Proof that a journal is what was written: nothing changed, nothing cut, nothing put in between.

use crate::port::{Head, Journal, SealedEntry, StoreError};
use loopd_domain::chain::{GENESIS, Hash, link};
use loopd_domain::{Seq, SessionId};
use sha2::{Digest, Sha256};

/// Entries read at a time.
const READ_ROWS: usize = 256;

/// The first place where a journal is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("entry {expected} is missing; {found} follows")]
    Gap { expected: Seq, found: Seq },
    #[error("entry {seq} is not what was written, or its predecessor is not")]
    Changed { seq: Seq },
    #[error("the journal ends at entry {found}, and {expected} had been written")]
    Cut { expected: Seq, found: Seq },
    #[error("entry {seq}, the last, is not the one that had been written")]
    Replaced { seq: Seq },
}

/// A journal that is what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub head: Head,
    /// Entries whose content was taken out; that they stood there, and when, is proved all the same.
    pub redacted: Vec<Seq>,
}

/// Re-computes the links of entries that follow `head`, and returns the new head.
pub fn verify(head: Head, entries: &[SealedEntry]) -> Result<Head, Broken> {
    entries.iter().try_fold(head, |head, entry| {
        let expected = head.seq + 1;
        if entry.seq != expected {
            return Err(Broken::Gap { expected, found: entry.seq });
        }
        let digest: Hash = entry.redacted.unwrap_or_else(|| Sha256::digest(entry.payload.as_bytes()).into());
        let hash = link(&head.hash, entry.seq, &entry.id, &entry.kind, entry.at, &digest);
        if hash != entry.hash {
            return Err(Broken::Changed { seq: entry.seq });
        }
        Ok(Head { seq: entry.seq, hash })
    })
}

/// Verifies a session's whole journal, up to where it stood when this began. `None` when there is no such session.
pub async fn verify_session(
    journal: &dyn Journal,
    session: &SessionId,
) -> Result<Option<Result<Verified, Broken>>, StoreError> {
    let Some(recorded) = journal.head(session).await? else { return Ok(None) };
    let mut head = Head { seq: 0, hash: GENESIS };
    let mut redacted = Vec::new();
    while head.seq < recorded.seq {
        let left = usize::try_from(recorded.seq - head.seq).unwrap_or(READ_ROWS);
        let entries = journal.sealed(session, head.seq, left.min(READ_ROWS)).await?;
        if entries.is_empty() {
            return Ok(Some(Err(Broken::Cut { expected: recorded.seq, found: head.seq })));
        }
        head = match verify(head, &entries) {
            Ok(head) => head,
            Err(broken) => return Ok(Some(Err(broken))),
        };
        redacted.extend(entries.iter().filter(|e| e.redacted.is_some()).map(|e| e.seq));
    }
    let ends_as_recorded = head.hash == recorded.hash;
    Ok(Some(if ends_as_recorded { Ok(Verified { head, redacted }) } else { Err(Broken::Replaced { seq: head.seq }) }))
}
