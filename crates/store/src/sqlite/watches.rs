//! Who waits for which session: hints that a journal has grown.
//!
//! A session has an entry here only while somebody listens, so a hundred thousand idle sessions cost nothing. Entries whose
//! listeners are gone are dropped when the journal grows next, and all of them whenever the map itself would have to grow.

use loopd_domain::{Seq, SessionId};
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::watch;

#[derive(Default)]
pub struct Watches {
    senders: Mutex<HashMap<SessionId, watch::Sender<Seq>>>,
}

impl Watches {
    pub fn watch(&self, session: &SessionId) -> watch::Receiver<Seq> {
        let mut senders = self.senders.lock();
        if let Some(sender) = senders.get(session) {
            return sender.subscribe();
        }
        if senders.len() == senders.capacity() {
            senders.retain(|_, sender| sender.receiver_count() > 0);
        }
        let (sender, receiver) = watch::channel(0);
        senders.insert(session.clone(), sender);
        receiver
    }

    /// To be called after the commit.
    pub fn publish(&self, session: &SessionId, seq: Seq) {
        let mut senders = self.senders.lock();
        if let Some(sender) = senders.get(session)
            && sender.send(seq).is_err()
        {
            senders.remove(session);
        }
    }

    /// The session is gone: whoever listens is told by the end of its watch.
    pub fn close(&self, session: &SessionId) {
        self.senders.lock().remove(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(n: usize) -> SessionId {
        SessionId::parse("session", &format!("sesn_{n}")).expect("an id")
    }

    #[test]
    fn hints_reach_every_listener_of_that_session_only() {
        let watches = Watches::default();
        let (mut a, mut b, mut other) =
            (watches.watch(&session(1)), watches.watch(&session(1)), watches.watch(&session(2)));
        watches.publish(&session(1), 7);
        assert_eq!((*a.borrow_and_update(), *b.borrow_and_update()), (7, 7));
        assert!(!other.has_changed().expect("open"));
        watches.close(&session(1));
        assert!(a.has_changed().is_err() && !other.borrow_and_update().ge(&1));
    }

    #[test]
    fn does_not_grow_with_sessions_that_nobody_watches_any_more() {
        let watches = Watches::default();
        let kept = watches.watch(&session(0));
        for n in 1..100_000 {
            drop(watches.watch(&session(n)));
        }
        assert!(watches.senders.lock().len() < 16, "{}", watches.senders.lock().len());
        watches.publish(&session(0), 3);
        assert_eq!(*kept.borrow(), 3);
        drop(kept);
        watches.publish(&session(0), 4);
        assert!(!watches.senders.lock().contains_key(&session(0)));
    }
}
