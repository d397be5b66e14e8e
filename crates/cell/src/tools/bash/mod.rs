//! `bash`: one persistent shell, one command at a time; calls wait in line.
//!
//! ```text
//!            start                 status line
//!  no shell ───────► shell, idle ◄───────────── shell, running
//!      ▲                 │  └──────── submit ──────►  │
//!      └── shell ended ──┴── restart, timeout, cancel ┘  (both kill all that the shell ever started)
//! ```
//!
//! The end of a command is what the status pipe says, never the end of its output: a job in the background may hold that
//! open for ever. What such jobs print between two calls is shown at the beginning of the next one.

mod request;
mod script;
mod shell;

use crate::limits::PREVIEW_EVERY;
use crate::output::Output;
use crate::processes;
use crate::tool_user::ToolUser;
use crate::tools::{Ending, INTERRUPTED, failed};
use crate::variables::Variables;
use loopd_domain::CallId;
use loopd_domain::environment::size;
use loopd_domain::event::Outcome;
use loopd_protocol::{CallLimits, CallResult};
use request::Request;
use rustix::event::PollFd;
use rustix::process::{Pid, WaitStatus};
use shell::Shell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

const RESTARTED: &str = "bash session restarted";
const FRESH: &str = "the next call starts a fresh shell: working directory, variables and background jobs are gone";

#[derive(Debug)]
pub struct Bash {
    user: ToolUser,
    shell: Option<Shell>,
    running: Option<Running>,
    waiting: VecDeque<(CallId, Request)>,
    /// For the next command.
    variables: Variables,
    /// What the current command, or the jobs in the background, printed.
    output: Output,
    limits: CallLimits,
}

#[derive(Debug)]
struct Running {
    id: CallId,
    restarted: bool,
    started: Instant,
    deadline: Instant,
    timeout: Duration,
    /// That it may not take longer is the room's word, not its own.
    is_rooms: bool,
    preview_due: Instant,
}

impl Bash {
    pub fn new(user: ToolUser) -> Self {
        Bash {
            user,
            shell: None,
            running: None,
            waiting: VecDeque::new(),
            variables: Variables::default(),
            output: Output::default(),
            limits: CallLimits::default(),
        }
    }

    pub fn limit(&mut self, limits: CallLimits) {
        self.limits = limits;
    }

    /// What the shell finds in its environment from the next command on.
    pub fn set_variables(&mut self, variables: Variables) {
        self.variables = variables;
    }

    /// Takes a call on. It is run when those before it have ended.
    pub fn start(&mut self, id: CallId, input: &serde_json::Value) -> Result<(), CallResult> {
        let request = Request::parse(input).map_err(|fault| failed(id.clone(), fault.to_string()))?;
        self.waiting.push_back((id, request));
        Ok(())
    }

    /// The call that runs, and those that wait.
    pub fn calls(&self) -> impl Iterator<Item = CallId> {
        let running = self.running.iter().map(|running| &running.id);
        running.chain(self.waiting.iter().map(|(id, _)| id)).cloned()
    }

    /// Ends a call now, if it is one of this tool's.
    pub fn cancel(&mut self, id: &CallId, keep: &[Pid], now: Instant) -> Option<CallResult> {
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| waiting == id) {
            self.waiting.remove(at);
            return Some(Ending::error(INTERRUPTED).outcome(Outcome::Interrupted).of(id.clone(), Duration::ZERO));
        }
        let running = self.running.take_if(|r| &r.id == id)?;
        self.kill(keep);
        let text = match self.take_output() {
            output if output.is_empty() => INTERRUPTED.to_owned(),
            output => format!("{INTERRUPTED}\nOutput until then:\n{output}"),
        };
        Some(Ending::error(text).outcome(Outcome::Interrupted).of(running.id, now - running.started))
    }

    /// Ends the command that runs, and the shell with all that it ever started, because of a limit of the room. Without a
    /// command it may be a job in the background that is to blame; the next call reads why it is gone.
    pub fn stop(&mut self, why: &str, keep: &[Pid], now: Instant) -> Option<CallResult> {
        let had_shell = self.shell.is_some();
        self.kill(keep);
        let line = format!("{why} The command and the shell were killed; {FRESH}");
        let Some(running) = self.running.take() else {
            if had_shell {
                self.output.push(
                    format!("[{why} The shell and its background jobs were killed; this is a fresh one]\n").as_bytes(),
                );
            }
            return None;
        };
        let text = with_restart(running.restarted, self.take_output());
        Some(Ending::error(with_line(text, &line)).of(running.id, now - running.started))
    }

    /// Goes as far as it can without waiting. `keep` are processes of other tools.
    pub fn advance(&mut self, keep: &[Pid], now: Instant, finished: &mut Vec<CallResult>) {
        loop {
            if self.running.is_none() && !self.begin(keep, now, finished) {
                break;
            }
            match self.check(keep, now) {
                Some(result) => finished.push(result),
                None => break,
            }
        }
        if let (None, Some(shell)) = (&self.running, &mut self.shell) {
            shell.read(&mut self.output);
            if self.output.printed() > self.limits.output_bytes {
                self.stop(&self.flooded(), keep, now);
            }
        }
    }

    fn flooded(&self) -> String {
        let limit = self.limits.output_bytes;
        format!("The room's output limit of {} was reached: more was printed.", size(limit))
    }

    /// A child of the cell has ended; perhaps it was the shell.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus, now: Instant) -> Option<CallResult> {
        let mut shell = self.shell.take_if(|shell| shell.pid == pid)?;
        shell.read_rest(&mut self.output);
        let how = processes::describe(status);
        let Some(running) = self.running.take() else {
            self.output.push(format!("[the shell {how} after the last call; this is a fresh one]\n").as_bytes());
            return None;
        };
        let text = with_restart(running.restarted, self.take_output());
        let ending = match (shell.exit_status(running.id.as_str()), status.exit_status()) {
            (Some(status), _) => completed(status, text),
            (None, Some(0)) => Ending::fine(with_line(text, &format!("the shell {how}; {FRESH}"))),
            (None, _) => Ending::error(with_line(text, &format!("the shell {how}; {FRESH}"))),
        };
        Some(ending.of(running.id, now - running.started))
    }

    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(shell) = &self.shell {
            shell.poll_fds(fds);
        }
    }

    /// When `advance` or `preview` must be called even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let running = self.running.as_ref()?;
        Some(if self.output.has_preview() { running.deadline.min(running.preview_due) } else { running.deadline })
    }

    /// What the running command printed lately, if it is time to tell.
    pub fn preview(&mut self, now: Instant) -> Option<(CallId, String)> {
        let running = self.running.as_mut().filter(|r| now >= r.preview_due && self.output.has_preview())?;
        running.preview_due = now + PREVIEW_EVERY;
        Some((running.id.clone(), self.output.take_preview()))
    }

    /// Starts the next waiting command. False when there is none.
    fn begin(&mut self, keep: &[Pid], now: Instant, finished: &mut Vec<CallResult>) -> bool {
        while let Some((id, request)) = self.waiting.pop_front() {
            if request.restart {
                self.kill(keep);
                self.output = Output::default();
            }
            let Some(command) = request.command else {
                finished.push(Ending::fine(RESTARTED).of(id, Duration::ZERO));
                continue;
            };
            match self.submit(&id, &command) {
                Ok(()) => {
                    let most = Duration::from_secs(self.limits.seconds);
                    self.running = Some(Running::new(id, request.restart, request.timeout, most, now));
                }
                Err(fault) => {
                    finished
                        .push(failed(id, format!("the shell could not be started: {fault}; the command was not run")));
                    continue;
                }
            }
            return true;
        }
        false
    }

    fn submit(&mut self, id: &CallId, command: &str) -> std::io::Result<()> {
        let shell = match &mut self.shell {
            Some(shell) => shell,
            none => none.insert(Shell::start(&self.user, &self.variables)?),
        };
        shell.read(&mut self.output);
        // Nobody watched until now.
        self.output.take_preview();
        self.output.spill_as(id.as_str(), &self.user);
        self.output.count_anew();
        shell.submit(command, id.as_str(), &self.variables);
        Ok(())
    }

    /// Whether the running command has ended or must end.
    fn check(&mut self, keep: &[Pid], now: Instant) -> Option<CallResult> {
        let (running, shell) = (self.running.as_ref()?, self.shell.as_mut()?);
        shell.feed();
        let status = shell.exit_status(running.id.as_str());
        match status {
            Some(_) => shell.read_rest(&mut self.output),
            None => shell.read(&mut self.output),
        }
        if status.is_none() && self.output.printed() > self.limits.output_bytes {
            return self.stop(&self.flooded(), keep, now);
        }
        if status.is_none() && now < running.deadline {
            return None;
        }
        let running = self.running.take()?;
        let ending = match status {
            Some(status) => completed(status, with_restart(running.restarted, self.take_output())),
            None => {
                self.kill(keep);
                let what = match running.is_rooms {
                    true => format!("the room's limit of {} s for one call was reached", running.timeout.as_secs()),
                    false => format!("the command ran into its time limit of {} ms", running.timeout.as_millis()),
                };
                let end = format!("{what}; it and the shell were killed. {FRESH}");
                let text = with_restart(running.restarted, self.take_output());
                Ending::error(with_line(text, &end)).outcome(Outcome::TimedOut)
            }
        };
        Some(ending.of(running.id, now - running.started))
    }

    /// Ends the shell and all that it ever started.
    fn kill(&mut self, keep: &[Pid]) {
        if let Some(mut shell) = self.shell.take() {
            processes::kill_session(shell.pid, keep);
            shell.read_rest(&mut self.output);
        }
    }

    fn take_output(&mut self) -> String {
        std::mem::take(&mut self.output).finish()
    }
}

impl Running {
    /// `most`: what the room allows.
    fn new(id: CallId, restarted: bool, asked: Duration, most: Duration, now: Instant) -> Self {
        let (timeout, is_rooms) = (asked.min(most), most < asked);
        let (deadline, preview_due) = (now + timeout, now + PREVIEW_EVERY);
        Running { id, restarted, started: now, deadline, timeout, is_rooms, preview_due }
    }
}

fn completed(status: i32, output: String) -> Ending {
    match status {
        0 if output.is_empty() => Ending::fine("(no output)"),
        0 => Ending::fine(output),
        status => Ending::error(with_line(output, &format!("exit status {status}"))),
    }
}

fn with_restart(restarted: bool, text: String) -> String {
    if restarted { format!("{RESTARTED}\n{text}") } else { text }
}

/// `text`, then `line` on a line of its own in brackets, so that it is not taken for output.
fn with_line(mut text: String, line: &str) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("[{line}]"));
    text
}
