//! The command line as a person or a script uses it.

use crate::server::clean;
use crate::{PATIENCE, binary};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// A finished command.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "standard error:\n{}\nstandard output:\n{}", self.err, self.out);
        self.out
    }

    /// Each line as JSON.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("`{line}` is not JSON: {e}"));
        self.out.lines().map(parse).collect()
    }
}

/// `loopd` with nothing in its environment that is not given here; data and working directory are `directory`.
pub fn loopd(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::loopd());
    clean(&mut command).args(arguments).current_dir(directory).stdin(Stdio::null());
    command
}

pub fn run(directory: &Path, arguments: &[&str]) -> Done {
    finish(&mut loopd(directory, arguments))
}

pub fn run_with(directory: &Path, env: &[(&str, &str)], arguments: &[&str]) -> Done {
    finish(loopd(directory, arguments).envs(env.iter().copied()))
}

pub fn run_fed(directory: &Path, arguments: &[&str], input: &str) -> Done {
    let mut command = loopd(directory, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("loopd starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    of(child.wait_with_output().expect("it ends"))
}

fn finish(command: &mut Command) -> Done {
    of(command.output().expect("loopd starts"))
}

fn of(output: std::process::Output) -> Done {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A command on its way.
pub struct Live {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Live {
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().expect("loopd starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Live { child, out }
    }

    /// Reads lines up to one that contains `text`; gives all of them.
    pub fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let from = seen.len();
            let read = self.out.read_line(&mut seen).expect("UTF-8");
            assert!(read > 0, "it ended before it said `{text}`; it said:\n{seen}");
            if seen[from..].contains(text) {
                return seen;
            }
        }
    }

    /// Ctrl-C, as a terminal means it: for the command and all that it started in its process group.
    pub fn interrupt(&self) {
        kill_process_group(Pid::from_child(&self.child), Signal::INT).expect("it runs");
    }

    pub fn code(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it ran") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not end");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().and_then(|()| self.child.wait()).expect("it runs");
        }
    }
}
