//! The sandbox under test, and a way to talk to the test cell in its rooms.

use crate::{Check, CheckVerdict, Room, RoomExit, RoomSpec, Sandbox};
use loopd_domain::environment::Isolation;
use loopd_domain::{Epoch, SessionId};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;

/// Longer than anything here takes; short enough that a hang is a failure and not a mystery.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a sandbox as a server does that starts; each on the same data.
pub type Make = Box<dyn Fn() -> Box<dyn Sandbox> + Send + Sync>;

/// How long cells of the sandbox under test wait for a host.
pub const ORPHAN_SECONDS: u64 = 4;

/// A kind of room to be tried.
pub struct Subject {
    make: Make,
    sandbox: Box<dyn Sandbox>,
    data: PathBuf,
    next: AtomicU32,
    isolation: Isolation,
    crowd: usize,
    checks: OnceCell<Vec<Check>>,
}

/// A room, seen by somebody who talks to its test cell.
pub struct Visitor {
    room: Room,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: i32,
    pub text: String,
}

impl Subject {
    /// `data`: where sessions' directories are made. Cells wait for a host as long as [`ORPHAN_SECONDS`].
    pub fn new(make: Make, data: &Path) -> Self {
        let sandbox = make();
        Subject {
            make,
            sandbox,
            data: data.to_owned(),
            next: AtomicU32::new(0),
            isolation: Isolation::Namespaces,
            crowd: 50,
            checks: OnceCell::new(),
        }
    }

    /// Rooms of this kind. In a virtual machine the host sees no process but the VMM, limits are the guest's kernel's to keep, and a disk is
    /// as large as its limit: what a rule means there stands beside it.
    #[must_use]
    pub fn of(self, isolation: Isolation) -> Self {
        Subject { isolation, ..self }
    }

    /// How many rooms are to start at once.
    #[must_use]
    pub fn with_crowd(self, crowd: usize) -> Self {
        Subject { crowd, ..self }
    }

    pub fn crowd(&self) -> usize {
        self.crowd
    }

    pub fn has_own_kernel(&self) -> bool {
        self.isolation == Isolation::Microvm
    }

    /// Another server on the same data.
    pub fn another(&self) -> Box<dyn Sandbox> {
        (self.make)()
    }

    pub fn sandbox(&self) -> &dyn Sandbox {
        &*self.sandbox
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A new session's room.
    pub fn spec(&self) -> RoomSpec {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let session = SessionId::parse("session", &format!("sesn_TEST{number}")).expect("letters and digits");
        let directory = self.data.join("sessions").join(session.as_str());
        RoomSpec { isolation: self.isolation, ..RoomSpec::plain(session, Epoch(1), directory) }
    }

    /// Starts a room and waits for its cell's first sign of life.
    pub async fn enter(&self, spec: &RoomSpec) -> Visitor {
        match self.sandbox.start(spec).await {
            Ok(room) => Visitor::greeted(room).await,
            Err(fault) => panic!("a room could not be started: {fault}"),
        }
    }

    /// Whether the backend says that it does something, such as a limit that this machine may not offer.
    pub async fn claims(&self, check: &str) -> bool {
        let checks = self.checks.get_or_init(|| self.sandbox.probe()).await;
        let found = checks.iter().find(|one| one.name == check);
        found.unwrap_or_else(|| panic!("no check `{check}` among {checks:?}")).verdict == CheckVerdict::Works
    }
}

impl Visitor {
    /// Waits for the first sign of life of a room's cell.
    pub async fn greeted(mut room: Room) -> Self {
        match tokio::time::timeout(PATIENCE, room.channel.read_u8()).await {
            Ok(Ok(b'!')) => Visitor { room },
            other => {
                // Why stands in its exit, which may come a moment later.
                let exit = tokio::time::timeout(PATIENCE, room.exit.wait_for(Option::is_some)).await;
                panic!("the test cell did not greet: {other:?}; the room: {exit:?}")
            }
        }
    }

    /// For somebody whom the cell has greeted already.
    pub fn met(room: Room) -> Self {
        Visitor { room }
    }

    /// Runs a shell command as a tool.
    pub async fn tool(&mut self, command: &str) -> Answer {
        self.ask("tool", command).await
    }

    /// Runs a shell command as the cell.
    pub async fn cell(&mut self, command: &str) -> Answer {
        self.ask("cell", command).await
    }

    /// How many processes of the room have this among their arguments.
    pub async fn count(&mut self, mark: &str) -> usize {
        // As a pattern that does not match itself.
        let (first, rest) = mark.split_at(1);
        let arguments = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'";
        let found = self.tool(&format!("{arguments} | grep -c -x -e '[{first}]{rest}'")).await;
        found.text.trim().parse().unwrap_or_default()
    }

    /// Makes a system call as a tool; the status is its error number.
    pub async fn syscall(&mut self, numbers: &[i64]) -> i32 {
        let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
        self.ask("syscall", &numbers.join(" ")).await.status
    }

    pub async fn ask(&mut self, verb: &str, body: &str) -> Answer {
        match tokio::time::timeout(PATIENCE, self.exchange(verb, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(fault)) => panic!("`{body}`: {fault}; the room: {:?}", self.room.exit.borrow()),
            Err(_) => panic!("`{body}`: no answer in {PATIENCE:?}"),
        }
    }

    async fn exchange(&mut self, verb: &str, body: &str) -> std::io::Result<Answer> {
        self.tell(verb, body).await?;
        let length = self.room.channel.read_u32_le().await?;
        let mut bytes = vec![0; length as usize];
        self.room.channel.read_exact(&mut bytes).await?;
        let text = String::from_utf8_lossy(&bytes);
        let (status, text) = text.split_once('\n').unwrap_or((&text, ""));
        Ok(Answer { status: status.parse().unwrap_or(-1), text: text.to_owned() })
    }

    /// Sends a request without waiting for its answer.
    pub async fn tell(&mut self, verb: &str, body: &str) -> std::io::Result<()> {
        let request = format!("{verb}\n{body}");
        self.room.channel.write_u32_le(request.len() as u32).await?;
        self.room.channel.write_all(request.as_bytes()).await
    }

    pub async fn exit(&mut self) -> RoomExit {
        let gone = tokio::time::timeout(PATIENCE, self.room.exit.wait_for(Option::is_some)).await;
        let gone = gone.unwrap_or_else(|_| panic!("the room did not end in {PATIENCE:?}"));
        gone.expect("the sender tells before it goes").clone().expect("waited for")
    }

    /// Lets go of the room and waits until it is gone.
    pub async fn leave(self) -> RoomExit {
        let Room { channel, mut exit, guard, .. } = self.room;
        drop((guard, channel));
        let gone = tokio::time::timeout(PATIENCE, exit.wait_for(Option::is_some)).await;
        let gone = gone.unwrap_or_else(|_| panic!("the room did not end in {PATIENCE:?}"));
        gone.expect("the sender tells before it goes").clone().expect("waited for")
    }

    /// Lets go of the connection and leaves the room alive.
    pub fn abandon(self) {
        self.room.guard.leave();
    }

    pub fn into_room(self) -> Room {
        self.room
    }

    pub fn room(&mut self) -> &mut Room {
        &mut self.room
    }
}
