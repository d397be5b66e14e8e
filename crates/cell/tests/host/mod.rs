//! A host double: it starts the real program outside a room and plays the host that connects to it.
#![allow(dead_code)] // each test file uses its part

use loopd_agent_loop::{Call, Command, Input, LoopConfig, Resume};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{Outcome, Permission, RunsIn};
use loopd_domain::session::TurnLimits;
use loopd_domain::{CallId, Epoch, EventId, SessionId, Timestamp};
use loopd_protocol::codec::{Decoder, encode};
use loopd_protocol::{CallLimits, CallResult, FromCell, ToCell, VERSION};
use serde_json::Value;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Host {
    pub channel: UnixStream,
    pub previews: Vec<(CallId, String)>,
    cell: Child,
    decoder: Decoder,
    directory: TempDir,
    /// Where the cell listens; not in its tools' way.
    sockets: TempDir,
    calls: u32,
    epoch: u64,
    pub limits: CallLimits,
    /// For the turns to come.
    pub tools: Vec<String>,
    pub variables: Vec<(String, String)>,
}

/// Frames of one connection.
pub fn frames(frames: &[ToCell]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| encode(frame, &mut bytes).expect("a frame"));
    bytes
}

pub fn attach(version: u32, epoch: u64) -> ToCell {
    let session = SessionId::parse("session", "sesn_1").expect("an id");
    ToCell::Attach { version, session, epoch: Epoch(epoch) }
}

/// One batch of the cell.
#[derive(Debug)]
pub struct Batch {
    pub epoch: Epoch,
    pub results: Vec<CallResult>,
    pub commands: Vec<Command>,
}

impl Host {
    pub fn start() -> Self {
        Self::start_as("same", "")
    }

    /// `around` is put before the program, e.g. `unshare …`.
    pub fn start_as(tool_uid: &str, around: &str) -> Self {
        let mut host = Self::launch(tool_uid, around, "600");
        assert_eq!(host.attach(), Vec::new());
        host
    }

    /// With a connection on which nothing was said yet.
    pub fn launch(tool_uid: &str, around: &str, patience: &str) -> Self {
        Self::launch_with(tool_uid, around, patience, &[])
    }

    /// With more variables for the cell.
    pub fn launch_with(tool_uid: &str, around: &str, patience: &str, variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path(), open).expect("a mode");
        let sockets = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(sockets.path().join("cell")).expect("a socket");
        let channel = dial(sockets.path());
        let script = format!(r#"exec {around} "$0" 3<&0 </dev/null"#);
        let cell = std::process::Command::new("/bin/sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_loopd-cell")])
            .current_dir(&directory)
            .env("LOOPD_TOOL_UID", tool_uid)
            .env("LOOPD_ORPHAN_SECONDS", patience)
            .env("TMPDIR", directory.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .expect("the cell");
        Host {
            channel,
            previews: Vec::new(),
            cell,
            decoder: Decoder::default(),
            directory,
            sockets,
            calls: 0,
            epoch: 0,
            limits: CallLimits::default(),
            tools: vec!["bash".into()],
            variables: Vec::new(),
        }
    }

    /// Attaches with the next epoch. The calls that the cell knows come back.
    pub fn attach(&mut self) -> Vec<CallId> {
        self.epoch += 1;
        self.send(&attach(VERSION, self.epoch));
        match self.receive() {
            Some(FromCell::Hello { version: VERSION, calls }) => calls,
            other => panic!("{other:?}"),
        }
    }

    /// Another connection, on which nothing was said yet; the one before comes back.
    pub fn dial_again(&mut self) -> UnixStream {
        self.decoder = Decoder::default();
        std::mem::replace(&mut self.channel, dial(self.sockets.path()))
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn pid(&self) -> u32 {
        self.cell.id()
    }

    pub fn send(&mut self, frame: &ToCell) {
        self.channel.write_all(&frames(std::slice::from_ref(frame))).expect("sent");
    }

    pub fn input(&mut self, input: Input) {
        self.send(&ToCell::Input { now: Timestamp(2_000_000), input });
    }

    /// The next frame; `None` when the cell has closed the channel.
    pub fn receive(&mut self) -> Option<FromCell> {
        loop {
            if let Some(frame) = self.decoder.next().expect("a frame") {
                return Some(frame);
            }
            let mut bytes = [0; 64 << 10];
            match self.channel.read(&mut bytes) {
                Ok(0) => return None,
                Err(fault) if fault.kind() == ErrorKind::ConnectionReset => return None,
                // A read with a time limit is not begun again by itself.
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                read => self.decoder.push(&bytes[..read.expect("the cell answers in time")]),
            }
        }
    }

    /// The next batch; previews on the way are kept.
    pub fn batch(&mut self) -> Batch {
        loop {
            match self.receive().expect("the cell lives") {
                FromCell::Batch { epoch, results, commands } => return Batch { epoch, results, commands },
                FromCell::Output { id, text } => self.previews.push((id, text)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Begins a turn whose step has these calls, in this order. Their ids come back.
    pub fn begin(&mut self, calls: &[(&str, Value)]) -> Vec<CallId> {
        let calls: Vec<Call> = calls.iter().map(|(name, input)| self.call(name, input.clone())).collect();
        let ids = calls.iter().map(|call| call.id.clone()).collect();
        self.begin_with(calls);
        ids
    }

    pub fn begin_with(&mut self, calls: Vec<Call>) {
        let config = LoopConfig { tools: self.tools.clone(), parallel_max: 8, calls_max: 64, output_repairs_max: 2 };
        let resume = Resume {
            limits: TurnLimits::default(),
            started_at: Timestamp(0),
            steps: 1,
            output_tokens: 0,
            cost: None,
            output_rejections: 0,
            calls,
            queued: Vec::new(),
            answered: None,
        };
        self.send(&ToCell::Begin {
            config,
            resume,
            now: Timestamp(1_000_000),
            variables: self.variables.clone(),
            limits: self.limits,
        });
    }

    pub fn call(&mut self, name: &str, input: Value) -> Call {
        self.calls += 1;
        Call {
            id: EventId::parse("id", &format!("sevt_{}", self.calls)).expect("an id"),
            name: name.to_owned(),
            input,
            runs_in: RunsIn::Room,
            permission: Permission::Allow,
            malformed: None,
            verdict: None,
            deny_message: None,
            settled: false,
        }
    }

    /// Runs one call to its end.
    pub fn run(&mut self, name: &str, input: Value) -> CallResult {
        let ids = self.begin(&[(name, input)]);
        let mut batch = self.batch();
        assert_eq!(batch.results.len(), 1, "{batch:?}");
        assert_eq!(batch.results[0].id, ids[0]);
        assert!(matches!(batch.commands.as_slice(), [Command::CallModel { .. }]), "result and next step in one batch");
        batch.results.remove(0)
    }

    pub fn bash(&mut self, command: &str) -> CallResult {
        self.run("bash", serde_json::json!({ "command": command }))
    }

    /// What a command printed; it must succeed.
    pub fn prints(&mut self, command: &str) -> String {
        let result = self.bash(command);
        assert!(!result.is_error, "`{command}`: {result:?}");
        text(&result).to_owned()
    }

    /// Waits for the program to end.
    pub fn ended(&mut self) -> ExitStatus {
        within("the cell ends", || self.cell.try_wait().expect("a child"))
    }

    /// Peak resident memory of the cell, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process");
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Most tests end with a living cell; it has nothing to say about that.
        let _ = self.cell.kill();
        let _ = self.cell.wait();
    }
}

fn dial(sockets: &Path) -> UnixStream {
    let channel = UnixStream::connect(sockets.join("cell")).expect("the backlog takes it");
    channel.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    channel
}

/// The only text of a result.
pub fn text(result: &CallResult) -> &str {
    match result.content.as_slice() {
        [ContentBlock::Text { text }] => text,
        other => panic!("{other:?}"),
    }
}

pub fn failed(result: &CallResult, outcome: Outcome) -> &str {
    assert!(result.is_error && result.outcome == outcome, "{result:?}");
    text(result)
}

/// Looks again and again until there is something.
pub fn within<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / 10 {
        if let Some(found) = look() {
            return found;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("not within {PATIENCE:?}: {what}")
}

/// Whether a process runs (a zombie does not).
pub fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").expect("a stat line").1.starts_with('Z'))
}

/// Whether tests that need another user can run; says so when not.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        eprintln!("{test} needs root and was left out");
    }
    root
}

/// Whether these programs can be started; says so when not, and insists where all tests must run.
pub fn has(test: &str, programs: &[&str]) -> bool {
    let starts = |program: &&&str| {
        let found = std::process::Command::new("/bin/sh").args(["-c", "command -v \"$0\"", program]).output();
        found.is_ok_and(|found| found.status.success())
    };
    let missing: Vec<_> = programs.iter().filter(|program| !starts(program)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{test} needs {missing:?}");
    eprintln!("{test} needs {missing:?} and was left out");
    false
}
