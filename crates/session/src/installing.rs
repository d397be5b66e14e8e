//! Installing packages in a room of its own: no session's, with a way out to package registries and nowhere else.
//!
//! The room is like any other, and its cell is given a turn that has one call of the shell left to run. Nobody asks a model. When
//! the call has its result the room ends, and what it left in its outputs is taken out.

use crate::driver;
use crate::link::Link;
use crate::requests::Parts;
use async_trait::async_trait;
use loopd_agent_loop::{Call, LoopConfig, Resume};
use loopd_broker::{Client, Egress, RunningCalls};
use loopd_domain::agent::Builtin;
use loopd_domain::content::ContentBlock;
use loopd_domain::environment::{EnvironmentConfig, Networking, Ports, RoomLimits, size};
use loopd_domain::event::{Permission, RunsIn};
use loopd_domain::limits::{
    OUTLET_CONNECTIONS_MAX, PACKAGES_DISK_BYTES_MAX, PACKAGES_FILE_BYTES_MAX, PACKAGES_SECONDS_MAX,
    ROOM_MEMORY_BYTES_DEFAULT, ROOM_PROGRESS_LINE_CHARS_MAX as LINE_CHARS_MAX,
};
use loopd_domain::progress::{Progress, Stage};
use loopd_domain::session::TurnLimits;
use loopd_domain::{CallId, Epoch, SessionId, WorkspaceId};
use loopd_images::ImageError;
use loopd_images::packages::{Installed, Installer, LAYER, LOG, Order};
use loopd_protocol::{CallLimits, CallResult, FromCell, ToCell, VERSION};
use loopd_sandbox::files::{Content, FileEntry, FileKind, FileSink};
use loopd_sandbox::port::Outlet;
use loopd_sandbox::{Room, RoomExit, RoomSpec, Sandbox, SandboxError};
use serde_json::json;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What a shell may take to say that its command took too long, and a killed room to go.
const LAG: Duration = Duration::from_secs(30);
/// Nobody else ever has the room.
const EPOCH: Epoch = Epoch(1);
/// Characters of what a shell said last.
const SAID_CHARS_MAX: usize = 500;

/// Installs in rooms of this server.
pub struct BuildRooms(pub Arc<Parts>);

#[async_trait]
impl Installer for BuildRooms {
    async fn install(&self, order: Order) -> Result<Installed, ImageError> {
        let BuildRooms(parts) = self;
        let session = SessionId::generate(parts.ids.as_ref());
        let _building = parts.images.building(&session);
        let config = config(&order);
        let spec = RoomSpec { root: order.root.clone(), ..driver::spec(parts, &session, EPOCH, &config) };
        let done = run(parts, &spec, &config, order).await;
        // Whatever came of it: nothing of the room stays.
        let removed = parts.sandbox.remove(&spec).await;
        if let Err(fault) = removed {
            tracing::warn!(%session, %fault, "a room in which packages were installed could not be removed; the next sweep tries again");
        }
        done.map_err(|fault| ImageError::unavailable(format!("a room to install them in: {fault}")))
    }
}

fn config(order: &Order) -> EnvironmentConfig {
    let mut ports = Ports::default();
    ports.0.extend(&order.ports);
    ports.0.sort_unstable();
    ports.0.dedup();
    EnvironmentConfig {
        networking: Networking::Limited {
            allowed_hosts: order.hosts.clone(),
            allow_mcp_servers: false,
            allow_package_managers: true,
        },
        ports,
        limits: RoomLimits {
            memory_bytes: 2 * ROOM_MEMORY_BYTES_DEFAULT,
            file_bytes: PACKAGES_FILE_BYTES_MAX,
            disk_bytes: PACKAGES_DISK_BYTES_MAX,
            call_seconds: PACKAGES_SECONDS_MAX,
            ..RoomLimits::default()
        },
        ..EnvironmentConfig::default()
    }
}

async fn run(
    parts: &Arc<Parts>,
    spec: &RoomSpec,
    config: &EnvironmentConfig,
    order: Order,
) -> Result<Installed, SandboxError> {
    let Order { variables, script, files, what, teller, .. } = order;
    let mut printed = Printed { progress: Progress::of(Stage::Install, what), lines: 0, rest: String::new() };
    if !files.is_empty() {
        let (sandbox, place) = (Arc::clone(&parts.sandbox), spec.clone());
        blocking(&spec.directory, move || write(sandbox.as_ref(), &place, &files)).await?;
    }
    let room = parts.sandbox.start(spec).await?;
    let Room { channel, outlet, mut exit, mut meter, guard, walls: _ } = room;
    let connections = outlet.map(|outlet| {
        let mut connections = JoinSet::new();
        connections.spawn(serve(outlet, Arc::clone(&parts.egress), Arc::new(client(spec, config))));
        connections
    });
    let mut link = Link::new(channel);
    let call = CallId::generate(parts.ids.as_ref());
    let work = async {
        link.send(&ToCell::Attach { version: VERSION, session: spec.session.clone(), epoch: EPOCH })?;
        link.send(&begin(parts, config, call.clone(), &script, variables))?;
        loop {
            tokio::select! {
                frame = link.next() => match frame? {
                    FromCell::Batch { mut results, .. } => {
                        if let Some(at) = results.iter().position(|result| result.id == call) {
                            return Ok(results.swap_remove(at));
                        }
                    }
                    FromCell::Log { message } => {
                        tracing::info!(message = %message.chars().take(SAID_CHARS_MAX).collect::<String>().escape_debug(), "the cell of an installation says");
                    }
                    FromCell::Output { text, .. } => {
                        if let Some(progress) = printed.push(&text) {
                            teller.say(progress);
                        }
                    }
                    FromCell::Hello { .. } => {}
                },
                _ = meter.disk_full(true) => {
                    let message = format!("more than {} on disk", size(PACKAGES_DISK_BYTES_MAX));
                    link.send(&ToCell::Stop { message })?;
                }
            }
        }
    };
    let ended: Result<CallResult, Ended> =
        match tokio::time::timeout(Duration::from_secs(PACKAGES_SECONDS_MAX) + LAG, work).await {
            Ok(done) => done.map_err(Ended::Lost),
            Err(_) => Err(Ended::TimeUp),
        };
    guard.kill();
    let gone = tokio::time::timeout(LAG, exit.wait_for(Option::is_some)).await;
    let gone = gone.ok().and_then(Result::ok).and_then(|exit| exit.clone());
    drop(connections);
    let failure = match ended {
        Ok(result) if !result.is_error => None,
        Ok(result) => Some(said(&result)),
        Err(Ended::TimeUp) => Some(format!("it took longer than {PACKAGES_SECONDS_MAX} seconds")),
        Err(Ended::Lost(fault)) => {
            return Err(SandboxError::Root(match gone {
                Some(RoomExit::Failed(cause)) => format!("it could not be built: {cause}"),
                Some(RoomExit::Lost(cause)) => cause,
                _ => fault.to_string(),
            }));
        }
    };
    let (sandbox, place) = (Arc::clone(&parts.sandbox), spec.clone());
    let outputs = blocking(&spec.directory, move || {
        let mut outputs = Outputs::default();
        sandbox.read_files(&place, &mut outputs)?;
        Ok(outputs)
    });
    let Outputs { log, layer } = outputs.await?;
    Ok(Installed { failure, log, layer })
}

/// Why there is no result.
enum Ended {
    Lost(crate::link::LinkError),
    TimeUp,
}

async fn blocking<T: Send + 'static>(
    directory: &Path,
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    let stopped = |fault| SandboxError::Directory { path: directory.to_owned(), source: io::Error::other(fault) };
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

/// A turn of which all that is left is one call.
fn begin(
    parts: &Parts,
    config: &EnvironmentConfig,
    call: CallId,
    script: &str,
    variables: Vec<(String, String)>,
) -> ToCell {
    let now = parts.clock.now();
    let name = Builtin::Bash.name().to_owned();
    let call = Call {
        id: call,
        name: name.clone(),
        input: json!({"command": script, "timeout_ms": config.limits.call_seconds * 1_000}),
        runs_in: RunsIn::Room,
        permission: Permission::Allow,
        malformed: None,
        verdict: None,
        deny_message: None,
        settled: false,
    };
    let limits = TurnLimits { steps: 2, output_tokens: u64::MAX, seconds: u64::MAX, cost_micro_usd: None };
    let resume = Resume {
        limits,
        started_at: now,
        steps: 1,
        output_tokens: 0,
        cost: None,
        output_rejections: 0,
        calls: vec![call],
        queued: Vec::new(),
        answered: None,
    };
    let call_limits = CallLimits { output_bytes: config.limits.output_bytes, seconds: config.limits.call_seconds };
    let config = LoopConfig { tools: vec![name], parallel_max: 1, calls_max: 1, output_repairs_max: 0 };
    ToCell::Begin { config, resume, now, variables, limits: call_limits }
}

/// What a package manager has printed.
struct Printed {
    progress: Progress,
    lines: u64,
    /// Of a line that has not ended.
    rest: String,
}

impl Printed {
    /// What there is to be told, if a line has ended.
    fn push(&mut self, text: &str) -> Option<Progress> {
        let Some((ended, rest)) = text.rsplit_once('\n') else {
            let left = LINE_CHARS_MAX.saturating_sub(self.rest.chars().count());
            self.rest.extend(text.chars().take(left));
            return None;
        };
        let last = std::mem::take(&mut self.rest) + ended;
        self.rest = rest.chars().take(LINE_CHARS_MAX).collect();
        self.lines += last.split('\n').count() as u64;
        let shown = last.lines().rev().find(|line| !line.trim().is_empty());
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let shown = shown.map(|line| line.chars().map(plain).take(LINE_CHARS_MAX).collect());
        Some(self.progress.clone().lines(self.lines, shown))
    }
}

/// What the shell says last of a command that failed, which is how it ended.
fn said(result: &CallResult) -> String {
    let text: Vec<&str> = result.content.iter().filter_map(text_of).collect();
    let text = text.join(" ");
    let text = text.trim_end().lines().next_back().unwrap_or_default();
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_CHARS_MAX).collect();
    text.trim().trim_start_matches('[').trim_end_matches(']').to_owned()
}

fn text_of(block: &ContentBlock) -> Option<&str> {
    match block {
        ContentBlock::Text { text, .. } => Some(text),
        _ => None,
    }
}

fn client(spec: &RoomSpec, config: &EnvironmentConfig) -> Client {
    Client {
        session: spec.session.clone(),
        workspace: WorkspaceId::default_workspace(),
        epoch: EPOCH,
        networking: config.networking.clone(),
        ports: config.ports.0.clone(),
        mcp_hosts: Vec::new(),
        vaults: Vec::new(),
        running: RunningCalls::default(),
    }
}

/// Serves the room's wishes for connections until this is dropped.
async fn serve(mut outlet: Box<dyn Outlet>, egress: Arc<dyn Egress>, client: Arc<Client>) {
    let places = Arc::new(Semaphore::new(OUTLET_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // Nobody closes the places.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok(stream) = outlet.accept().await else { break };
        while connections.try_join_next().is_some() {}
        let (egress, client) = (Arc::clone(&egress), Arc::clone(&client));
        connections.spawn(async move {
            egress.serve(client, Box::new(stream)).await;
            drop(place);
        });
    }
    while connections.join_next().await.is_some() {}
}

fn write(sandbox: &dyn Sandbox, spec: &RoomSpec, files: &[(String, Vec<u8>)]) -> Result<(), SandboxError> {
    let fault = |source| SandboxError::Directory { path: spec.directory.clone(), source };
    let mut writer = sandbox.write_files(spec)?;
    for (name, bytes) in files {
        let entry = FileEntry {
            path: Path::new("workspace").join(name),
            kind: FileKind::File { bytes: bytes.len() as u64 },
            mode: 0o644,
            modified_s: 0,
        };
        writer.put(&entry, Content::Stream(&mut bytes.as_slice())).map_err(fault)?;
    }
    writer.finish().map_err(fault)
}

/// Of a session's files, the two that an installation leaves.
#[derive(Default)]
struct Outputs {
    log: Option<File>,
    layer: Option<File>,
}

impl FileSink for Outputs {
    fn put(&mut self, entry: &FileEntry, content: Content<'_>) -> io::Result<()> {
        let outputs = PathBuf::from("outputs");
        let wanted = match &entry.path {
            path if *path == outputs.join(LOG) => &mut self.log,
            path if *path == outputs.join(LAYER) => &mut self.layer,
            _ => return Ok(()),
        };
        match content {
            Content::File(file) => *wanted = Some(file.try_clone()?),
            Content::None => {}
            Content::Stream(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "an installation's outputs come as files"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_the_last_one_is_shown() {
        let mut printed = Printed { progress: Progress::of(Stage::Install, "x"), lines: 0, rest: String::new() };
        let shown =
            |progress: Option<Progress>| progress.map(|p| (p.amount.map_or(0, |a| a.done), p.line.unwrap_or_default()));
        assert_eq!(shown(printed.push("Collec")), None);
        assert_eq!(shown(printed.push("ting a\n\n")), Some((2, "Collecting a".to_owned())));
        assert_eq!(shown(printed.push("one\ntwo\u{1b}[2J\nthr")), Some((4, "two [2J".to_owned())));
        assert_eq!(shown(printed.push(&"e".repeat(1_000))), None);
        let (lines, line) = shown(printed.push("!\n")).expect("a line has ended");
        assert_eq!((lines, line.chars().count()), (5, LINE_CHARS_MAX));
    }
}
