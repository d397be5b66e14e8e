//! Where drivers and followers of one session meet: previews, and whether anybody watches.
//!
//! Nothing here is truth. A follower that finds no channel, or loses previews, still sees every event in the journal.

use crate::requests::Followed;
use loopd_domain::limits::PREVIEWS_PER_FOLLOWER_MAX;
use loopd_domain::{Seq, SessionId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::broadcast;

/// A preview, and the last durable seq when it was made: it belongs after that event and before the next.
#[derive(Debug, Clone)]
pub struct Preview {
    pub base: Seq,
    pub item: Followed,
}

/// One session's meeting point. Lives as long as its driver or a follower holds it.
pub struct Channel {
    previews: broadcast::Sender<Preview>,
    followers: AtomicUsize,
    /// A follower was attached at some time since work was last accepted.
    seen: AtomicBool,
}

impl Channel {
    fn new() -> Self {
        let (previews, _) = broadcast::channel(PREVIEWS_PER_FOLLOWER_MAX);
        Channel { previews, followers: AtomicUsize::new(0), seen: AtomicBool::new(false) }
    }

    /// Slow followers lose the oldest previews; nobody waits for them.
    pub fn publish(&self, base: Seq, item: Followed) {
        // No receiver is not a fault: nobody watches.
        let _ = self.previews.send(Preview { base, item });
    }

    pub fn is_watched(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    /// Work was accepted: from now on somebody has to see it.
    pub fn work_accepted(&self) {
        self.seen.store(self.is_watched(), Ordering::Relaxed);
    }

    pub fn was_seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    pub fn attach(self: &Arc<Self>) -> Attachment {
        self.followers.fetch_add(1, Ordering::Relaxed);
        self.seen.store(true, Ordering::Relaxed);
        Attachment { previews: self.previews.subscribe(), channel: self.clone() }
    }
}

/// A follower's hold on a channel.
pub struct Attachment {
    pub previews: broadcast::Receiver<Preview>,
    channel: Arc<Channel>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.channel.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Every channel that somebody holds.
#[derive(Default)]
pub struct Hub {
    channels: Mutex<HashMap<SessionId, Weak<Channel>>>,
}

impl Hub {
    pub fn channel(&self, session: &SessionId) -> Arc<Channel> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(session).and_then(Weak::upgrade) {
            return channel;
        }
        // Forget what nobody holds whenever the map would grow, so that it stays as large as what lives.
        if channels.len() == channels.capacity() {
            channels.retain(|_, channel| channel.strong_count() > 0);
        }
        let channel = Arc::new(Channel::new());
        channels.insert(session.clone(), Arc::downgrade(&channel));
        channel
    }
}
