//! Where each session's driver is found: its *slot*.
//!
//! At most one driver of a session lives in this process: its slot is locked while a driver is started or put away, so
//! nobody starts a second one beside it. Between processes the journal's epoch does the same.

use crate::driver::Mail;
use crate::requests::ServiceError;
use loopd_domain::SessionId;
use loopd_domain::limits::SESSIONS_LIVING_MAX;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, mpsc};

/// The driver's mailbox, when one lives.
pub type Slot = Arc<AsyncMutex<Option<mpsc::Sender<Mail>>>>;
pub type HeldSlot<'a> = MutexGuard<'a, Option<mpsc::Sender<Mail>>>;

/// The slots of all sessions that are alive here.
#[derive(Default)]
pub struct Slots(Mutex<HashMap<SessionId, Slot>>);

impl Slots {
    /// The session's slot, made if there is none and room for one more.
    pub fn of(&self, id: &SessionId) -> Result<Slot, ServiceError> {
        let mut slots = self.0.lock();
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

    pub fn find(&self, id: &SessionId) -> Option<Slot> {
        self.0.lock().get(id).cloned()
    }

    pub fn all(&self) -> Vec<Slot> {
        self.0.lock().values().cloned().collect()
    }

    /// Forgets a slot without a driver that nobody else is looking at.
    pub fn forget(&self, id: &SessionId, slot: Slot) {
        let mut slots = self.0.lock();
        let is_empty = slot.try_lock().is_ok_and(|held| held.as_ref().is_none_or(mpsc::Sender::is_closed));
        // Two: the map's and ours. Slots are handed out under the map's lock, so nobody can join now.
        if is_empty && Arc::strong_count(&slot) == 2 {
            slots.remove(id);
        }
    }
}
