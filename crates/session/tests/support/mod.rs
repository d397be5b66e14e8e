//! A session service with real store, real scripted models and a room without walls: its cell is a task of this process
//! that runs the real loop and a tool of the test's choosing.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod errands;
pub mod gate;

#[allow(unused_imports, reason = "each test file uses its part")]
pub use errands::Errands;
#[allow(unused_imports, reason = "each test file uses its part")]
pub use gate::{Gate, Secrets};

use async_trait::async_trait;
use loopd_agent_loop::{AgentLoop, Call, Command, Input};
use loopd_domain::agent::{AgentSpec, Metadata, ModelRef, Tool, ToolConfig};
use loopd_domain::content::ContentBlock;
use loopd_domain::environment::{Accelerator, EnvironmentConfig, Isolation};
use loopd_domain::event::{Event, EventBody, Outcome, RunsIn};
use loopd_domain::fold::SessionFold;
use loopd_domain::limits::HELD_MS;
use loopd_domain::session::{Session, SessionAgent, StopReason, TurnSettings};
use loopd_domain::{CallId, Clock, Epoch, IdSource, SessionId, Timestamp, WorkspaceId};
use loopd_images::Images;
use loopd_protocol::codec::{Decoder, encode};
use loopd_protocol::{CallResult, FromCell, ToCell, VERSION};
use loopd_sandbox::files::{FileSink, FileWriter, FilesRead, TreeWriter, read_tree};
use loopd_sandbox::port::{Outlet, OutletStream, Reached, RoomGuard, RoomMeter, RoomOutlet};
use loopd_sandbox::{Channel, Check, Found, Room, RoomExit, RoomSpec, Sandbox, SandboxError, Walls};
use loopd_session::replay::Replayer;
use loopd_session::{Accepted, FollowFrom, Followed, NewSession, Parts, ServiceError, SessionService};
use loopd_store::Store;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// What the room of the test does with a call.
#[derive(Debug, Clone)]
pub enum Act {
    Say(String),
    /// Never ends by itself.
    Hang,
    /// The room is gone before the result.
    Die,
    /// Shows these pieces of output, and has their whole for its result.
    Show(Vec<String>),
}

pub type Tools = Arc<dyn Fn(&Call) -> Act + Send + Sync>;

/// Answers every call with its arguments.
pub fn echo() -> Tools {
    Arc::new(|call| Act::Say(call.input.to_string()))
}

pub struct OpenRoom {
    pub tools: Tools,
    pub started: Arc<AtomicUsize>,
    pub mishaps: Arc<Mishaps>,
    /// Where sessions' directories lie.
    pub sessions: std::path::PathBuf,
}

/// What goes wrong with rooms, as a test wants it.
#[derive(Default)]
pub struct Mishaps {
    /// How long a cell takes to say what it has decided.
    pub lag_ms: AtomicU64,
    /// How long a room takes to be built.
    pub start_lag_ms: AtomicU64,
    /// Starts that fail, and starts that panic, from now on.
    pub failing_starts: AtomicUsize,
    pub failing_suspensions: AtomicUsize,
    pub panicking_starts: AtomicUsize,
    /// What a cell sends, uninvited, the next time that it has asked for the model.
    pub intrusion: Mutex<Vec<Command>>,
    pub alive: Arc<AtomicUsize>,
    /// Rooms cannot be had at all.
    pub no_rooms: AtomicBool,
    /// What each turn's programs had in their environment.
    pub variables: Mutex<Vec<Vec<(String, String)>>>,
    outlets: Mutex<Vec<(SessionId, mpsc::Sender<DuplexStream>)>>,
    /// Files are not read as long as this is set.
    pub files_wait: AtomicBool,
    /// What a session has on disk, when that is more than it may.
    pub disk: watch::Sender<u64>,
    rooms: Mutex<Vec<watch::Sender<bool>>>,
}

impl Mishaps {
    pub fn kill_rooms(&self) {
        self.rooms.lock().drain(..).for_each(|room| _ = room.send_replace(true));
    }

    /// A program of the session's latest room asks for a connection. `None`: the room has no way out.
    pub async fn connect(&self, session: &SessionId, host: &str) -> Option<DuplexStream> {
        let outlets = self.outlets.lock().clone();
        let (_, outlet) = outlets.into_iter().rev().find(|(of, _)| of == session)?;
        let (mut program, host_end) = tokio::io::duplex(1 << 10);
        outlet.send(host_end).await.ok()?;
        program.write_all(format!("CONNECT {host}:443\n").as_bytes()).await.expect("taken");
        Some(program)
    }

    fn takes_one(count: &AtomicUsize) -> bool {
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
    }
}

/// Speaks when the test says that the disk is full.
struct DiskGauge(watch::Receiver<u64>);

#[async_trait]
impl RoomMeter for DiskGauge {
    fn reached(&mut self) -> Reached {
        Reached::default()
    }

    async fn disk_full(&mut self, _busy: bool) -> u64 {
        if self.0.changed().await.is_err() {
            return std::future::pending().await;
        }
        *self.0.borrow_and_update()
    }
}

struct Guard(watch::Sender<bool>);

impl RoomGuard for Guard {
    fn kill(&self) {
        self.0.send_replace(true);
    }
    fn pid(&self) -> Option<u32> {
        None
    }
    fn leave(self: Box<Self>) {
        std::mem::forget(self);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An outlet of streams that a test makes.
struct Wishes(mpsc::Receiver<DuplexStream>);

#[async_trait]
impl Outlet for Wishes {
    async fn accept(&mut self) -> std::io::Result<Box<dyn OutletStream>> {
        match self.0.recv().await {
            Some(stream) => Ok(Box::new(stream)),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Where a room that was suspended waits to be woken.
fn asleep(spec: &RoomSpec) -> std::path::PathBuf {
    spec.directory.join("asleep")
}

impl OpenRoom {
    fn build(&self, spec: &RoomSpec) -> Room {
        let accelerator = (spec.isolation == Isolation::Microvm).then_some(Accelerator::Emulation);
        let walls = Walls { isolation: spec.isolation, accelerator };
        let (host, cell) = Channel::pair().expect("a socket pair");
        cell.set_nonblocking(true).expect("a socket");
        let cell = UnixStream::from_std(cell).expect("a socket");
        let (exit, exited) = watch::channel(None);
        let kill = watch::Sender::new(false);
        let mut killed = kill.subscribe();
        self.mishaps.rooms.lock().push(kill.clone());
        let (tools, mishaps) = (self.tools.clone(), self.mishaps.clone());
        mishaps.alive.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            tokio::select! {
                () = run_cell(cell, tools, &mishaps) => {}
                _ = killed.wait_for(|k| *k) => {}
            }
            mishaps.alive.fetch_sub(1, Ordering::Relaxed);
            exit.send_replace(Some(RoomExit::Signal(9)));
        });
        let outlet: Option<Box<dyn Outlet>> = match spec.outlet {
            RoomOutlet::Closed => None,
            RoomOutlet::Open { .. } => {
                let (wishes, waiting) = mpsc::channel(16);
                self.mishaps.outlets.lock().push((spec.session.clone(), wishes));
                Some(Box::new(Wishes(waiting)))
            }
        };
        let meter = Box::new(DiskGauge(self.mishaps.disk.subscribe()));
        Room { walls, channel: host, outlet, exit: exited, meter, guard: Box::new(Guard(kill)) }
    }
}

#[async_trait]
impl Sandbox for OpenRoom {
    fn kind(&self) -> &'static str {
        "open"
    }

    async fn start(&self, spec: &RoomSpec) -> Result<Room, SandboxError> {
        self.started.fetch_add(1, Ordering::Relaxed);
        if self.mishaps.no_rooms.load(Ordering::Relaxed) {
            return Err(SandboxError::Environment("package `nosuch` does not install".to_owned()));
        }
        if Mishaps::takes_one(&self.mishaps.failing_starts) {
            return Err(SandboxError::Launcher("the test wants it so".to_owned()));
        }
        assert!(!Mishaps::takes_one(&self.mishaps.panicking_starts), "the test wants it so");
        tokio::time::sleep(Duration::from_millis(self.mishaps.start_lag_ms.load(Ordering::Relaxed))).await;
        // A new room begins with files alone.
        let _ = std::fs::remove_file(asleep(spec));
        Ok(self.build(spec))
    }

    async fn adopt(&self, spec: &RoomSpec) -> Result<Option<Room>, SandboxError> {
        Ok(std::fs::remove_file(asleep(spec)).is_ok().then(|| self.build(spec)))
    }

    async fn suspend(&self, spec: &RoomSpec, room: Room) -> Result<(), SandboxError> {
        assert_eq!(room.walls.isolation, Isolation::Microvm, "only such rooms can");
        if Mishaps::takes_one(&self.mishaps.failing_suspensions) {
            return Err(SandboxError::Launcher("the test wants it so".to_owned()));
        }
        std::fs::create_dir_all(&spec.directory).expect("a directory");
        std::fs::write(asleep(spec), "").expect("written");
        Ok(())
    }

    async fn inventory(&self) -> Result<Vec<Found>, SandboxError> {
        let sessions = std::fs::read_dir(self.sessions.as_path()).into_iter().flatten();
        let names = sessions.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        let session = |name: String| SessionId::parse("session", &name).expect("a session's");
        Ok(names
            .map(|name| Found {
                session: session(name),
                room: false,
                can_sleep: false,
                files: true,
                layers: Vec::new(),
            })
            .collect())
    }

    fn keeps_files(&self, spec: &RoomSpec) -> bool {
        spec.directory.is_dir()
    }

    fn sleeps(&self, spec: &RoomSpec) -> bool {
        asleep(spec).exists()
    }

    async fn remove(&self, spec: &RoomSpec) -> Result<(), SandboxError> {
        match std::fs::remove_dir_all(&spec.directory) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(SandboxError::Directory { path: spec.directory.clone(), source })
            }
            _ => Ok(()),
        }
    }

    fn read_files(&self, spec: &RoomSpec, sink: &mut dyn FileSink) -> Result<FilesRead, SandboxError> {
        while self.mishaps.files_wait.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        read_tree(&spec.directory, &["workspace"], sink)
            .map_err(|source| SandboxError::Directory { path: spec.directory.clone(), source })
    }

    fn write_files(&self, spec: &RoomSpec) -> Result<Box<dyn FileWriter>, SandboxError> {
        std::fs::create_dir_all(spec.directory.join("workspace")).expect("a directory");
        Ok(Box::new(TreeWriter::new(&spec.directory, &[("workspace", None)]).expect("a directory")))
    }

    async fn probe(&self) -> Vec<Check> {
        Vec::new()
    }
}

async fn run_cell(mut stream: UnixStream, tools: Tools, mishaps: &Mishaps) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 << 10];
    let mut live: Option<AgentLoop> = None;
    let mut attached = Epoch(0);
    let mut hanging: Vec<CallId> = Vec::new();
    loop {
        while let Some(frame) = decoder.next::<ToCell>().expect("a frame") {
            let (now, commands) = match frame {
                ToCell::Attach { epoch, .. } => {
                    attached = epoch;
                    send(&mut stream, &FromCell::Hello { version: VERSION, calls: Vec::new() }).await;
                    continue;
                }
                ToCell::Begin { config, resume, now, variables, .. } => {
                    mishaps.variables.lock().push(variables);
                    let (machine, commands) = AgentLoop::resume(config, resume, now);
                    live = Some(machine);
                    (now, commands)
                }
                ToCell::Input { now, input } => match &mut live {
                    Some(machine) => (now, machine.step(now, input)),
                    None => continue,
                },
                ToCell::Stop { message } => {
                    let Some(machine) = &mut live else { continue };
                    let stopped: Vec<CallId> = std::mem::take(&mut hanging);
                    let result = |id: &CallId| CallResult {
                        id: id.clone(),
                        content: vec![ContentBlock::text(message.clone())],
                        is_error: true,
                        outcome: Outcome::Completed,
                        duration_ms: 1,
                    };
                    let results = stopped.iter().map(result).collect();
                    let now = Timestamp(0);
                    let commands =
                        stopped.into_iter().flat_map(|id| machine.step(now, Input::CallDone { id })).collect();
                    send(&mut stream, &FromCell::Batch { epoch: attached, results, commands }).await;
                    continue;
                }
                ToCell::Shutdown => return,
            };
            let Some(machine) = &mut live else { continue };
            if !obey(&mut stream, machine, attached, now, commands, &tools, &mut hanging, mishaps).await {
                return;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => decoder.push(&buffer[..n]),
        }
    }
}

/// Does what the loop wants. False when the room is to die.
#[allow(clippy::too_many_arguments, reason = "the parts of a cell")]
async fn obey(
    stream: &mut UnixStream,
    machine: &mut AgentLoop,
    epoch: Epoch,
    now: Timestamp,
    commands: Vec<Command>,
    tools: &Tools,
    hanging: &mut Vec<CallId>,
    mishaps: &Mishaps,
) -> bool {
    let mut queue: std::collections::VecDeque<Command> = commands.into();
    let mut results = Vec::new();
    let mut wishes = Vec::new();
    while let Some(command) = queue.pop_front() {
        let (id, act) = match command {
            Command::RunTool { id } if !is_hosts(machine, &id) => {
                let act = tools(machine.call(&id).expect("a call"));
                (id, act)
            }
            Command::CancelTool { id } if !is_hosts(machine, &id) => {
                hanging.retain(|h| h != &id);
                (id, Act::Say("cancelled".to_owned()))
            }
            other => {
                wishes.push(other);
                continue;
            }
        };
        match act {
            Act::Say(text) => {
                queue.extend(machine.step(now, Input::CallDone { id: id.clone() }));
                results.push(CallResult {
                    id,
                    content: vec![ContentBlock::text(text)],
                    is_error: false,
                    outcome: Outcome::Completed,
                    duration_ms: 1,
                });
            }
            Act::Show(pieces) => {
                for text in &pieces {
                    send(stream, &FromCell::Output { id: id.clone(), text: text.clone() }).await;
                }
                queue.extend(machine.step(now, Input::CallDone { id: id.clone() }));
                let (content, outcome) = (vec![ContentBlock::text(pieces.concat())], Outcome::Completed);
                results.push(CallResult { id, content, is_error: false, outcome, duration_ms: 1 });
            }
            Act::Hang => hanging.push(id),
            Act::Die => return false,
        }
    }
    if !results.is_empty() || !wishes.is_empty() {
        let asks = wishes.iter().any(|w| matches!(w, Command::CallModel { .. }));
        tokio::time::sleep(Duration::from_millis(mishaps.lag_ms.load(Ordering::Relaxed))).await;
        send(stream, &FromCell::Batch { epoch, results, commands: wishes }).await;
        let intrusion = if asks { std::mem::take(&mut *mishaps.intrusion.lock()) } else { Vec::new() };
        if !intrusion.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            send(stream, &FromCell::Batch { epoch, results: Vec::new(), commands: intrusion }).await;
        }
    }
    true
}

fn is_hosts(machine: &AgentLoop, id: &CallId) -> bool {
    machine.call(id).is_some_and(|call| call.runs_in == RunsIn::Host)
}

async fn send(stream: &mut UnixStream, frame: &FromCell) {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes).expect("a frame");
    // A host that is gone needs no frames.
    let _ = stream.write_all(&bytes).await;
}

pub struct TestClock;

impl Clock for TestClock {
    #[allow(clippy::disallowed_methods, reason = "the composition root of these tests")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Timestamp(since.as_micros() as i64)
    }
}

/// Ids that differ between services of one test, too.
pub struct TestIds(AtomicU64);

static SEED: AtomicU64 = AtomicU64::new(1);

impl IdSource for TestIds {
    fn ulid(&self) -> u128 {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        (TestClock.now().millis() as u128) << 80 | u128::from(n) << 20 | u128::from(n % 1_000_003)
    }
}

pub struct House {
    pub service: SessionService,
    pub store: Arc<dyn Store>,
    pub rooms_started: Arc<AtomicUsize>,
    pub mishaps: Arc<Mishaps>,
    /// What the host sends for its sessions.
    pub errands: Arc<Errands>,
    /// What becomes of the connections of its rooms.
    pub gate: Arc<Gate>,
    /// What its sessions' credentials hold.
    pub secrets: Arc<Secrets>,
    pub directory: Arc<tempfile::TempDir>,
}

pub fn workspace() -> WorkspaceId {
    WorkspaceId::default_workspace()
}

impl House {
    pub async fn open(tools: Tools) -> House {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let store = loopd_store::sqlite::SqliteStore::open(&directory.path().join("loopd.db")).expect("a store");
        House::on(Arc::new(store), directory, tools, true, Arc::default(), HELD_MS).await
    }

    /// A house whose store fails as the test wants, and whose answers are held for so long.
    pub async fn open_with(tools: Tools, faults: loopd_store::sqlite::Faults, held_ms: u64) -> House {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let path = directory.path().join("loopd.db");
        let store = loopd_store::sqlite::SqliteStore::open_with(&path, faults).expect("a store");
        House::on(Arc::new(store), directory, tools, true, Arc::default(), held_ms).await
    }

    /// Another process on the same store; the one before is taken for dead.
    pub async fn reopen(&self, tools: Tools) -> House {
        House::on(self.store.clone(), self.directory.clone(), tools, true, self.errands.clone(), HELD_MS).await
    }

    /// Another process that is only there for a moment.
    pub async fn visit(&self, tools: Tools) -> House {
        House::on(self.store.clone(), self.directory.clone(), tools, false, self.errands.clone(), HELD_MS).await
    }

    async fn on(
        store: Arc<dyn Store>,
        directory: Arc<tempfile::TempDir>,
        tools: Tools,
        takes_up: bool,
        errands: Arc<Errands>,
        held_ms: u64,
    ) -> House {
        let rooms_started = Arc::new(AtomicUsize::new(0));
        let mishaps = Arc::new(Mishaps::default());
        let clock = Arc::new(TestClock);
        let config = loopd_models::ModelsConfig::default();
        let models = loopd_models::Registry::from_config(config, &|_| None, clock.clone()).expect("models");
        let connections = Arc::new(loopd_session::ConnectionReports::default());
        let (gate, secrets) = (Arc::new(Gate::new(connections.clone())), Arc::new(Secrets::default()));
        let service = SessionService::start(Parts {
            store: store.clone(),
            sandbox: Arc::new(OpenRoom {
                tools,
                started: rooms_started.clone(),
                mishaps: mishaps.clone(),
                sessions: directory.path().join("sessions"),
            }),
            images: Images::open(directory.path(), Default::default(), clock.clone()).expect("images"),
            models: Arc::new(models),
            host_tools: errands.clone(),
            egress: gate.clone(),
            connections,
            placeholders: secrets.clone(),
            bearers: Arc::new(loopd_broker::NoCredentials),
            clock,
            ids: Arc::new(TestIds(AtomicU64::new(SEED.fetch_add(1, Ordering::Relaxed) << 40))),
            data: directory.path().to_owned(),
            sole_owner: true,
            takes_up,
            room_idle_ms: 60_000,
            held_ms,
        })
        .await
        .expect("a service");
        House { service, store, rooms_started, mishaps, errands, gate, secrets, directory }
    }

    pub async fn create(&self, script: Value, tools: Vec<Tool>, text: &str) -> Accepted {
        self.try_create(script, tools, text, TurnSettings::default()).await.expect("created")
    }

    pub async fn try_create(
        &self,
        script: Value,
        tools: Vec<Tool>,
        text: &str,
        settings: TurnSettings,
    ) -> Result<Accepted, ServiceError> {
        self.try_create_with(agent(script, tools), text, settings).await
    }

    pub async fn try_create_with(
        &self,
        spec: AgentSpec,
        text: &str,
        settings: TurnSettings,
    ) -> Result<Accepted, ServiceError> {
        self.try_create_in(Default::default(), spec, text, settings).await
    }

    pub async fn try_create_in(
        &self,
        room: EnvironmentConfig,
        spec: AgentSpec,
        text: &str,
        settings: TurnSettings,
    ) -> Result<Accepted, ServiceError> {
        self.service.create(self.new_session(room, spec, text, settings), None).await
    }

    pub fn new_session(
        &self,
        room: EnvironmentConfig,
        spec: AgentSpec,
        text: &str,
        settings: TurnSettings,
    ) -> NewSession {
        let inputs = if text.is_empty() { Vec::new() } else { vec![message(text)] };
        NewSession {
            workspace: workspace(),
            agent: SessionAgent { id: None, version: 0, spec },
            environment: None,
            vaults: self.secrets.vaults(),
            room,
            title: None,
            metadata: Metadata::new(),
            inputs,
            settings,
        }
    }

    pub async fn send(&self, id: &SessionId, inputs: Vec<EventBody>) -> Result<Accepted, ServiceError> {
        self.service.send(&workspace(), id, inputs, TurnSettings::default(), None).await
    }

    /// Events up to and with the next `status_idle` after `after`.
    pub async fn until_idle(&self, id: &SessionId, after: u64) -> Vec<Event> {
        let is_idle = |body: &EventBody| matches!(body, EventBody::StatusIdle { .. });
        self.until(id, after, is_idle).await
    }

    pub async fn until(&self, id: &SessionId, after: u64, last: impl Fn(&EventBody) -> bool) -> Vec<Event> {
        let mut follower = self.service.follow(&workspace(), id, FollowFrom::After(after)).await.expect("a follower");
        let mut events = Vec::new();
        let wait = async {
            while let Some(item) = follower.next().await {
                if let Followed::Event(event) = item.expect("an item") {
                    let done = last(&event.body);
                    events.push(Event::clone(&event));
                    if done {
                        return;
                    }
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(15), wait).await.is_err() {
            panic!("the session did not get there; it has {:#?}", kinds(&events));
        }
        events
    }

    pub async fn session(&self, id: &SessionId) -> Session {
        self.service.get(&workspace(), id).await.expect("a session")
    }

    /// The loop decides again what the journal says that it decided.
    pub fn assert_replays(&self, session: &Session, events: &[Event]) {
        let mut replayer = Replayer::of(&session.agent);
        for event in events {
            replayer.apply(event).expect("a legal history");
        }
        let report = replayer.report();
        assert_eq!((report.divergence, report.unannounced_takeovers), (None, 0), "{events:#?}");
    }

    /// Every entry is legal after the ones before, and the cached fold is that of the journal.
    pub async fn assert_legal(&self, id: &SessionId) -> Vec<Event> {
        let events = self.store.journal().read(id, 0, 10_000).await.expect("a journal");
        let mut fold = SessionFold::default();
        for event in &events {
            fold.apply(event).expect("a legal history");
        }
        let session = self.session(id).await;
        assert_eq!(fold, session.fold);
        self.assert_replays(&session, &events);
        events
    }
}

pub fn agent(script: Value, tools: Vec<Tool>) -> AgentSpec {
    AgentSpec {
        name: "tester".to_owned(),
        description: None,
        model: ModelRef {
            id: "builtin/script".to_owned(),
            effort: None,
            base_url: None,
            max_tokens: None,
            temperature: None,
            extra: None,
        },
        system: Some(script.to_string()),
        tools,
        on_unknown_outcome: Default::default(),
        mcp_servers: Vec::new(),
        metadata: Metadata::new(),
    }
}

pub fn toolset(config: ToolConfig) -> Vec<Tool> {
    vec![Tool::Toolset { default_config: config, configs: Vec::new() }]
}

pub fn custom(name: &str) -> Tool {
    let input_schema = json!({"type": "object"});
    Tool::Custom { name: name.to_owned(), description: "for tests".to_owned(), input_schema }
}

pub fn message(text: &str) -> EventBody {
    EventBody::UserMessage { content: vec![ContentBlock::text(text)] }
}

pub fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|e| e.body.kind()).collect()
}

/// Why the session came to rest. A turn that gave up shows what it says of that.
pub fn stop_reason(events: &[Event]) -> StopReason {
    for event in events {
        if let EventBody::SessionError { error } = &event.body {
            println!("{}: {}", error.kind, error.message);
        }
    }
    match &events.last().expect("an event").body {
        EventBody::StatusIdle { stop_reason, .. } => stop_reason.clone(),
        other => panic!("not idle but {}", other.kind()),
    }
}

/// Texts and outcomes of all results, in order.
pub fn results(events: &[Event]) -> Vec<(String, Outcome)> {
    let one = |e: &Event| match &e.body {
        EventBody::AgentToolResult { content, outcome, .. } => {
            let text = content.iter().map(|c| match c {
                ContentBlock::Text { text } => text.clone(),
                _ => String::new(),
            });
            Some((text.collect(), *outcome))
        }
        _ => None,
    };
    events.iter().filter_map(one).collect()
}
