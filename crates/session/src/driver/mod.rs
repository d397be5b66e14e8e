//! The driver: one task that owns one living session.
//!
//! It alone writes the session's journal, holds its room, and calls its model. Others reach it through its mailbox. The
//! loop that decides what happens next runs in the room; the driver validates each of its wishes as it would a stranger's
//! request, writes it down, and only then acts.
//!
//! ```text
//!            mail (admit) ──► commit ──► tell the loop
//!  [resting] ───────────────► [room starting] ──► Begin ──► [loop decides]
//!     ▲  idle: hibernate            ▲                          │ Batch: results + wishes, one commit
//!     └── EndTurn ◄─────────────────┼── room lost: settle ◄────┤
//!                                   └──────────────────────────┴──► [asking the model] ──► commit ──► Answered
//! ```
//!
//! The task ends by itself when the session has been idle for a while (hibernation), when another owner took the session
//! (fenced: it touches nothing more), when the store fails or the journal moved on without it, when the session was archived
//! or deleted, or when the service stops. Its room ends with it, unless another driver is to go on with it ([`Halt::leaves_room`]), or it is
//! suspended, as its environment says ([`Driver::suspends`]).

mod adoption;
mod batch;
mod broker;
mod flight;
mod holding;
mod host_calls;
mod limits;
mod listing;
mod mail;
mod model;
mod redact;
mod room;
mod starting;

pub use holding::Born;
pub use mail::{Mail, Sent};
pub use model::{session_error, spent};
pub use room::{NOBODYS, begins_at_once, spec, start};
pub use starting::{RoomProgress, StartingRoom};

use crate::asking::Asking;
use crate::hub::Channel;
use crate::ledger::{Draft, Flight, Ledger};
use crate::masking::Preview;
use crate::recovery;
use crate::requests::{Parts, StopMode};
use crate::tokens::SessionTokens;
use host_calls::{Finished, HostCalls};
use listing::{Listed, Listing};
use loopd_broker::Client;
use loopd_domain::environment::{Hibernation, Isolation};
use loopd_domain::event::EventBody;
use loopd_domain::fold::IllegalEvent;
use loopd_domain::session::Status;
use loopd_domain::{CallId, EventId, SessionId};
use loopd_protocol::FromCell;
use loopd_sandbox::SandboxError;
use loopd_store::{AppendError, StoreError};
use room::{RoomState, StartedRoom};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Tries of a write whose store is not available, before the driver gives the session up for somebody to take up later.
const WRITE_TRIES: u32 = 6;
const WRITE_PAUSE: Duration = Duration::from_millis(100);
/// How long a loop may take to end its turn after an interrupt or at the end of its time.
const HURRY: Duration = Duration::from_secs(20);
/// How long a service that hands over waits for answers: a model would be asked twice, and a call's outcome be unknown.
const DRAIN: Duration = Duration::from_secs(20);

/// A wait for the model that is worth letting go of the session for.
const LONG_WAIT: Duration = Duration::from_millis(2 * loopd_domain::limits::LEASE_MS);

/// How a session came to its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is new.
    Created,
    /// Nobody held it.
    Released,
    /// Whoever held it is gone.
    Lost,
}

/// Why a driver ends.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// The next event starts a new driver.
    #[error("nothing to do for a while")]
    Hibernate,
    #[error("another owner has the session")]
    Fenced,
    /// A write that was reported lost was not, or somebody writes beside us: what this driver knows is out of date.
    #[error("the journal moved on without its driver")]
    Overtaken,
    #[error("the store does not take writes: {0}")]
    Store(StoreError),
    /// Only a mistake of ours can explain it.
    #[error("an event of our own was refused: {0}")]
    Broken(IllegalEvent),
    #[error("the session was deleted")]
    Deleted,
    /// Nobody but the one who asked for it has heard of it.
    #[error("the session could not be made")]
    Unborn,
    #[error("the service stops")]
    Stopping(StopMode),
}

impl Halt {
    /// The next driver of the session, here or elsewhere, finds its room and goes on with it.
    fn leaves_room(&self) -> bool {
        match self {
            Halt::Hibernate | Halt::Deleted | Halt::Unborn | Halt::Stopping(StopMode::End) => false,
            Halt::Stopping(StopMode::HandOver) | Halt::Fenced => true,
            Halt::Overtaken | Halt::Store(_) | Halt::Broken(_) => true,
        }
    }
}

impl Halt {
    /// The session is still this driver's, and its journal as this driver knows it.
    fn may_write(&self) -> bool {
        matches!(self, Halt::Hibernate | Halt::Stopping(_))
    }
}

impl From<IllegalEvent> for Halt {
    fn from(fault: IllegalEvent) -> Self {
        Halt::Broken(fault)
    }
}

pub struct Driver {
    parts: Arc<Parts>,
    ledger: Ledger,
    channel: Arc<Channel>,
    mailbox: mpsc::Receiver<Mail>,
    room: RoomState,
    /// The turn's loop has had its `Begin` and has not ended the turn.
    begun: bool,
    asking: Option<Asking>,
    /// It has answered, and what it showed meanwhile waits for the landing.
    unshown: Option<Asking>,
    /// A question's start on its way to disk (ADR 10).
    flight: Option<Flight>,
    /// There are results in it that only the room has besides.
    room_keeps_results: bool,
    /// When to ask the model again, and which attempt that is.
    retry: Option<(Instant, u32)>,
    host: HostCalls,
    /// The MCP servers are being asked for their tools.
    listing: Option<Listing>,
    /// When each running call was handed to the room.
    dispatched: HashMap<CallId, Instant>,
    /// Rooms lost since the last finished step.
    rooms_lost: u32,
    /// The turn's time is up and its loop was told so.
    time_up: bool,
    /// When a loop that was told to stop must have stopped.
    hurry_by: Option<Instant>,
    rest_since: Instant,
    /// What the room's image sets for programs.
    image_variables: Vec<(String, String)>,
    /// The room was built after the shell of another one had been used, and the model was not told.
    room_is_fresh: bool,
    /// An earlier driver may have left the room alive or suspended; nobody has looked yet.
    room_may_be_there: bool,
    /// What stands around the room, until the journal has it.
    walls_to_tell: Option<EventBody>,
    /// Waits to hear that the session is on disk.
    born: Option<Born>,
    /// When what the ledger holds is written at the latest.
    held_until: Option<Instant>,
    /// The service stops; what is awaited is waited for until then.
    drained_by: Option<Instant>,
    /// As whom the session is known to egress and vaults.
    client: watch::Sender<Arc<Client>>,
    /// What is held back of the output that running calls show.
    previews: HashMap<CallId, Preview>,
}

/// What woke the driver.
enum Wake {
    Mail(Option<Mail>),
    Frame(Result<FromCell, crate::link::LinkError>),
    Room(Box<Result<StartedRoom, SandboxError>>),
    /// The room is so far.
    Progress(RoomProgress),
    /// So many bytes are more than the session may have on disk.
    DiskFull(u64),
    Restart,
    Answer(Box<Result<loopd_models::Answer, loopd_models::ModelError>>),
    HostCall(Finished),
    Listed(Vec<Listed>),
    Retry(u32),
    TimeUp,
    Hurry,
    Idle,
    /// What is held has waited for long enough.
    Held,
    /// What was on its way to disk is there, or is not.
    Landed(Result<(), AppendError>),
    Drained,
    /// Connections have ended that nothing else has written.
    Connections,
}

impl Driver {
    pub fn new(parts: Arc<Parts>, mut ledger: Ledger, channel: Arc<Channel>, mailbox: mpsc::Receiver<Mail>) -> Self {
        ledger.connections = parts.connections.inbox(&ledger.session.id);
        let client = watch::Sender::new(Arc::new(broker::client_of(&ledger)));
        let tokens = SessionTokens { bearers: parts.bearers.clone(), client: client.subscribe() };
        Driver {
            client,
            previews: HashMap::new(),
            host: HostCalls::new(parts.host_tools.for_session(Arc::new(tokens))),
            parts,
            ledger,
            channel,
            mailbox,
            room: RoomState::None,
            begun: false,
            asking: None,
            unshown: None,
            flight: None,
            room_keeps_results: false,
            listing: None,
            retry: None,
            dispatched: HashMap::new(),
            rooms_lost: 0,
            time_up: false,
            hurry_by: None,
            rest_since: Instant::now(),
            image_variables: Vec::new(),
            room_is_fresh: false,
            room_may_be_there: false,
            walls_to_tell: None,
            born: None,
            held_until: None,
            drained_by: None,
        }
    }

    /// With work, and with a room for it that was begun while the session was being made.
    pub fn with_room(mut self, room: StartingRoom) -> Self {
        self.channel.work_accepted();
        self.room = RoomState::Starting(Box::new(room));
        self
    }

    pub fn id(&self) -> &SessionId {
        &self.ledger.session.id
    }

    /// Lives until there is a reason not to, and says which.
    pub async fn run(&mut self, origin: Origin) -> Halt {
        match self.live(origin).await {
            Ok(never) => match never {},
            Err(halt) => {
                self.land_last().await;
                halt
            }
        }
    }

    /// No more mail: what is in the box is answered by nobody, and its senders try the next driver. The room ends or is left.
    pub async fn close(&mut self, halt: &Halt) {
        self.mailbox.close();
        while self.mailbox.try_recv().is_ok() {}
        self.host.stop_all();
        self.close_outlet().await;
        if halt.may_write() {
            self.write_last_connections().await;
        }
        if self.ledger.fold().status == Status::Terminated && std::mem::take(&mut self.room_may_be_there) {
            // Nobody will come for what was suspended.
            self.end_earlier_room().await;
        }
        match halt {
            _ if self.suspends(halt) => self.suspend_room().await,
            _ if halt.leaves_room() => self.leave_room(),
            _ => self.end_room().await,
        }
    }

    /// The session rests, and its environment says that its processes are kept. A room that is left alive would end when nobody comes for a
    /// while, and they with it.
    fn suspends(&self, halt: &Halt) -> bool {
        let room = &self.ledger.session.room;
        let keeps = room.hibernation == Hibernation::Memory && room.isolation == Isolation::Microvm;
        let rests = matches!(self.ledger.fold().status, Status::Idle | Status::Rescheduling);
        keeps && rests && self.dispatched.is_empty() && halt.may_write()
    }

    pub fn epoch(&self) -> loopd_domain::Epoch {
        self.ledger.session.epoch
    }

    async fn live(&mut self, origin: Origin) -> Result<std::convert::Infallible, Halt> {
        if self.held_until.is_none() {
            self.write_held().await?;
        }
        self.take_up(origin).await?;
        loop {
            let wake = self.wake().await;
            if !self.is_held_for(&wake) {
                self.write_held().await?;
            }
            match wake {
                Wake::Mail(None) => return Err(Halt::Stopping(StopMode::HandOver)),
                Wake::Mail(Some(mail)) => self.on_mail(mail).await?,
                Wake::Frame(Ok(frame)) => self.on_frame(frame).await?,
                Wake::Frame(Err(fault)) => self.on_link_fault(fault).await?,
                Wake::Room(outcome) => self.on_room(*outcome).await?,
                Wake::Progress(progress) => self.on_progress(progress),
                Wake::DiskFull(bytes) => self.on_disk_full(bytes).await?,
                Wake::Restart => {
                    self.room = RoomState::None;
                    self.go_on().await?;
                }
                Wake::Answer(outcome) => self.on_answer(*outcome).await?,
                Wake::Listed(listed) => self.on_listed(listed).await?,
                Wake::HostCall(finished) => self.on_host_call(finished).await?,
                Wake::Retry(attempt) => self.on_retry(attempt).await?,
                Wake::TimeUp => self.on_time_up().await?,
                Wake::Hurry => self.on_room_lost("the loop did not stop when told to").await?,
                Wake::Idle => return Err(Halt::Hibernate),
                Wake::Held => {}
                Wake::Landed(outcome) => self.landed(outcome)?,
                Wake::Connections => self.write_connections().await?,
                Wake::Drained => return Err(Halt::Stopping(StopMode::HandOver)),
            }
            if self.drained_by.is_some() && !self.awaits() {
                self.write_held().await?;
                return Err(Halt::Stopping(StopMode::HandOver));
            }
        }
    }

    /// Makes sure that a running turn has a room and its loop.
    async fn go_on(&mut self) -> Result<(), Halt> {
        self.begin().await?;
        // Until it asks again, a turn that waits for its model needs no room.
        let runs = self.ledger.fold().status == Status::Running;
        if runs && matches!(self.room, RoomState::None) {
            self.start_room();
        }
        Ok(())
    }

    async fn wake(&mut self) -> Wake {
        let time_up_at = self.time_up_at();
        let idle_at = self.idle_at();
        let retry = self.retry;
        let connections = self.ledger.connections.clone();
        let (turn, in_turn) = (self.ledger.fold().turns, self.ledger.fold().turn.is_some());
        let busy = !self.dispatched.is_empty();
        tokio::select! {
            mail = self.mailbox.recv() => Wake::Mail(mail),
            wake = self.room.wake(busy) => wake,
            answer = answer(&mut self.asking) => Wake::Answer(Box::new(answer)),
            listed = listing::ended(&mut self.listing) => Wake::Listed(listed),
            finished = self.host.next() => Wake::HostCall(finished),
            () = until(retry.map(|r| r.0)) => Wake::Retry(retry.map_or(1, |r| r.1)),
            () = until(time_up_at) => Wake::TimeUp,
            () = until(self.hurry_by) => Wake::Hurry,
            () = until(idle_at) => Wake::Idle,
            () = until(self.held_until) => Wake::Held,
            landed = flight::landing(&mut self.flight) => landed,
            () = until(self.drained_by) => Wake::Drained,
            () = connections.due(turn, in_turn) => Wake::Connections,
        }
    }

    /// When the open turn has used its seconds.
    fn time_up_at(&self) -> Option<Instant> {
        let fold = self.ledger.fold();
        let turn = fold.turn.as_ref().filter(|_| !self.time_up && fold.status != Status::Idle)?;
        let spent_ms = self.ledger.now().since_ms(turn.counts_from());
        let left_ms = turn.settings.limits.seconds.saturating_mul(1_000).saturating_sub(spent_ms);
        Some(Instant::now() + Duration::from_millis(left_ms))
    }

    fn idle_at(&self) -> Option<Instant> {
        let rested = self.rest_since + Duration::from_millis(self.parts.room_idle_ms);
        match self.ledger.fold().status {
            Status::Idle => Some(rested),
            // Nothing can come any more.
            Status::Terminated => Some(self.rest_since),
            // The store knows when a long wait is over; without a room there is nothing to hold meanwhile.
            Status::Rescheduling if matches!(self.room, RoomState::None) => {
                self.retry.filter(|(at, _)| *at > self.rest_since + LONG_WAIT).map(|_| self.rest_since)
            }
            Status::Rescheduling => self.retry.filter(|(at, _)| *at > rested).map(|_| rested),
            Status::Running => None,
        }
    }

    /// Somebody outside is about to answer this process, and would not answer the next one. So it is with a call that is about
    /// to be sent: the next one could not know that it was not.
    fn awaits(&self) -> bool {
        let mut calls = self.ledger.fold().turn.iter().flat_map(|t| &t.calls);
        self.asking.is_some() || !self.host.is_idle() || calls.any(recovery::ends_with_its_owner)
    }

    /// The service stops. Answers that are under way are waited for, if rooms are handed over.
    fn on_stop(&mut self, mode: StopMode) -> Result<(), Halt> {
        if mode == StopMode::End || !self.awaits() {
            return Err(Halt::Stopping(mode));
        }
        self.drained_by = Some(Instant::now() + DRAIN);
        Ok(())
    }

    /// Writes what the session itself does, and what is held. Patient with a store that is not available for a moment.
    async fn commit(&mut self, draft: &Draft) -> Result<(), Halt> {
        self.land().await?;
        if self.ledger.is_unborn() {
            return self.make_session(draft).await;
        }
        let mut pause = WRITE_PAUSE;
        for _ in 1..WRITE_TRIES {
            match self.ledger.commit(draft, None).await {
                Err(AppendError::Store(StoreError::Unavailable(reason))) => {
                    tracing::warn!(session = %self.id(), %reason, "the journal does not take a write; trying again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                outcome => return self.written(outcome),
            }
        }
        let outcome = self.ledger.commit(draft, None).await;
        self.written(outcome)
    }

    fn written(&mut self, outcome: Result<(), AppendError>) -> Result<(), Halt> {
        outcome.map_err(halt)?;
        self.held_until = None;
        Ok(())
    }

    async fn on_time_up(&mut self) -> Result<(), Halt> {
        self.time_up = true;
        self.tell(loopd_agent_loop::Input::TimeUp).await?;
        self.go_on().await
    }

    /// The turn is over or waits; the room stays for a while.
    fn rested(&mut self) {
        self.begun = false;
        self.asking = None;
        self.host.stop_all();
        self.listing = None;
        self.retry = None;
        self.time_up = false;
        self.hurry_by = None;
        self.dispatched.clear();
        self.previews.clear();
        self.rest_since = Instant::now();
    }

    fn new_event_id(&self) -> EventId {
        self.ledger.new_event_id()
    }
}

fn halt(fault: AppendError) -> Halt {
    match fault {
        AppendError::Store(fault) => Halt::Store(fault),
        AppendError::Absent => Halt::Deleted,
        AppendError::Fenced { .. } => Halt::Fenced,
        // A driver writes no once-record of its own, so `Repeated` cannot be.
        AppendError::Conflict { .. } | AppendError::Repeated(_) => Halt::Overtaken,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn answer(asking: &mut Option<Asking>) -> Result<loopd_models::Answer, loopd_models::ModelError> {
    match asking {
        Some(asking) => asking.future.as_mut().await,
        None => std::future::pending().await,
    }
}
