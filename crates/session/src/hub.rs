//! Where drivers and followers of one session meet: what was just written, previews of what is to come, and whether anybody
//! watches.
//!
//! Nothing here is truth. An entry is told of after it is on disk, and a follower that finds no channel, or loses what it was
//! told, still sees every event in the journal.

use crate::driver::RoomProgress;
use crate::requests::Followed;
use loopd_domain::event::Event;
use loopd_domain::limits::{TOLD_BYTES_MAX, TOLD_PER_FOLLOWER_MAX};
use loopd_domain::{Seq, SessionId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::{broadcast, watch};

/// What a follower hears, in the order in which it came to be.
#[derive(Debug, Clone)]
pub enum Told {
    Preview(Preview),
    Written(Written),
    /// There may be more in the journal than was told, or other than that.
    Look,
}

/// A preview, and the last durable seq when it was made: it belongs after that event and before the next.
#[derive(Debug, Clone)]
pub struct Preview {
    pub base: Seq,
    pub item: Followed,
}

/// An entry that is on disk.
#[derive(Debug, Clone)]
pub struct Written {
    pub seq: Seq,
    /// `None`: more than is kept for those who are slow.
    event: Option<Arc<Event>>,
    edition: u64,
    /// As long as somebody has not heard it.
    _share: Option<Arc<Share>>,
}

/// A part of the bytes that are kept for followers.
#[derive(Debug)]
struct Share {
    kept: Arc<AtomicUsize>,
    bytes: usize,
}

impl Share {
    /// `None`: too much is kept already.
    fn take(kept: &Arc<AtomicUsize>, bytes: usize) -> Option<Arc<Share>> {
        let share = Share { kept: kept.clone(), bytes };
        let before = kept.fetch_add(bytes, Ordering::AcqRel);
        (before.saturating_add(bytes) <= TOLD_BYTES_MAX).then(|| Arc::new(share))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.kept.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// One session's meeting point. Lives as long as its driver or a follower holds it.
pub struct Channel {
    told: broadcast::Sender<Told>,
    /// Bytes of entries in there.
    kept: Arc<AtomicUsize>,
    followers: AtomicUsize,
    /// A follower was attached at some time since work was last accepted.
    seen: AtomicBool,
    /// Those who tell of all that is written, as long as nobody else writes.
    announcers: AtomicUsize,
    /// What was told of an earlier edition of the journal is not said any more.
    edition: AtomicU64,
    /// How far the room is for which the session waits: the last word, also for those who come late.
    progress: watch::Sender<Option<RoomProgress>>,
}

impl Channel {
    fn new() -> Self {
        let (told, _) = broadcast::channel(TOLD_PER_FOLLOWER_MAX);
        let (kept, followers, seen, announcers, edition) = Default::default();
        Channel { told, kept, followers, seen, announcers, edition, progress: watch::Sender::new(None) }
    }

    /// Slow followers lose the oldest of what they were told; nobody waits for them.
    pub fn publish(&self, base: Seq, item: Followed) {
        self.tell(Told::Preview(Preview { base, item }));
    }

    /// Entries have changed, or are gone: what was told of them and not heard yet is to be read again.
    pub fn forget(&self) {
        self.edition.fetch_add(1, Ordering::AcqRel);
        self.tell(Told::Look);
    }

    fn tell(&self, told: Told) {
        // No receiver is not a fault: nobody watches.
        let _ = self.told.send(told);
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
        let mut progress = self.progress.subscribe();
        progress.mark_changed();
        Attachment { told: self.told.subscribe(), progress, channel: self.clone() }
    }

    /// Of a room that the session waits for from now on until that is dropped.
    pub fn showing(self: &Arc<Self>) -> Showing {
        Showing(self.clone())
    }

    /// From now on, until that is dropped, whoever writes this session's journal tells of it here.
    pub fn announce(self: &Arc<Self>) -> Announcer {
        self.announcers.fetch_add(1, Ordering::AcqRel);
        self.tell(Told::Look);
        Announcer(self.clone())
    }
}

/// A follower's hold on a channel.
pub struct Attachment {
    pub told: broadcast::Receiver<Told>,
    pub progress: watch::Receiver<Option<RoomProgress>>,
    channel: Arc<Channel>,
}

impl Attachment {
    /// What is written is told of: nothing else need be watched.
    pub fn is_announced(&self) -> bool {
        self.channel.announcers.load(Ordering::Acquire) > 0
    }

    /// The event of an entry, unless it has to be read.
    pub fn event(&self, written: &Written) -> Option<Arc<Event>> {
        let is_current = written.edition == self.channel.edition.load(Ordering::Acquire);
        written.event.clone().filter(|_| is_current)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.channel.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far a room is is shown.
pub struct Showing(Arc<Channel>);

impl Showing {
    pub fn show(&self, progress: RoomProgress) {
        self.0.progress.send_replace(Some(progress));
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.0.progress.send_replace(None);
    }
}

/// The hold of a session's one writer on its channel.
pub struct Announcer(Arc<Channel>);

impl Announcer {
    /// An entry is on disk, whose payload has so many bytes.
    pub fn written(&self, event: &Event, bytes: usize) {
        let Channel { told, kept, edition, .. } = self.0.as_ref();
        // Whoever comes later looks for itself first.
        if told.receiver_count() > 0 {
            let share = Share::take(kept, bytes);
            let shared = share.is_some().then(|| Arc::new(event.clone()));
            let edition = edition.load(Ordering::Acquire);
            self.0.tell(Told::Written(Written { seq: event.seq, event: shared, edition, _share: share }));
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.0.announcers.fetch_sub(1, Ordering::AcqRel);
        // What was written last may not have been told of any more.
        self.0.tell(Told::Look);
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
