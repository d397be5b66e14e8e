//! A whole journal that was sealed before: proved on its way in, on the caller's side of the writer.

use crate::chain::verify;
use crate::port::{Head, Import, ImportError, SealedEntry};
use loopd_domain::chain::GENESIS;
use loopd_domain::event::{Event, EventBody};
use loopd_domain::fold::SessionFold;
use loopd_domain::limits::{IMPORT_BYTES_MAX, IMPORT_ENTRIES_MAX};

/// Proves chain, content and legality, and gives the session the fold that follows.
pub fn prove(mut import: Import) -> Result<Import, ImportError> {
    within("entries", import.entries.len(), IMPORT_ENTRIES_MAX)?;
    within("bytes", import.entries.iter().map(|e| e.payload.len()).sum(), IMPORT_BYTES_MAX)?;
    verify(Head { seq: 0, hash: GENESIS }, &import.entries)?;
    let mut fold = SessionFold::default();
    for entry in &import.entries {
        fold.apply(&event(entry)?)?;
    }
    import.session.fold = fold;
    Ok(import)
}

fn within(unit: &'static str, found: usize, max: usize) -> Result<(), ImportError> {
    if found > max { Err(ImportError::TooLarge { unit, found, max }) } else { Ok(()) }
}

fn event(entry: &SealedEntry) -> Result<Event, ImportError> {
    let unreadable = |reason| ImportError::Unreadable { seq: entry.seq, reason };
    let body: EventBody = serde_json::from_str(&entry.payload).map_err(|e| unreadable(e.to_string()))?;
    if body.kind() != entry.kind {
        return Err(unreadable(format!("it is said to be `{}`, and its payload is `{}`", entry.kind, body.kind())));
    }
    Ok(Event { seq: entry.seq, id: entry.id.clone(), at: entry.at, body })
}
