//! The link between a host and a virtual machine: many streams in one stream of bytes (ADR 8, "byte by byte").
//!
//! Each end has a [`Link`]. It does no I/O: its owner gives it what was read ([`Link::push`]), takes what came of it ([`Link::next`]), and
//! sends what it has to say ([`Link::output`], [`Link::sent`]).
//!
//! ```text
//!              Host                                        Guest
//!      void ── reset(token, nonce) ─► waits                void
//!      waits ─ the answer comes ────► up                   any state ─ a reset comes ─► up, afresh
//!      up ──── a rule is broken ────► void                 up ──────── a rule is broken ─► void
//! ```
//!
//! An owner reads on whatever it has to send: the two directions do not wait for each other. It takes all events before it pushes again:
//! then a link holds less than one frame of what came, [`LINK_OUTPUT_BYTES_MAX`] of what goes, and a few words for each of the streams,
//! of which there are [`LINK_STREAMS_MAX`] on each side. Bytes of streams that were handed out are the owner's to hold, at most
//! [`LINK_WINDOW_BYTES`] for each stream, until it says [`Link::take`].
//!
//! A frame is handed out whole or not at all. Of one that was cut off and filled up by the reset that followed, data may be handed out,
//! and void a moment later; it has a byte in it that no JSON has.

mod frame;
mod reset;
mod stream;

pub use reset::{NONCE_BYTES, Nonce, TOKEN_BYTES, Token};

use frame::{Frame, HEADER_BYTES};
use loopd_domain::limits::{LINK_FRAME_BYTES_MAX, LINK_OUTPUT_BYTES_MAX, LINK_STREAMS_MAX, LINK_WINDOW_BYTES};
use reset::Finder;
use std::collections::{BTreeMap, VecDeque};
use stream::{Own, Stream};
use thiserror::Error;

/// Bytes of input or output that were dealt with are moved out of the way when they are so many.
const SPENT_BYTES: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Host,
    Guest,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Host => Side::Guest,
            Side::Guest => Side::Host,
        }
    }
}

/// The host's are even, the guest's odd. None comes twice between two resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    fn side(self) -> Side {
        if self.0.is_multiple_of(2) { Side::Host } else { Side::Guest }
    }
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// [`crate::guest`]. The first that a host opens.
    Control,
    /// One connection to the cell.
    Cell,
    /// One wish for a connection to the world.
    Outlet,
    /// A session's files, from the guest.
    ReadFiles,
    /// A session's files, to the guest.
    WriteFiles,
}

impl StreamKind {
    const ALL: [StreamKind; 5] =
        [StreamKind::Control, StreamKind::Cell, StreamKind::Outlet, StreamKind::ReadFiles, StreamKind::WriteFiles];

    /// Who may open such streams.
    pub fn opener(self) -> Side {
        match self {
            StreamKind::Outlet => Side::Guest,
            StreamKind::Control | StreamKind::Cell | StreamKind::ReadFiles | StreamKind::WriteFiles => Side::Host,
        }
    }

    fn code(self) -> u8 {
        self as u8
    }

    fn from_code(code: u8) -> Option<Self> {
        StreamKind::ALL.get(usize::from(code)).copied()
    }
}

/// What came of the other side's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The link is up, and everything before this is void. At the host: the guest has answered.
    Reset { nonce: Nonce },
    /// The other side has begun a stream.
    Opened { id: StreamId, kind: StreamKind },
    /// To be followed by as much of [`Link::take`] as the reader takes. Never empty.
    Data { id: StreamId, bytes: Vec<u8> },
    /// The other side writes no more. The stream is over when both sides have ended.
    Ended { id: StreamId },
    /// The other side has given the stream up, as one closes a socket: it is over. What was handed out before is still good, what was not
    /// sent yet is void.
    Aborted { id: StreamId },
    /// A stream for which [`Link::write`] took less than it was given can be written to again.
    Writable { id: StreamId },
}

/// The other side has broken a rule of the link. All streams are void.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    #[error("a frame of kind {kind}; accepted: 0 to 4")]
    Kind { kind: u8 },
    #[error("a frame of kind {kind} with {bytes} bytes; accepted: {least} to {most}")]
    Length { kind: u8, bytes: usize, least: usize, most: usize },
    #[error("stream {} was never opened", .id.0)]
    UnknownStream { id: StreamId },
    #[error("a stream {} cannot be opened; accepted: {parity} ids that rise", .id.0)]
    Id { id: StreamId, parity: &'static str },
    #[error("a stream for {kind}, which that side cannot open")]
    StreamKind { kind: u8 },
    #[error("more than {LINK_STREAMS_MAX} streams")]
    TooManyStreams,
    #[error("{bytes} bytes in stream {} with credit of {credit}", .id.0)]
    NoCredit { id: StreamId, bytes: usize, credit: u64 },
    #[error("credit of {bytes} for stream {}, of which at most {most} can have been taken", .id.0)]
    TooMuchCredit { id: StreamId, bytes: u32, most: u32 },
    #[error("stream {} goes on after its end", .id.0)]
    AfterEnd { id: StreamId },
}

/// A stream cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    #[error("the link is not up")]
    Down,
    #[error("{LINK_STREAMS_MAX} streams are open already")]
    TooMany,
    #[error("streams for {0:?} are opened by the other side")]
    NotOurs(StreamKind),
    #[error("no stream has been left since the last reset")]
    Spent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is said or understood.
    Void,
    /// The host has said a reset and waits for the answer.
    Waits,
    Up,
}

/// One end.
pub struct Link {
    side: Side,
    state: State,
    /// What a reset has to say. The guest's.
    token: Token,
    finder: Finder,
    /// A reset that was found and is not told yet.
    found: Option<Nonce>,
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
    sent: usize,
    streams: BTreeMap<StreamId, Stream>,
    /// How many of them each side has opened.
    counts: [usize; 2],
    /// The next id of this side's, and the least that the other side may use next.
    own_next: Option<StreamId>,
    other_next: Option<StreamId>,
    /// Bytes that may still come in streams that this side has given up.
    late: u64,
    /// Streams that have something to say that is no data.
    due: VecDeque<StreamId>,
    /// Streams that can be written to when there is space.
    next: VecDeque<StreamId>,
}

impl Link {
    /// A guest's knows no token but [`Token::UNBOUND`].
    pub fn new(side: Side) -> Self {
        let mut link = Link {
            side,
            state: State::Void,
            token: Token::UNBOUND,
            finder: Finder::of_any(&Token::UNBOUND),
            found: None,
            input: Vec::new(),
            read: 0,
            output: Vec::new(),
            sent: 0,
            streams: BTreeMap::new(),
            counts: [0; 2],
            own_next: None,
            other_next: None,
            late: 0,
            due: VecDeque::new(),
            next: VecDeque::new(),
        };
        link.forget(State::Void);
        link
    }

    /// At the host, on each new connection, which has seen no byte yet: begins afresh. The answer is an [`Event::Reset`].
    pub fn reset(&mut self, token: &Token, nonce: Nonce) {
        self.forget(State::Waits);
        self.finder = Finder::of_this(token, nonce);
        self.output.extend_from_slice(&reset::encode(token, &nonce));
    }

    /// At the guest: what the next reset has to say. The link goes on.
    pub fn set_token(&mut self, token: &Token) {
        self.finder = Finder::of_any(token);
        self.token = *token;
    }

    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Takes what was read. All of [`Link::next`] is to be had before more is pushed.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        // The last one counts: whoever said those before is gone. A host that has its answer looks for no other.
        while self.side == Side::Guest || self.state == State::Waits {
            let Some((end, nonce)) = self.finder.find(rest) else { break };
            rest = &rest[end..];
            self.forget(State::Up);
            self.found = Some(nonce);
            if self.side == Side::Guest {
                self.output.extend_from_slice(&reset::encode(&self.token, &nonce));
            }
        }
        if self.state == State::Up {
            self.input.extend_from_slice(rest);
        }
    }

    /// What came of what was pushed, one thing after the other; `None`: that was all. An error is told once: then the link is void until the
    /// next reset. A host gives the machine up; a guest waits for another host.
    #[allow(clippy::should_implement_trait, reason = "it may fail, and it is asked again after `None`")]
    pub fn next(&mut self) -> Result<Option<Event>, LinkError> {
        if let Some(nonce) = self.found.take() {
            return Ok(Some(Event::Reset { nonce }));
        }
        let event = self.read_event();
        if event.is_err() {
            self.forget(State::Void);
        }
        event
    }

    /// Begins a stream.
    pub fn open(&mut self, kind: StreamKind) -> Result<StreamId, OpenError> {
        if self.state != State::Up {
            return Err(OpenError::Down);
        }
        if kind.opener() != self.side {
            return Err(OpenError::NotOurs(kind));
        }
        if self.counts[self.side as usize] >= LINK_STREAMS_MAX {
            return Err(OpenError::TooMany);
        }
        let id = self.own_next.ok_or(OpenError::Spent)?;
        self.own_next = id.0.checked_add(2).map(StreamId);
        self.insert(id, Own::New { kind: kind.code(), ends: false });
        self.is_due(id);
        Ok(id)
    }

    /// Writes as much as there is credit and space for, and answers how much that is. After less than all, [`Event::Writable`] comes when
    /// it is worth while to go on; a stream that is over takes nothing and tells nothing.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let mut written = 0;
        let Some(stream) = self.streams.get_mut(&id) else { return 0 };
        while written < bytes.len() {
            let space = LINK_OUTPUT_BYTES_MAX.saturating_sub(self.output.len() - self.sent + HEADER_BYTES);
            let most = stream.may_send().min(space).min(LINK_FRAME_BYTES_MAX).min(bytes.len() - written);
            if most == 0 {
                break;
            }
            Frame::Data(&bytes[written..written + most]).encode(id, &mut self.output);
            stream.credit -= most as u32;
            written += most;
        }
        if written < bytes.len() {
            stream.is_blocked = true;
            if stream.may_send() > 0 && !stream.is_next {
                stream.is_next = true;
                self.next.push_back(id);
            }
        }
        written
    }

    /// The reader of a stream has taken so many of the bytes that were handed out: the other side may send as many again.
    pub fn take(&mut self, id: StreamId, bytes: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let taken = stream.untaken.min(u32::try_from(bytes).unwrap_or(u32::MAX));
        stream.untaken -= taken;
        stream.owed += taken;
        if stream.owes() {
            self.is_due(id);
        }
    }

    /// Nothing more will be written to this stream.
    pub fn end(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.own = match stream.own {
            Own::New { kind, .. } => Own::New { kind, ends: true },
            Own::Open => Own::Ending,
            other @ (Own::Ending | Own::Ended | Own::Aborting) => other,
        };
        self.is_due(id);
    }

    /// Gives a stream up. No event of it comes any more.
    pub fn abort(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.own {
            Own::New { .. } => self.drop_stream(id),
            Own::Aborting => {}
            Own::Open | Own::Ending | Own::Ended => {
                stream.own = Own::Aborting;
                if !stream.is_ended {
                    self.late = self.late.saturating_add(u64::from(stream.window));
                }
                self.is_due(id);
            }
        }
    }

    /// What is to be sent now.
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// So many bytes of [`Link::output`] were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.output.len().min(self.sent + bytes);
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        } else if self.sent >= SPENT_BYTES {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        self.say_due();
    }

    fn forget(&mut self, state: State) {
        self.state = state;
        self.found = None;
        self.input.clear();
        self.read = 0;
        self.output.clear();
        self.sent = 0;
        self.streams.clear();
        self.counts = [0; 2];
        let (host, guest) = (Some(StreamId(0)), Some(StreamId(1)));
        (self.own_next, self.other_next) = match self.side {
            Side::Host => (host, guest),
            Side::Guest => (guest, host),
        };
        self.late = 0;
        self.due.clear();
        self.next.clear();
    }

    fn read_event(&mut self) -> Result<Option<Event>, LinkError> {
        if self.state != State::Up {
            return Ok(None);
        }
        let input = std::mem::take(&mut self.input);
        let mut event = Ok(None);
        while let Ok(None) = event {
            event = match frame::decode(&input[self.read..]) {
                Ok(Some((id, frame, bytes))) => {
                    self.read += bytes;
                    self.hear(id, frame)
                }
                Ok(None) => break,
                Err(fault) => Err(fault),
            };
        }
        self.input = input;
        if self.read == self.input.len() || self.read >= SPENT_BYTES {
            self.input.drain(..self.read);
            self.read = 0;
        }
        match event {
            Ok(None) => Ok(self.writable()),
            other => other,
        }
    }

    /// One frame. Not each is an event.
    fn hear(&mut self, id: StreamId, frame: Frame<'_>) -> Result<Option<Event>, LinkError> {
        if let Frame::Open(kind) = frame {
            return self.hear_open(id, kind).map(Some);
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.own != Own::Aborting) else {
            return self.hear_late(id, frame).map(|()| None);
        };
        if let Own::New { .. } = stream.own {
            return Err(LinkError::UnknownStream { id });
        }
        match frame {
            Frame::Data(_) | Frame::End if stream.is_ended => Err(LinkError::AfterEnd { id }),
            Frame::Data(bytes) => {
                let length = bytes.len() as u32;
                let Some(window) = stream.window.checked_sub(length) else {
                    return Err(LinkError::NoCredit { id, bytes: bytes.len(), credit: stream.window.into() });
                };
                stream.window = window;
                stream.untaken += length;
                Ok(Some(Event::Data { id, bytes: bytes.to_vec() }))
            }
            Frame::Credit(bytes) => {
                let most = LINK_WINDOW_BYTES - stream.credit;
                if bytes == 0 || bytes > most {
                    return Err(LinkError::TooMuchCredit { id, bytes, most });
                }
                stream.credit += bytes;
                if stream.is_blocked && !stream.is_next {
                    stream.is_next = true;
                    self.next.push_back(id);
                }
                Ok(None)
            }
            Frame::End => {
                stream.is_ended = true;
                if stream.own == Own::Ended {
                    self.drop_stream(id);
                }
                Ok(Some(Event::Ended { id }))
            }
            Frame::Abort => {
                self.drop_stream(id);
                Ok(Some(Event::Aborted { id }))
            }
            Frame::Open(_) => Ok(None),
        }
    }

    fn hear_open(&mut self, id: StreamId, code: u8) -> Result<Event, LinkError> {
        let other = self.side.other();
        if id.side() != other || self.other_next.is_none_or(|next| id < next) {
            let parity = if other == Side::Guest { "odd" } else { "even" };
            return Err(LinkError::Id { id, parity });
        }
        let kind = StreamKind::from_code(code).filter(|kind| kind.opener() == other);
        let kind = kind.ok_or(LinkError::StreamKind { kind: code })?;
        if self.counts[other as usize] >= LINK_STREAMS_MAX {
            return Err(LinkError::TooManyStreams);
        }
        self.other_next = id.0.checked_add(2).map(StreamId);
        self.insert(id, Own::Open);
        Ok(Event::Opened { id, kind })
    }

    /// A frame for a stream that this side knows no more: what was under way when it was given up.
    fn hear_late(&mut self, id: StreamId, frame: Frame<'_>) -> Result<(), LinkError> {
        let next = if id.side() == self.side { self.own_next } else { self.other_next };
        if next.is_some_and(|next| id >= next) {
            return Err(LinkError::UnknownStream { id });
        }
        match frame {
            Frame::Data(bytes) => {
                let late = self.late.checked_sub(bytes.len() as u64);
                self.late = late.ok_or(LinkError::NoCredit { id, bytes: bytes.len(), credit: self.late })?;
            }
            Frame::Abort => self.drop_stream(id),
            Frame::Credit(_) | Frame::End | Frame::Open(_) => {}
        }
        Ok(())
    }

    /// The next stream that was written to in vain and can be written to now. When only a little space is left, nobody is told: frames
    /// would become small, and always the same stream's.
    fn writable(&mut self) -> Option<Event> {
        while self.output.len() - self.sent <= LINK_OUTPUT_BYTES_MAX / 2 {
            let id = self.next.pop_front()?;
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.is_next = false;
            if stream.may_send() > 0 {
                stream.is_blocked = false;
                return Some(Event::Writable { id });
            }
        }
        None
    }

    /// A stream has something to say that is no data. It is said as soon as there is space.
    fn is_due(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.is_due {
            stream.is_due = true;
            self.due.push_back(id);
        }
        self.say_due();
    }

    /// INVARIANT: what is said here is bounded by streams and by what they carry, and waits in their own few words while the output is full.
    fn say_due(&mut self) {
        while self.output.len() - self.sent < LINK_OUTPUT_BYTES_MAX {
            let Some(id) = self.due.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.is_due = false;
            if let Own::New { kind, ends } = stream.own {
                Frame::Open(kind).encode(id, &mut self.output);
                stream.own = if ends { Own::Ending } else { Own::Open };
                if stream.is_blocked && !stream.is_next {
                    stream.is_next = true;
                    self.next.push_back(id);
                }
            }
            if stream.owes() && stream.own != Own::Aborting {
                Frame::Credit(stream.owed).encode(id, &mut self.output);
                stream.window += stream.owed;
                stream.owed = 0;
            }
            match stream.own {
                Own::Ending => {
                    Frame::End.encode(id, &mut self.output);
                    stream.own = Own::Ended;
                    if stream.is_ended {
                        self.drop_stream(id);
                    }
                }
                Own::Aborting => {
                    Frame::Abort.encode(id, &mut self.output);
                    self.drop_stream(id);
                }
                Own::New { .. } | Own::Open | Own::Ended => {}
            }
        }
    }

    fn insert(&mut self, id: StreamId, own: Own) {
        self.streams.insert(id, Stream::new(own));
        self.counts[id.side() as usize] += 1;
    }

    fn drop_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.counts[id.side() as usize] -= 1;
        if stream.is_due {
            self.due.retain(|due| *due != id);
        }
        if stream.is_next {
            self.next.retain(|next| *next != id);
        }
    }
}
