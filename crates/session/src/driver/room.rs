//! The driver and its room: starting it, telling its loop where the turn stands, and going on when it is lost.

use super::starting::{RoomProgress, StartingRoom, Step};
use super::{Driver, HURRY, Halt, Wake, adoption, until};
use crate::installing::BuildRooms;
use crate::ledger::{Draft, Ledger};
use crate::link::{Link, LinkError};
use crate::outlet::Serving;
use crate::requests::Parts;
use crate::turn;
use crate::{recovery, requirement, resume};
use loopd_agent_loop::Input;
use loopd_agent_loop::messages::{INTERRUPTED, TIME_UP};
use loopd_domain::environment::{EnvironmentConfig, Isolation, Networking};
use loopd_domain::event::{EventBody, RunsIn};
use loopd_domain::progress::{Progress, Stage};
use loopd_domain::session::{LimitName, Status, StopReason, TurnSettings};
use loopd_domain::{CallId, Epoch, Seq, SessionId};
use loopd_images::packages::Installer;
use loopd_images::{ImageError, ImageErrorKind, Resolved};
use loopd_protocol::{FromCell, ToCell, VERSION};
use loopd_sandbox::port::{Outlet, RoomGuard, RoomMeter, RoomOutlet};
use loopd_sandbox::{Room, RoomExit, RoomSpec, SandboxError, Walls};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Rooms that may be lost in one step before the turn ends.
const ROOMS_LOST_MAX: u32 = 3;
/// Bytes of one preview of a tool's output; a cell cuts its own far shorter.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Characters of a cell's message that reach the log.
const LOG_CHARS_MAX: usize = 1_000;
/// How long the exit of a room may lag behind the end of its channel.
const EXIT_LAG: Duration = Duration::from_millis(500);
/// How long a killed room may take to go.
const EXIT_WAIT: Duration = Duration::from_secs(3);
/// How long a room that is no longer wanted may take to have started, so that it can be killed.
const START_WAIT: Duration = Duration::from_secs(10);

/// Above every claim: whatever is left of a session that is not there is removed in its name.
pub const NOBODYS: Epoch = Epoch(u64::MAX);

/// A room that has just been built, or claimed.
pub struct StartedRoom {
    room: ReadyRoom,
    /// It is one that an earlier driver had, and knows who its host is.
    adopted: bool,
    /// How long somebody waited for it.
    waited_ms: u64,
    /// What its image sets for the programs in it.
    variables: Vec<(String, String)>,
    /// What its loop was begun with already: everything up to this seq.
    begun: Option<Result<Seq, LinkError>>,
}

pub enum RoomState {
    None,
    /// A lost room is replaced after a pause.
    Pausing(Instant),
    Starting(Box<StartingRoom>),
    Ready(Box<ReadyRoom>),
}

pub struct ReadyRoom {
    pub(super) walls: Walls,
    pub(super) link: Link,
    exit: watch::Receiver<Option<RoomExit>>,
    guard: Box<dyn RoomGuard>,
    /// Until it is served.
    pub(super) outlet: Option<Box<dyn Outlet>>,
    pub(super) serving: Option<Serving>,
    pub(super) meter: Box<dyn RoomMeter>,
}

impl ReadyRoom {
    pub(super) fn new(room: Room) -> Self {
        let Room { channel, outlet, exit, meter, guard, walls } = room;
        ReadyRoom { walls, link: Link::new(channel), exit, guard, meter, outlet, serving: None }
    }

    /// As the sandbox knows it. Its outlet is served no more.
    pub(super) fn into_room(self) -> Room {
        let ReadyRoom { walls, link, exit, guard, outlet, meter, serving: _ } = self;
        Room { walls, channel: link.into_channel(), outlet, exit, meter, guard }
    }

    /// Says who we are. The cell answers with `Hello`, or hangs up.
    pub(super) fn attach(&mut self, session: &SessionId, epoch: Epoch) -> Result<(), LinkError> {
        self.link.send(&ToCell::Attach { version: VERSION, session: session.clone(), epoch })
    }
}

impl RoomState {
    /// `busy`: calls run in it.
    pub(super) async fn wake(&mut self, busy: bool) -> Wake {
        match self {
            RoomState::None => std::future::pending().await,
            RoomState::Pausing(at) => {
                until(Some(*at)).await;
                Wake::Restart
            }
            RoomState::Starting(start) => match start.step().await {
                Step::Made(outcome) => Wake::Room(outcome),
                Step::Word(progress) => Wake::Progress(progress),
            },
            RoomState::Ready(room) => tokio::select! {
                frame = room.link.next() => Wake::Frame(frame),
                bytes = room.meter.disk_full(busy) => Wake::DiskFull(bytes),
            },
        }
    }
}

/// Starts the room of a session that is being written, and begins its loop. All that a loop can want at a turn's beginning is
/// the model, and the driver asks that for it only when the question is on disk, after the session. So the room may be built
/// and the loop may think while the session is on its way there; if it does not arrive, the room ends with what it wanted.
pub fn start(parts: &Arc<Parts>, ledger: &Ledger) -> StartingRoom {
    let session = &ledger.session;
    let spec = spec(parts, &session.id, session.epoch, &session.room);
    let (parts, room) = (Arc::clone(parts), session.room.clone());
    let begin = begins_at_once(ledger).then(|| first_words(ledger, Vec::new())).flatten();
    let seq = ledger.fold().last_seq;
    StartingRoom::new(|teller| async move {
        let spec = RoomSpec { teller, ..spec };
        let mut started = make(parts, spec.clone(), room).await?;
        started.begun = begin.map(|mut begin| {
            if let ToCell::Begin { variables, .. } = &mut begin {
                variables.clone_from(&started.variables);
            }
            started.room.attach(&spec.session, spec.epoch)?;
            started.room.link.send(&begin)?;
            Ok(seq)
        });
        Ok(started)
    })
}

/// What has to be changed before there can be a root, and what may only be away for now.
fn no_root(fault: ImageError) -> SandboxError {
    match fault.kind() {
        ImageErrorKind::Unavailable => SandboxError::Root(fault.to_string()),
        ImageErrorKind::Refused | ImageErrorKind::Broken | ImageErrorKind::Packages => {
            SandboxError::Environment(fault.to_string())
        }
    }
}

/// Has what the room is to be made of, which can take long the first time, and starts it.
async fn make(parts: Arc<Parts>, mut spec: RoomSpec, room: EnvironmentConfig) -> Result<StartedRoom, SandboxError> {
    let since = Instant::now();
    let images = &parts.images;
    let mut resolved = images.resolve(&room.root, &spec.teller).await.map_err(no_root)?;
    if !room.packages.is_empty() {
        let installer: Arc<dyn Installer> = Arc::new(BuildRooms(Arc::clone(&parts)));
        resolved =
            images.furnish(resolved, &room.root, &room.packages, &installer, &spec.teller).await.map_err(no_root)?;
        // The last word would be of the packages, until the room is there.
        spec.teller.say(Progress::of(Stage::Start, ""));
    }
    let Resolved { root, variables } = resolved;
    spec.root = root;
    let room = ReadyRoom::new(parts.sandbox.start(&spec).await?);
    Ok(StartedRoom { room, variables, adopted: false, waited_ms: since.elapsed().as_millis() as u64, begun: None })
}

/// The room that an earlier driver of a session left or suspended, or else a new one. A session that rests need not know whether there is
/// one before it needs it.
async fn find_or_make(parts: Arc<Parts>, spec: RoomSpec, room: EnvironmentConfig) -> Result<StartedRoom, SandboxError> {
    let since = Instant::now();
    match adoption::find(&parts, &spec).await? {
        None => make(parts, spec, room).await,
        Some(found) => {
            let variables = parts.images.variables(&room.root);
            let waited_ms = since.elapsed().as_millis() as u64;
            Ok(StartedRoom { room: found, variables, adopted: true, waited_ms, begun: None })
        }
    }
}

/// No server has to be asked for its tools before, and no vault for what is in the environment.
pub fn begins_at_once(ledger: &Ledger) -> bool {
    ledger.session.agent.spec.mcp_servers.is_empty() && ledger.session.vaults.is_empty()
}

/// What the loop of the open turn must know.
fn first_words(ledger: &Ledger, variables: Vec<(String, String)>) -> Option<ToCell> {
    let turn = ledger.fold().turn.as_ref()?;
    let (config, resume) = (resume::config(ledger), resume::resume(ledger, turn));
    let limits = super::limits::of_calls(&ledger.session.room.limits);
    Some(ToCell::Begin { config, resume, now: ledger.now(), variables, limits })
}

pub fn spec(parts: &Parts, session: &SessionId, epoch: Epoch, room: &EnvironmentConfig) -> RoomSpec {
    let directory = parts.data.join("sessions").join(session.as_str());
    let outlet = match room.networking {
        Networking::None => RoomOutlet::Closed,
        Networking::Unrestricted | Networking::Limited { .. } => RoomOutlet::Open { ports: room.ports.0.clone() },
    };
    RoomSpec {
        isolation: room.isolation,
        limits: room.limits,
        outlet,
        ..RoomSpec::plain(session.clone(), epoch, directory)
    }
}

impl Driver {
    pub(super) fn start_room(&mut self) {
        let (parts, spec, session) = (Arc::clone(&self.parts), self.spec(), &self.ledger.session);
        let (workspace, room) = (session.workspace.clone(), session.room.clone());
        let may_be_there = std::mem::take(&mut self.room_may_be_there);
        self.room = RoomState::Starting(Box::new(StartingRoom::new(|teller| async move {
            let spec = RoomSpec { teller, ..spec };
            requirement::check(parts.store.as_ref(), &workspace, "environment", &room).await?;
            match may_be_there {
                true => find_or_make(parts, spec, room).await,
                false => make(parts, spec, room).await,
            }
        })));
    }

    pub(super) fn spec(&self) -> RoomSpec {
        spec(&self.parts, self.id(), self.epoch(), &self.ledger.session.room)
    }

    /// Shows how far the room is. It is a preview: no part of it is ever written down.
    pub(super) fn on_progress(&mut self, progress: RoomProgress) {
        if let RoomState::Starting(start) = &mut self.room {
            start.showing.get_or_insert_with(|| self.channel.showing()).show(progress);
        }
    }

    pub(super) async fn on_room(&mut self, outcome: Result<StartedRoom, SandboxError>) -> Result<(), Halt> {
        match outcome {
            Ok(StartedRoom { mut room, variables, adopted, waited_ms, begun }) => {
                self.image_variables = variables;
                let attached = match &begun {
                    None if !adopted => room.attach(self.id(), self.epoch()),
                    _ => Ok(()),
                };
                self.walls_to_tell = walls_to_tell(room.walls, waited_ms, adopted);
                self.room = RoomState::Ready(Box::new(room));
                self.room_is_fresh = !adopted;
                self.serve_outlet();
                match (attached, begun) {
                    (Ok(()), None) => self.begin().await,
                    (Ok(()), Some(Ok(seq))) if seq == self.ledger.fold().last_seq && !self.time_up => {
                        self.begun = true;
                        self.mark_dispatched();
                        Ok(())
                    }
                    (Ok(()), Some(Ok(_))) => {
                        // Somebody was quicker than the room, and its loop has begun without knowing that.
                        self.end_room().await;
                        self.go_on().await
                    }
                    (Err(fault), _) | (_, Some(Err(fault))) => self.on_link_fault(fault).await,
                }
            }
            Err(SandboxError::Fenced { .. }) => Err(Halt::Fenced),
            Err(fault) if fault.is_permanent() => {
                self.room = RoomState::None;
                self.on_no_room(&fault.to_string()).await
            }
            Err(fault) => {
                self.room = RoomState::None;
                self.on_room_lost(&fault.to_string()).await
            }
        }
    }

    /// Hands the open turn to the room's loop, if both are there and no model request is under way.
    pub(super) async fn begin(&mut self) -> Result<(), Halt> {
        let fold = self.ledger.fold();
        let Some(turn) = fold.turn.as_ref().filter(|t| t.request.is_none()) else { return Ok(()) };
        if self.begun || fold.status == Status::Idle || self.retry.is_some() {
            return Ok(());
        }
        let (interrupted, answered) = (turn.interrupted, turn.answered.is_some());
        if interrupted {
            self.settle_unstarted(INTERRUPTED).await?;
            if self.dispatched.is_empty() {
                return self.end_without_loop(StopReason::EndTurn, INTERRUPTED).await;
            }
        // An answer that is there already is the loop's to conclude.
        } else if self.time_up && !answered {
            self.settle_unstarted(TIME_UP).await?;
            if self.dispatched.is_empty() {
                return self.end_without_loop(StopReason::LimitReached { limit: LimitName::Seconds }, TIME_UP).await;
            }
        }
        if self.is_listing() {
            return Ok(());
        }
        let fold = self.ledger.fold();
        if fold.status == Status::Rescheduling {
            let mut draft = self.ledger.draft();
            turn::run(&mut draft, &self.ledger.session, &TurnSettings::default())?;
            self.commit(&draft).await?;
        }
        if !matches!(self.room, RoomState::Ready(_)) {
            return Ok(());
        }
        let mut variables = self.image_variables.clone();
        let bound = self.variables().await?;
        variables.retain(|(name, _)| bound.iter().all(|(known, _)| known != name));
        variables.extend(bound);
        let Some(frame) = first_words(&self.ledger, variables) else { return Ok(()) };
        let RoomState::Ready(room) = &mut self.room else { return Ok(()) };
        let sent = room.link.send(&frame);
        fail::fail_point!("session::after_dispatch");
        self.begun = true;
        self.mark_dispatched();
        if let Err(fault) = sent {
            return self.on_link_fault(fault).await;
        }
        if interrupted {
            return self.tell(Input::Interrupt).await;
        }
        if self.time_up {
            return self.tell(Input::TimeUp).await;
        }
        Ok(())
    }

    /// A turn is to end whose room was adopted: what does not run there must not be started first.
    async fn settle_unstarted(&mut self, message: &str) -> Result<(), Halt> {
        if self.dispatched.is_empty() {
            return Ok(());
        }
        let mut draft = self.ledger.draft();
        for call in turn::unsettled(&draft) {
            if !self.dispatched.contains_key(&call.id) {
                self.settle_stopped(&mut draft, &call, message)?;
            }
        }
        if draft.events.is_empty() { Ok(()) } else { self.commit(&draft).await }
    }

    /// Ends a turn that is to end, and that no loop is at work on. It needs no room for that.
    async fn end_without_loop(&mut self, reason: StopReason, message: &str) -> Result<(), Halt> {
        let mut draft = self.ledger.draft();
        for call in turn::unsettled(&draft) {
            self.settle_stopped(&mut draft, &call, message)?;
        }
        turn::rest(&mut draft, &self.ledger.session, reason, None)?;
        // The next turn is neither interrupted nor out of time, so this ends here.
        Box::pin(self.rest_with(draft)).await
    }

    /// Writes a draft after which the session rests, and goes on with what waits.
    pub(super) async fn rest_with(&mut self, mut draft: Draft) -> Result<(), Halt> {
        if draft.fold.turn.is_none() {
            turn::take_up_queue(&mut draft, &self.ledger.session, &self.ledger.waiting)?;
        }
        self.commit(&draft).await?;
        self.rested();
        self.go_on().await
    }

    /// From here on no answer of the model is taken: its loop is about to end the turn.
    async fn stop_asking(&mut self) -> Result<(), Halt> {
        if self.begun {
            self.hurry_by.get_or_insert(Instant::now() + HURRY);
        }
        self.retry = None;
        let Some(asking) = self.asking.take() else { return Ok(()) };
        let mut draft = self.ledger.draft();
        self.cut(&mut draft, &asking)?;
        self.commit(&draft).await
    }

    /// Tells the loop of the running turn. A loop that has not begun learns it from the journal.
    pub(super) async fn tell(&mut self, input: Input) -> Result<(), Halt> {
        if matches!(input, Input::Interrupt | Input::TimeUp) {
            self.stop_asking().await?;
        }
        let RoomState::Ready(room) = &mut self.room else { return Ok(()) };
        if !self.begun {
            return Ok(());
        }
        let sent = room.link.send(&ToCell::Input { now: self.ledger.now(), input });
        fail::fail_point!("session::after_dispatch");
        self.mark_dispatched();
        match sent {
            Ok(()) => Ok(()),
            Err(fault) => self.on_link_fault(fault).await,
        }
    }

    /// From now on the open calls of the room may be running.
    fn mark_dispatched(&mut self) {
        let now = Instant::now();
        let calls = self.ledger.fold().turn.iter().flat_map(|t| &t.calls);
        let runs = calls.filter(|c| c.runs_in == RunsIn::Room && !c.settled && !c.waits_for_client());
        let before = std::mem::take(&mut self.dispatched);
        self.dispatched = runs.map(|c| (c.id.clone(), before.get(&c.id).copied().unwrap_or(now))).collect();
    }

    /// How long a call ran, by the host's clock.
    pub(super) fn ran_ms(&self, id: &CallId) -> u64 {
        self.dispatched.get(id).map_or(0, |since| since.elapsed().as_millis() as u64)
    }

    pub(super) async fn on_frame(&mut self, frame: FromCell) -> Result<(), Halt> {
        match frame {
            // Of a room that was just built: it runs nothing yet, and would have hung up if the versions differed.
            FromCell::Hello { .. } => Ok(()),
            FromCell::Batch { epoch, results, commands } if epoch == self.ledger.session.epoch => {
                self.on_batch(results, commands).await
            }
            FromCell::Batch { epoch, .. } => {
                tracing::warn!(session = %self.id(), ?epoch, "a batch of another epoch was dropped");
                Ok(())
            }
            FromCell::Output { id, text } => {
                let is_open = self.ledger.fold().turn.iter().flat_map(|t| &t.calls).any(|c| c.id == id && !c.settled);
                // A longer one is no honest preview, and many of them wait for slow followers.
                if is_open && text.len() <= OUTPUT_BYTES_MAX {
                    self.preview(id, text).await;
                }
                Ok(())
            }
            FromCell::Log { message } => {
                let masking = self.masking().await;
                let message: String = masking.text(&message).chars().take(LOG_CHARS_MAX).collect();
                tracing::info!(session = %self.id(), message = %message.escape_debug(), "the cell says");
                Ok(())
            }
        }
    }

    /// Shows a piece of a running call's output, as far as it cannot be the beginning of a secret.
    async fn preview(&mut self, id: CallId, text: String) {
        let masking = self.masking().await;
        let text = self.previews.entry(id.clone()).or_default().push(&masking, text);
        if !text.is_empty() {
            let base = self.ledger.fold().last_seq;
            self.channel.publish(base, crate::requests::Followed::ToolOutput { id, text });
        }
    }

    pub(super) async fn on_link_fault(&mut self, fault: LinkError) -> Result<(), Halt> {
        // Another host may have the room: nothing more goes out in this one's name.
        self.close_outlet().await;
        let reason = match (&mut self.room, &fault) {
            (RoomState::Ready(room), LinkError::Closed) => exit_reason(&mut room.exit).await,
            _ => fault.to_string(),
        };
        self.on_room_lost(&reason).await
    }

    /// Lets go of the room without ending it. One that is still being built runs nothing, and ends.
    pub(super) fn leave_room(&mut self) {
        if let RoomState::Ready(room) = std::mem::replace(&mut self.room, RoomState::None) {
            room.guard.leave();
        }
    }

    /// Puts the room to sleep with all that lives in it; the next driver of the session wakes it. Where that cannot be done the room ends.
    pub(super) async fn suspend_room(&mut self) {
        let room = match std::mem::replace(&mut self.room, RoomState::None) {
            RoomState::Ready(room) => room,
            other => {
                self.room = other;
                return self.end_room().await;
            }
        };
        let mut exit = room.exit.clone();
        let since = Instant::now();
        match self.parts.sandbox.suspend(&self.spec(), room.into_room()).await {
            Ok(()) => {
                tracing::info!(session = %self.id(), ms = since.elapsed().as_millis() as u64, "a room was suspended");
            }
            Err(fault) => {
                tracing::warn!(session = %self.id(), %fault, "a room could not be suspended and ends; its files stay");
                let gone = tokio::time::timeout(EXIT_WAIT, exit.wait_for(Option::is_some)).await;
                if gone.is_err() {
                    tracing::warn!(session = %self.id(), "a killed room is still not gone");
                }
            }
        }
    }

    /// Kills the room and waits until it is gone: two rooms must never share a directory.
    pub(super) async fn end_room(&mut self) {
        let (mut exit, guard) = match std::mem::replace(&mut self.room, RoomState::None) {
            RoomState::None | RoomState::Pausing(_) => return,
            RoomState::Ready(room) => (room.exit, room.guard),
            // Half built, it could come to life beside the next one.
            RoomState::Starting(start) => match tokio::time::timeout(START_WAIT, start.made()).await {
                Ok(Ok(started)) => (started.room.exit, started.room.guard),
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::warn!(session = %self.id(), "a room that is no longer wanted is still starting");
                    return;
                }
            },
        };
        guard.kill();
        let gone = tokio::time::timeout(EXIT_WAIT, exit.wait_for(Option::is_some)).await;
        if gone.is_err() {
            tracing::warn!(session = %self.id(), "a killed room is still not gone");
        }
    }

    /// There will be no room, however often one is asked for: the turn ends with the reason.
    async fn on_no_room(&mut self, reason: &str) -> Result<(), Halt> {
        self.begun = false;
        let fold = self.ledger.fold();
        if fold.turn.is_none() || fold.is_waiting() {
            tracing::info!(session = %self.id(), reason, "a session that rests has no room");
            return Ok(());
        }
        tracing::warn!(session = %self.id(), reason, "a turn ends for want of a room");
        let mut draft = self.ledger.draft();
        if let Some(asking) = self.asking.take() {
            self.cut(&mut draft, &asking)?;
        }
        for call in turn::unsettled(&draft).iter().filter(|c| c.runs_in == RunsIn::Host) {
            self.settle_stopped(&mut draft, call, reason)?;
        }
        recovery::no_room(&mut draft, &self.ledger.session, reason)?;
        Box::pin(self.rest_with(draft)).await
    }

    /// The room is of no more use. An open turn goes on in a new one; what was running there is settled by its class.
    pub(super) async fn on_room_lost(&mut self, reason: &str) -> Result<(), Halt> {
        self.end_room().await;
        self.begun = false;
        self.hurry_by = None;
        let dispatched = std::mem::take(&mut self.dispatched);
        let fold = self.ledger.fold();
        if fold.turn.is_none() || fold.is_waiting() {
            tracing::info!(session = %self.id(), reason, "a resting room ended");
            return Ok(());
        }
        self.rooms_lost += 1;
        tracing::warn!(session = %self.id(), reason, lost = self.rooms_lost, "a room was lost");
        let mut draft = self.ledger.draft();
        let session = &self.ledger.session;
        recovery::lose_room(&mut draft, session, reason, |id| dispatched.contains_key(id))?;
        if self.rooms_lost > ROOMS_LOST_MAX && draft.fold.turn.is_some() {
            if let Some(asking) = self.asking.take() {
                self.cut(&mut draft, &asking)?;
            }
            for call in turn::unsettled(&draft).iter().filter(|c| c.runs_in == RunsIn::Host) {
                self.settle_stopped(&mut draft, call, reason)?;
            }
            recovery::park(&mut draft, session, reason)?;
        }
        if draft.fold.status == Status::Idle {
            // Given up, or for the client to decide.
            self.rooms_lost = 0;
            return Box::pin(self.rest_with(draft)).await;
        }
        self.commit(&draft).await?;
        let pause = Duration::from_millis(50 << (2 * self.rooms_lost));
        self.room = RoomState::Pausing(Instant::now() + pause);
        // A turn that is to end needs no other room for that.
        Box::pin(self.begin()).await
    }
}

/// What the journal is told of a room's walls; of namespaces nothing, as they are what is usual.
fn walls_to_tell(walls: Walls, waited_ms: u64, woken: bool) -> Option<EventBody> {
    let Walls { isolation, accelerator } = walls;
    (isolation != Isolation::Namespaces).then_some(EventBody::RoomStarted { isolation, accelerator, waited_ms, woken })
}

/// Why a room whose channel ended is gone.
async fn exit_reason(exit: &mut watch::Receiver<Option<RoomExit>>) -> String {
    let gone = tokio::time::timeout(EXIT_LAG, exit.wait_for(Option::is_some)).await;
    match gone.ok().and_then(Result::ok).and_then(|exit| exit.clone()) {
        Some(RoomExit::Failed(cause)) => format!("the room could not be built: {cause}"),
        Some(RoomExit::Lost(cause)) => cause,
        Some(RoomExit::Code(code)) => format!("the cell ended with code {code}"),
        Some(RoomExit::Signal(signal)) => format!("the cell was killed by signal {signal}"),
        Some(RoomExit::Gone) => "the cell ended".to_owned(),
        None => LinkError::Closed.to_string(),
    }
}
