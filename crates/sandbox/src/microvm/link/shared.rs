//! The link and its streams, as the pump and everybody who uses a stream see them.
//!
//! Nobody holds the lock over a wait. Whoever changes what is to be sent wakes the pump; the pump wakes whoever waits for a stream.

use super::LinkDead;
use super::stream::LinkStream;
use loopd_domain::limits::{LINK_WINDOW_BYTES, OUTLET_WAITING_MAX};
use loopd_protocol::link::{Event, Link, StreamId, StreamKind};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to send, or the link is over.
    pub(super) pump: Notify,
    /// There is a wish for a connection, or the link is over.
    pub(super) wish: Notify,
    told: watch::Sender<Option<LinkDead>>,
}

pub(super) struct State {
    pub(super) link: Link,
    pub(super) streams: HashMap<StreamId, Local>,
    outlet: OutletState,
    pub(super) dead: Option<LinkDead>,
    /// When the guest last said something.
    heard: Instant,
    /// Messages of the guest wait for the host to take them: it cannot be blamed for being silent.
    is_held: bool,
}

/// What came in one stream, and who waits for it.
#[derive(Default)]
pub(super) struct Local {
    /// One buffer, however small the frames are that it comes in.
    pub(super) inbox: VecDeque<u8>,
    pub(super) is_ended: bool,
    /// Over in both directions; what has come before is still to be read.
    pub(super) is_aborted: bool,
    /// Nobody here reads or writes it any more, and so many bytes were thrown away since.
    lingers: Option<u32>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

struct OutletState {
    is_open: bool,
    waiting: VecDeque<StreamId>,
}

impl Shared {
    /// The link is up.
    pub(super) fn new(link: Link, told: watch::Sender<Option<LinkDead>>) -> Self {
        let state = State {
            link,
            streams: HashMap::new(),
            outlet: OutletState { is_open: true, waiting: VecDeque::new() },
            dead: None,
            heard: Instant::now(),
            is_held: false,
        };
        Shared { state: Mutex::new(state), pump: Notify::new(), wish: Notify::new(), told }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(self: &Arc<Self>, kind: StreamKind) -> io::Result<LinkStream> {
        let mut state = self.state();
        if let Some(dead) = &state.dead {
            return Err(dead.clone().into());
        }
        let id = state.link.open(kind).map_err(io::Error::other)?;
        state.streams.insert(id, Local::default());
        self.pump.notify_one();
        Ok(LinkStream::new(Arc::clone(self), id))
    }

    /// The next wish for a connection, if one waits.
    pub(super) fn take_wish(self: &Arc<Self>) -> io::Result<Option<LinkStream>> {
        let mut state = self.state();
        if let Some(dead) = &state.dead {
            return Err(dead.clone().into());
        }
        let id = state.outlet.waiting.pop_front();
        Ok(id.map(|id| LinkStream::new(Arc::clone(self), id)))
    }

    pub(super) fn close_outlet(&self) {
        let mut state = self.state();
        state.outlet.is_open = false;
        for id in std::mem::take(&mut state.outlet.waiting) {
            state.streams.remove(&id);
            state.link.abort(id);
        }
        self.pump.notify_one();
    }

    /// Ends the link, unless it is over. The first reason counts.
    pub(super) fn die(&self, why: LinkDead) {
        let mut state = self.state();
        if state.dead.is_some() {
            return;
        }
        state.dead = Some(why.clone());
        for local in state.streams.values_mut() {
            local.wake();
        }
        drop(state);
        self.told.send_replace(Some(why));
        self.pump.notify_one();
        self.wish.notify_one();
    }

    pub(super) async fn is_dead(&self) {
        // The sender is here: it cannot go away.
        drop(self.told.subscribe().wait_for(Option::is_some).await);
    }

    /// While the host does not take the guest's messages.
    pub(super) fn hold(&self, is_held: bool) {
        let mut state = self.state();
        (state.is_held, state.heard) = (is_held, Instant::now());
    }

    /// What came of sending.
    pub(super) fn notice(&self) -> Result<(), LinkDead> {
        self.state().take_events(&self.wish)
    }

    /// What was read of the machine's socket.
    pub(super) fn hear(&self, bytes: &[u8]) -> Result<(), LinkDead> {
        let mut state = self.state();
        state.heard = Instant::now();
        state.link.push(bytes);
        state.take_events(&self.wish)
    }
}

impl State {
    /// Since when the guest has said nothing, though it could.
    pub(super) fn silent_since(&self) -> Instant {
        if self.is_held { Instant::now() } else { self.heard }
    }

    fn take_events(&mut self, wish: &Notify) -> Result<(), LinkDead> {
        while let Some(event) = self.link.next()? {
            match event {
                Event::Opened { id, kind: StreamKind::Outlet } => self.hear_wish(id, wish),
                // The link lets a guest open nothing else.
                Event::Opened { id, .. } => self.link.abort(id),
                Event::Data { id, bytes } => self.hear_data(id, bytes),
                Event::Ended { id } => self.hear_end(id),
                Event::Aborted { id } => self.hear_abort(id),
                Event::Writable { id } => {
                    if let Some(writer) = self.streams.get_mut(&id).and_then(|local| local.writer.take()) {
                        writer.wake();
                    }
                }
                // Looked for once, before this state came to be.
                Event::Reset { .. } => {}
            }
        }
        Ok(())
    }

    fn hear_wish(&mut self, id: StreamId, wish: &Notify) {
        if !self.outlet.is_open || self.outlet.waiting.len() >= OUTLET_WAITING_MAX as usize {
            self.link.abort(id);
            return;
        }
        self.streams.insert(id, Local::default());
        self.outlet.waiting.push_back(id);
        wish.notify_one();
    }

    fn hear_data(&mut self, id: StreamId, bytes: Vec<u8>) {
        let Some(local) = self.streams.get_mut(&id) else { return };
        if local.lingers.is_some() {
            return self.throw_away(id, bytes.len());
        }
        local.inbox.extend(bytes);
        local.wake_reader();
    }

    fn hear_end(&mut self, id: StreamId) {
        let Some(local) = self.streams.get_mut(&id) else { return };
        if local.lingers.is_some() {
            self.streams.remove(&id);
            return;
        }
        local.is_ended = true;
        local.wake_reader();
    }

    /// Nobody here has the stream any more. What was written still arrives, and the other side may end in its own time; one that goes on
    /// and on is cut off, as a socket that nobody has would do.
    pub(super) fn close(&mut self, id: StreamId) {
        let Some(local) = self.streams.get_mut(&id) else { return };
        if local.is_aborted || self.dead.is_some() {
            self.streams.remove(&id);
            return;
        }
        self.link.end(id);
        if local.is_ended {
            self.streams.remove(&id);
            return;
        }
        let unread = std::mem::take(&mut local.inbox).len();
        local.lingers = Some(0);
        self.throw_away(id, unread);
    }

    fn throw_away(&mut self, id: StreamId, bytes: usize) {
        let Some(thrown) = self.streams.get_mut(&id).and_then(|local| local.lingers.as_mut()) else { return };
        // Never more than a window at once.
        *thrown = thrown.saturating_add(bytes as u32);
        let is_too_much = *thrown > LINK_WINDOW_BYTES;
        self.link.take(id, bytes);
        if is_too_much {
            self.link.abort(id);
            self.streams.remove(&id);
        }
    }

    fn hear_abort(&mut self, id: StreamId) {
        if let Some(at) = self.outlet.waiting.iter().position(|waiting| *waiting == id) {
            self.outlet.waiting.remove(at);
            self.streams.remove(&id);
            return;
        }
        let Some(local) = self.streams.get_mut(&id) else { return };
        if local.lingers.is_some() {
            self.streams.remove(&id);
        } else {
            local.is_aborted = true;
            local.wake();
        }
    }
}

impl Local {
    fn wake(&mut self) {
        self.wake_reader();
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
