//! The shell process and its pipes.

use super::script::{self, OUTPUT_FD, STATUS_FD, Statuses};
use crate::limits::ROUND_BYTES_MAX;
use crate::output::Output;
use crate::pipe::{read_some, write_some};
use crate::sys;
use crate::tool_user::ToolUser;
use crate::variables::Variables;
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// A living shell. Dropping it closes its pipes; it does not end the process.
#[derive(Debug)]
pub struct Shell {
    pub pid: Pid,
    input: OwnedFd,
    output: OwnedFd,
    status: OwnedFd,
    /// What the shell has not read yet.
    line: Vec<u8>,
    written: usize,
    /// In its environment, as far as it was left alone there.
    variables: Variables,
    statuses: Statuses,
    /// A command may close our pipes if it digs for them. A closed one would wake the event loop all the time.
    output_closed: bool,
    status_closed: bool,
}

impl Shell {
    /// Starts one. That `/bin/bash` cannot be executed shows as its output and exit status 127.
    pub fn start(user: &ToolUser, variables: &Variables) -> io::Result<Self> {
        let environment = environment(user, variables);
        let (input_end, input) = pipe_with(PipeFlags::CLOEXEC)?;
        // Theirs, so that programs can open it once more, as `/dev/stdout` and `/dev/stderr`.
        let (output, output_end) = user.with_files(|| pipe_with(PipeFlags::CLOEXEC))?;
        let (status, status_end) = pipe_with(PipeFlags::CLOEXEC)?;
        for ours in [&input, &output, &status] {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        let arguments = ["bash", "--noprofile", "--norc"].map(|a| CString::new(a).expect("no NUL"));
        let pid = user.start(|| {
            let fault = become_bash(
                user,
                [&input_end, &output_end, &status_end].map(OwnedFd::as_raw_fd),
                &arguments,
                &environment,
            );
            println!("`/bin/bash` could not be started: {fault}");
            127
        })?;
        Ok(Shell {
            pid,
            input,
            output,
            status,
            line: Vec::new(),
            written: 0,
            variables: variables.clone(),
            statuses: Statuses::default(),
            output_closed: false,
            status_closed: false,
        })
    }

    /// Hands a command over. The one before must have ended. Variables that have changed since are told first, and only then:
    /// what a command makes of them stays as it is.
    pub fn submit(&mut self, command: &str, nonce: &str, variables: &Variables) {
        let change = script::change(&self.variables, variables);
        if !change.is_empty() {
            self.variables = variables.clone();
        }
        self.line = (change + &script::line(command, nonce)).into_bytes();
        self.written = 0;
        self.feed();
    }

    /// Writes what the shell has room for. A shell that is gone is told by its end, not by its pipe.
    pub fn feed(&mut self) {
        if self.hungry() {
            self.written += write_some(&self.input, &self.line[self.written..]);
        }
        if !self.hungry() {
            self.line = Vec::new();
            self.written = 0;
        }
    }

    /// Takes in what has been printed, up to a bound.
    pub fn read(&mut self, output: &mut Output) {
        self.read_up_to(ROUND_BYTES_MAX, output);
    }

    /// Takes in all that has been printed up to now, but nothing that comes while this runs: a job in the background may
    /// print for ever.
    pub fn read_rest(&mut self, output: &mut Output) {
        let waiting = rustix::io::ioctl_fionread(&self.output).unwrap_or(0);
        let waiting = usize::try_from(waiting).unwrap_or(ROUND_BYTES_MAX);
        self.read_up_to(waiting, output);
    }

    /// The exit status of the command that was submitted with `nonce`, once it has ended.
    pub fn exit_status(&mut self, nonce: &str) -> Option<i32> {
        if !self.status_closed {
            self.status_closed = !read_some(&self.status, ROUND_BYTES_MAX, |bytes| self.statuses.push(bytes));
        }
        self.statuses.take(nonce)
    }

    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for (pipe, closed) in [(&self.output, self.output_closed), (&self.status, self.status_closed)] {
            if !closed {
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        if self.hungry() {
            fds.push(PollFd::new(&self.input, PollFlags::OUT));
        }
    }

    fn read_up_to(&mut self, max: usize, output: &mut Output) {
        if !self.output_closed {
            self.output_closed = !read_some(&self.output, max, |bytes| output.push(bytes));
        }
    }

    fn hungry(&self) -> bool {
        self.written < self.line.len()
    }
}

/// In the child. The shell's own output is the pipe, for what it says at its end; its own errors, which would show our line
/// when somebody switches tracing on, go nowhere.
fn become_bash(
    user: &ToolUser,
    [input, output, status]: [RawFd; 3],
    arguments: &[CString],
    environment: &[CString],
) -> io::Error {
    let place = || -> io::Result<()> {
        sys::place_fd(output, 1)?;
        sys::place_fd(input, 0)?;
        sys::place_fd(status, STATUS_FD)?;
        sys::place_fd(output, OUTPUT_FD)?;
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        sys::place_fd(null.as_raw_fd(), 2)?;
        rustix::process::chdir(user.directory())?;
        Ok(())
    };
    // Everything else that the cell has open is closed by exec.
    match place() {
        Ok(()) => sys::exec(c"/bin/bash", arguments, environment),
        Err(fault) => fault,
    }
}

/// The tools' variables, and those of the host, which count where both have one.
fn environment(user: &ToolUser, variables: &Variables) -> Vec<CString> {
    let is_own = |entry: &&CString| {
        let name = entry.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        !variables.iter().any(|(given, _)| given.as_bytes() == name)
    };
    let given =
        variables.iter().map(|(name, value)| CString::new(format!("{name}={value}")).expect("no NUL in either"));
    user.environment().iter().filter(is_own).cloned().chain(given).collect()
}
