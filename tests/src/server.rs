//! `loopd serve` as a process: started, killed, started again on the same data.

use crate::{Http, PATIENCE, binary};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

const ANY_PORT: &str = "127.0.0.1:0";

/// How a server is to be started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub env: Vec<(String, String)>,
    /// Text of a `loopd.toml`.
    pub config: Option<String>,
    /// The user who starts it; `None`: the one who runs the tests.
    pub user: Option<u32>,
    /// A program and its arguments, to which loopd's are added: it becomes loopd.
    pub within: Vec<String>,
}

impl Options {
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }
    pub fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }
    pub fn within(mut self, words: &[&str]) -> Self {
        self.within = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }
}

pub struct Server {
    root: Arc<TempDir>,
    options: Options,
    process: Child,
    url: String,
}

impl Server {
    /// In development mode, with nothing configured.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        Self::on(TempDir::with_prefix("loopd-test-").expect("a directory"), options)
    }

    /// In a directory that was prepared; its data will lie below it in `data`.
    pub fn on(root: TempDir, options: Options) -> Self {
        if let Some(text) = &options.config {
            std::fs::write(root.path().join("loopd.toml"), text).expect("written");
        }
        if let Some(user) = options.user {
            std::os::unix::fs::chown(root.path(), Some(user), Some(user)).expect("given to the user");
        }
        let (process, url) = launch(root.path(), &options, ANY_PORT, &[]);
        Server { root: Arc::new(root), options, process, url }
    }

    /// Another server on the same data, once it serves there.
    pub fn successor(&self, listen: &str, args: &[&str]) -> Server {
        let (process, url) = launch(self.root.path(), &self.options, listen, args);
        Server { root: self.root.clone(), options: self.options.clone(), process, url }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A client that shows the key that the server was given, if it was given one.
    pub fn http(&self) -> Http {
        let key = self.options.env.iter().find(|(name, _)| name == "LOOPD_API_KEY").map(|(_, key)| key.clone());
        Http::new(&self.url, key)
    }

    /// SIGKILL, in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ran");
    }

    /// Starts it again on the same data, at another address.
    pub fn start_again(&mut self) {
        (self.process, self.url) = launch(self.root.path(), &self.options, ANY_PORT, &[]);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it runs");
    }

    /// SIGTERM; the exit code once it has ended.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Its exit code once it has ended; `None` when a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().expect("it ran") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server did not end within {PATIENCE:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

fn launch(root: &Path, options: &Options, listen: &str, args: &[&str]) -> (Child, String) {
    let mut command = program(options);
    command.args(["serve", "--listen", listen, "--data"]).arg(root.join("data")).args(args).current_dir(root);
    clean(&mut command).envs(options.env.iter().cloned()).stdout(Stdio::piped());
    let mut process = command.spawn().expect("loopd starts");
    let mut line = String::new();
    let read = BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line);
    match (read, line.trim().strip_prefix("loopd serves ")) {
        (Ok(_), Some(url)) => (process, url.to_owned()),
        (read, _) => panic!("loopd said `{}` ({read:?}) and not where it serves", line.trim()),
    }
}

/// The executable, as it is to be started: first what it is to be within, then by whom.
pub fn program(options: &Options) -> Command {
    let mut words = options.within.clone();
    if let Some(user) = options.user {
        words.extend([
            "setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={user}"),
            "--clear-groups".to_owned(),
            "--".to_owned(),
        ]);
    }
    let Some((first, rest)) = words.split_first() else { return Command::new(binary::loopd()) };
    let mut command = Command::new(first);
    command.args(rest).arg(binary::loopd());
    command
}

/// No setting and no key of whoever runs the tests takes part in them.
pub fn clean(command: &mut Command) -> &mut Command {
    let ours = |name: &str| {
        name.starts_with("LOOPD_") || name.ends_with("_API_KEY") || name.ends_with("_BASE_URL") || name == "OLLAMA_HOST"
    };
    for (name, _) in std::env::vars_os() {
        if ours(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.env("LOOPD_LOG", "warn").env("NO_COLOR", "1").env("LOOPD_ROOM_ORPHAN_SECONDS", "20")
}
