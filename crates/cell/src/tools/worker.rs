//! One call of a tool that is a function: it runs in another process, with the rights of the tools, so that a file that never
//! answers, a huge one, or a fault in a parser ends the call and not the cell.

use super::runner::{self, Runner};
use super::{Ending, INTERRUPTED, failed};
use crate::limits::{ROUND_BYTES_MAX, RUNNER_ANSWER_BYTES_MAX, WORKER_ANSWER_BYTES_MAX, WORKER_TIMEOUT};
use crate::pipe::read_some;
use crate::tool_user::ToolUser;
use crate::{processes, sys};
use loopd_domain::event::Outcome;
use loopd_domain::{CallId, Invalid};
use loopd_protocol::{CallLimits, CallResult};
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitStatus, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A tool: from its input and the directory where relative paths start to what the model is told.
pub type Function = fn(&Value, &Path) -> Result<Ending, Fault>;

/// Why a tool could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Input(#[from] Invalid),
    /// The sentence says what was met and what to do.
    #[error("{0}")]
    Refused(String),
    #[error("`{path}`: {source}")]
    File { path: String, source: io::Error },
}

#[derive(Debug)]
pub struct Worker {
    id: CallId,
    name: &'static str,
    process: Process,
    received: Vec<u8>,
    /// How the process ended, once it is known.
    ended: Option<WaitStatus>,
    closed: bool,
    started: Instant,
    may_take: Duration,
}

#[derive(Debug)]
enum Process {
    /// One that can serve another call afterwards.
    Runner(Runner),
    /// The call's own: forked with the call in its memory.
    Own { pid: Pid, answers: OwnedFd },
}

/// A call that has come to its end.
#[derive(Debug)]
pub struct Done {
    pub result: CallResult,
    /// It is as good as new.
    pub runner: Option<Runner>,
}

impl Worker {
    /// A call that was handed to a runner.
    pub fn of(id: CallId, name: &'static str, runner: Runner, now: Instant) -> Self {
        Self::new(id, name, Process::Runner(runner), now)
    }

    /// A call in a process of its own.
    pub fn start(
        user: &ToolUser,
        id: CallId,
        name: &'static str,
        function: Function,
        input: &Value,
        now: Instant,
    ) -> Result<Self, CallResult> {
        let spawn = || -> io::Result<Process> {
            let (answers, answer_end) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&answers, true)?;
            Ok(Process::Own { pid: user.start(|| work(function, input, user.directory(), answer_end))?, answers })
        };
        let process = spawn().map_err(|fault| failed(id.clone(), format!("`{name}` could not be started: {fault}")))?;
        Ok(Self::new(id, name, process, now))
    }

    fn new(id: CallId, name: &'static str, process: Process, now: Instant) -> Self {
        Worker {
            id,
            name,
            process,
            received: Vec::new(),
            ended: None,
            closed: false,
            started: now,
            may_take: WORKER_TIMEOUT,
        }
    }

    /// Bound by what the room allows, where that is less.
    pub fn within(mut self, limits: CallLimits) -> Self {
        self.may_take = WORKER_TIMEOUT.min(Duration::from_secs(limits.seconds));
        self
    }

    pub fn id(&self) -> &CallId {
        &self.id
    }

    pub fn pid(&self) -> Pid {
        match &self.process {
            Process::Runner(runner) => runner.pid,
            Process::Own { pid, .. } => *pid,
        }
    }

    fn answers(&self) -> &OwnedFd {
        match &self.process {
            Process::Runner(runner) => &runner.answers,
            Process::Own { answers, .. } => answers,
        }
    }

    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        // A closed pipe is always readable; what is waited for then is the end of the process.
        if !self.closed {
            fds.push(PollFd::new(self.answers(), PollFlags::IN));
        }
    }

    pub fn deadline(&self) -> Instant {
        self.started + self.may_take
    }

    pub fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        if self.pid() == pid {
            self.ended = Some(status);
        }
    }

    pub fn cancel(self, now: Instant) -> CallResult {
        self.kill();
        Ending::error(INTERRUPTED).outcome(Outcome::Interrupted).of(self.id, now - self.started)
    }

    /// Ends it because of a limit of the room.
    pub fn stop(self, why: &str, now: Instant) -> CallResult {
        self.kill();
        Ending::error(why).of(self.id, now - self.started)
    }

    /// The result, when there is one.
    pub fn advance(mut self, now: Instant) -> Result<Self, Box<Done>> {
        self.receive();
        let took = now - self.started;
        let ending = if let Some(ending) = self.answer() {
            return Err(Box::new(self.done(ending, took)));
        } else if self.received.len() > WORKER_ANSWER_BYTES_MAX {
            self.kill();
            Ending::error(format!("`{}` gave more than {WORKER_ANSWER_BYTES_MAX} bytes", self.name))
        } else if let Some(status) = self.ended {
            Ending::error(format!("the process of `{}` {}", self.name, processes::describe(status)))
        } else if now >= self.deadline() {
            self.kill();
            let seconds = self.may_take.as_secs();
            Ending::error(format!("`{}` ran into its time limit of {seconds} s and was stopped", self.name))
                .outcome(Outcome::TimedOut)
        } else {
            return Ok(self);
        };
        Err(Box::new(Done { result: ending.of(self.id, took), runner: None }))
    }

    /// After its answer a runner waits again, unless a large one has left its memory large.
    fn done(self, ending: Ending, took: Duration) -> Done {
        let is_as_new = self.ended.is_none() && !self.closed && self.received.len() <= RUNNER_ANSWER_BYTES_MAX;
        let runner = match self.process {
            Process::Runner(runner) if is_as_new => Some(runner),
            _ => None,
        };
        Done { result: ending.of(self.id, took), runner }
    }

    fn receive(&mut self) {
        // A process that has ended will write no more, so everything must be taken now.
        let max = if self.ended.is_some() { WORKER_ANSWER_BYTES_MAX + 1 } else { ROUND_BYTES_MAX };
        let mut received = std::mem::take(&mut self.received);
        self.closed = self.closed || !read_some(self.answers(), max, |bytes| received.extend_from_slice(bytes));
        self.received = received;
    }

    /// What the process wrote, if it is whole and not too much.
    fn answer(&self) -> Option<Ending> {
        if self.received.len() > WORKER_ANSWER_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(runner::whole(&self.received)?).ok()
    }

    fn kill(&self) {
        if self.ended.is_none() {
            // A process that has just ended is as good.
            let _ = kill_process(self.pid(), Signal::KILL);
        }
    }
}

/// The child: its exit code.
fn work(function: Function, input: &Value, directory: &Path, answer: OwnedFd) -> i32 {
    let fd = answer.as_raw_fd();
    // The channel, and the pipes of other calls, are none of this process's business.
    if sys::close_fds(3, fd - 1).and_then(|()| sys::close_fds(fd + 1, i32::MAX)).is_err() {
        return 125;
    }
    runner::answer(function(input, directory), &mut File::from(answer)).err().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::limits::READ_DOCUMENT_BYTES_MAX;
    use rustix::process::{WaitOptions, waitpid};

    fn start(function: Function) -> Worker {
        let user = ToolUser::for_test(Path::new("/"));
        let id = CallId::parse("id", "sevt_1").expect("an id");
        Worker::start(&user, id, "read", function, &Value::Null, clock::now()).expect("started")
    }

    /// As the event loop does, but on this process only: other tests have children too.
    fn end(mut worker: Worker) -> CallResult {
        loop {
            worker = match worker.advance(clock::now()) {
                Ok(running) => running,
                Err(done) => return done.result,
            };
            if let Ok(Some((pid, status))) = waitpid(Some(worker.pid()), WaitOptions::NOHANG) {
                worker.reaped(pid, status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn sleep_long(_: &Value, _: &Path) -> Result<Ending, Fault> {
        std::thread::sleep(Duration::from_secs(600));
        Ok(Ending::fine("late"))
    }

    #[test]
    fn a_call_ends_at_its_time_limit() {
        let worker = start(sleep_long);
        let (pid, started) = (worker.pid(), worker.started);
        let worker = worker.advance(started + WORKER_TIMEOUT - Duration::from_millis(1)).expect("still in time");
        let result = worker.advance(started + WORKER_TIMEOUT).expect_err("over").result;
        assert_eq!((result.outcome, result.is_error), (Outcome::TimedOut, true));
        assert_eq!(result.content, Ending::fine("`read` ran into its time limit of 60 s and was stopped").content);
        let status = waitpid(Some(pid), WaitOptions::empty()).expect("a child").expect("ended").1;
        assert_eq!(status.terminating_signal(), Some(9));
    }

    #[test]
    fn a_tool_that_panics_is_an_error() {
        let result = end(start(|_, _| panic!("on purpose")));
        assert_eq!(result.content, Ending::fine("the process of `read` ended with exit status 101").content);
        assert_eq!((result.outcome, result.is_error), (Outcome::Completed, true));
    }

    #[test]
    fn a_large_answer_arrives_whole() {
        let bytes = READ_DOCUMENT_BYTES_MAX as usize * 4 / 3;
        let result = end(start(|_, _| Ok(Ending::fine("x".repeat(READ_DOCUMENT_BYTES_MAX as usize * 4 / 3)))));
        assert_eq!(result.content[0].weight(), bytes);
        let result = end(start(|_, _| Ok(Ending::fine("x".repeat(WORKER_ANSWER_BYTES_MAX + 1)))));
        assert!(result.is_error && result.content[0].weight() < 100, "{} bytes", result.content[0].weight());
    }
}
