//! `loopd serve` as a process of this lane: started, killed, stopped, replaced, on one data directory.
//!
//! Its address changes with every start; clients learn it from [`Server::url`].

use crate::processes;
use crate::room::Isolation;
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long a server may take until it serves: longer than any wait for its predecessor.
const START: Duration = Duration::from_secs(30);
/// How long a server may take to end when it is told to.
const END: Duration = Duration::from_secs(30);
/// A lease that a stopped server outsleeps within a test's patience.
pub const LEASE_MS: u64 = 2_000;

pub struct Server {
    binary: PathBuf,
    root: PathBuf,
    child: Option<Child>,
    pub isolation: Isolation,
    url: watch::Sender<String>,
}

/// What became of a start.
#[derive(Debug, PartialEq, Eq)]
pub enum Started {
    Serving,
    /// It ended before it served, as one whose fail point is on the way there does.
    Died,
}

impl Server {
    pub fn new(binary: PathBuf, root: PathBuf, isolation: Isolation) -> Self {
        Server { binary, root, isolation, child: None, url: watch::Sender::new(String::new()) }
    }

    pub fn url(&self) -> watch::Receiver<String> {
        self.url.subscribe()
    }

    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts one with this fail point armed (`name=actions`), or with none.
    pub async fn start(&mut self, failpoint: Option<&str>) -> Result<Started> {
        self.start_with(failpoint, &[]).await
    }

    async fn start_with(&mut self, failpoint: Option<&str>, flags: &[&str]) -> Result<Started> {
        let mut child = launch(&self.binary, &self.root, failpoint, flags)?;
        let served = serving(&mut child).await?;
        let Some(url) = served else {
            child.wait().await.context("the server cannot be waited for")?;
            return Ok(Started::Died);
        };
        self.child = Some(child);
        self.url.send_replace(url);
        Ok(Started::Serving)
    }

    pub async fn start_plain(&mut self) -> Result<()> {
        match self.start(None).await? {
            Started::Serving => Ok(()),
            Started::Died => bail!("the server ended before it served; see `{}`", self.root.join("log").display()),
        }
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            processes::signal(pid as i32, signal);
        }
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("no server runs")?;
        let status = child.wait().await.context("the server cannot be waited for")?;
        self.child = None;
        Ok(status)
    }

    /// SIGKILL, in the middle of whatever it does.
    pub async fn kill(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.signal(Signal::KILL);
            self.ended().await?;
        }
        Ok(())
    }

    /// SIGTERM, and its end.
    pub async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let ended = timeout(END, self.ended()).await;
        let status = ended.with_context(|| format!("the server did not end within {END:?} of SIGTERM"))??;
        match status.success() {
            true => Ok(()),
            false => bail!("the server ended with {status} after SIGTERM"),
        }
    }

    /// A deploy: the next one takes over from a living one, or comes as soon as the old one has heard SIGTERM.
    pub async fn replace(&mut self, asks_itself: bool) -> Result<()> {
        let mut old = self.child.take().context("no server runs")?;
        if asks_itself {
            match self.start_with(None, &["--take-over"]).await? {
                Started::Serving => {}
                Started::Died => bail!("`serve --take-over` ended before it served"),
            }
        } else {
            processes::signal(old.id().context("the old server has not ended")? as i32, Signal::TERM);
            self.start_when_free().await?;
        }
        let status = timeout(END, old.wait()).await.with_context(|| format!("no end within {END:?} of SIGTERM"))??;
        match status.success() {
            true => Ok(()),
            false => bail!("the replaced server ended with {status}"),
        }
    }

    /// As a supervisor does: one that comes before the old one has said that it stops is refused, and tried again.
    async fn start_when_free(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while self.start(None).await? == Started::Died {
            if Instant::now() > deadline {
                bail!("no server could take the directory {START:?} after SIGTERM");
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Stops it for longer than its lease, starts another one on its directory, and lets it go on: it must end itself.
    pub async fn freeze_and_replace(&mut self) -> Result<()> {
        self.signal(Signal::STOP);
        let mut old = self.child.take().context("no server runs")?;
        let old_pid = old.id();
        sleep(Duration::from_millis(LEASE_MS + LEASE_MS / 2)).await;
        self.start_plain().await?;
        if let Some(pid) = old_pid {
            processes::signal(pid as i32, Signal::CONT);
        }
        match timeout(END, old.wait()).await {
            Ok(status) => status.map(drop).context("the stopped server cannot be waited for"),
            Err(_) => bail!("a server that lost its directory while it was stopped still runs {END:?} later"),
        }
    }

    /// The last lines that servers of this lane logged.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(self.root.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn launch(binary: &Path, root: &Path, failpoint: Option<&str>, flags: &[&str]) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(root.join("log"));
    let log = log.with_context(|| format!("`{}`", root.join("log").display()))?;
    let mut command = Command::new(binary);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(root.join("data")).args(flags).current_dir(root);
    // No setting and no key of whoever runs the harness takes part.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("LOOPD_LOG", "info").env("NO_COLOR", "1").env("LOOPD_LEASE_MS", LEASE_MS.to_string());
    if let Some(actions) = failpoint {
        command.env("FAILPOINTS", actions);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
    command.spawn().with_context(|| format!("`{}` cannot be started", binary.display()))
}

/// Where it serves; `None` when it ended without saying so.
async fn serving(child: &mut Child) -> Result<Option<String>> {
    let out = child.stdout.take().context("standard output is piped")?;
    let mut line = String::new();
    let read = timeout(START, BufReader::new(out).read_line(&mut line)).await;
    read.with_context(|| format!("the server did not serve within {START:?}"))??;
    match line.trim().strip_prefix("loopd serves ") {
        Some(url) => Ok(Some(url.to_owned())),
        None if line.is_empty() => Ok(None),
        None => bail!("the server said `{}` and not where it serves", line.trim()),
    }
}
