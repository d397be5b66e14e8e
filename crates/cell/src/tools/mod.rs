//! The built-in tools: from a call to exactly one result, whatever happens on the way.
//!
//! A call is started once: the result of one that has ended is kept until the journal surely has it, and given again to
//! whoever wants that call run.
//!
//! `bash` has a process of its own that lives on; every other tool is a function that runs in a worker. To add a tool: its
//! row in `domain/agent.rs`, its file here, its line in [`function_of`].

mod bash;
mod edit;
mod fields;
mod glob;
mod grep;
mod path;
mod read;
mod runner;
mod worker;
mod write;

use crate::processes;
use crate::tool_user::ToolUser;
use crate::variables::Variables;
use bash::Bash;
use loopd_domain::CallId;
use loopd_domain::agent::Builtin;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::Outcome;
use loopd_protocol::{CallLimits, CallResult};
use runner::Runner;
use rustix::event::PollFd;
use rustix::process::{Pid, WaitStatus};
use serde_json::Value;
use std::time::{Duration, Instant};
use worker::{Function, Worker};

/// What the model reads about a call that was stopped.
pub const INTERRUPTED: &str = "Tool execution was interrupted before completion. Please retry.";

/// How long nothing has to happen before the tools get ready. The host takes up the question just asked in this time: a
/// fork of the cell would keep it from the processor.
const QUIET: Duration = Duration::from_millis(1);

/// All calls that run. Nothing here waits: [`Tools::advance`] goes as far as it can, and the event loop polls.
#[derive(Debug)]
pub struct Tools {
    user: ToolUser,
    limits: CallLimits,
    bash: Bash,
    workers: Vec<Worker>,
    /// Waits for the next call of a function.
    idle: Option<Runner>,
    /// Functions may be called, and no runner was started for them yet.
    wants_runner: bool,
    /// To be handed out.
    finished: Vec<CallResult>,
    /// Handed out, and perhaps lost on the way to the journal. At most the calls of one step.
    kept: Vec<CallResult>,
    /// A process of the cell that is no tool's.
    spared: Option<Pid>,
}

impl Tools {
    pub fn new(user: ToolUser) -> Self {
        Tools {
            bash: Bash::new(user.clone()),
            user,
            limits: CallLimits::default(),
            workers: Vec::new(),
            idle: None,
            wants_runner: false,
            finished: Vec::new(),
            kept: Vec::new(),
            spared: None,
        }
    }

    /// Of calls that begin from now on.
    pub fn limit(&mut self, limits: CallLimits) {
        self.limits = limits;
        self.bash.limit(limits);
    }

    /// Starts a call. One that runs already goes on undisturbed; one that has ended is not run again.
    pub fn start(&mut self, id: &CallId, name: &str, input: &Value, now: Instant) {
        if let Some(at) = self.kept.iter().position(|result| &result.id == id) {
            return self.finished.push(self.kept.swap_remove(at));
        }
        if self.known().contains(id) {
            return;
        }
        let Some(builtin) = Builtin::parse(name) else {
            let accepted = Builtin::ALL.map(Builtin::name).join("`, `");
            return self.finished.push(not_run(id.clone(), format!("no tool `{name}` here; accepted: `{accepted}`")));
        };
        let started = match function_of(builtin) {
            None => self.bash.start(id.clone(), input),
            Some(function) => self.start_function(id.clone(), builtin, function, input, now),
        };
        self.finished.extend(started.err());
    }

    fn start_function(
        &mut self,
        id: CallId,
        builtin: Builtin,
        function: Function,
        input: &Value,
        now: Instant,
    ) -> Result<(), CallResult> {
        let runner = runner::order(builtin, input).and_then(|order| self.runner(&order));
        self.workers.push(
            match runner {
                Some(runner) => Worker::of(id, builtin.name(), runner, now),
                None => Worker::start(&self.user, id, builtin.name(), function, input, now)?,
            }
            .within(self.limits),
        );
        Ok(())
    }

    /// A runner that has taken the order: the one that waits, or a new one. `None`: neither can be had.
    fn runner(&mut self, order: &[u8]) -> Option<Runner> {
        self.wants_runner = false;
        let waiting = self.idle.take().filter(|runner| runner.order(order));
        waiting.or_else(|| Runner::start(&self.user).ok().filter(|runner| runner.order(order)))
    }

    /// These tools may be called in the turn that begins.
    pub fn expect(&mut self, names: &[String]) {
        let has_function = names.iter().filter_map(|name| Builtin::parse(name)).any(|b| function_of(b).is_some());
        self.wants_runner = has_function && self.idle.is_none() && self.workers.is_empty();
    }

    /// When to call `get_ready`, if nothing happens until then.
    pub fn gets_ready_at(&self, now: Instant) -> Option<Instant> {
        self.wants_runner.then(|| now + QUIET)
    }

    /// Gets ready while the model thinks. Where a runner cannot be had, the first call says what is wrong.
    pub fn get_ready(&mut self) {
        if std::mem::take(&mut self.wants_runner) && self.idle.is_none() {
            self.idle = Runner::start(&self.user).ok();
        }
    }

    /// What programs find in their environment from the next command on.
    pub fn set_variables(&mut self, variables: Variables) {
        self.bash.set_variables(variables);
    }

    /// A process of the cell, or none, that is not to be killed together with what tools have started.
    pub fn spare(&mut self, process: Option<Pid>) {
        self.spared = process;
    }

    /// A result that needed no work.
    pub fn finish(&mut self, result: CallResult) {
        self.finished.push(result);
    }

    /// Stops a call; its result follows at once. One that has ended meanwhile is left alone.
    pub fn cancel(&mut self, id: &CallId, now: Instant) {
        let keep = self.kept_pids();
        self.finished.extend(self.bash.cancel(id, &keep, now));
        if let Some(at) = self.workers.iter().position(|w| w.id() == id) {
            self.finished.push(self.workers.swap_remove(at).cancel(now));
        }
    }

    /// Ends every call that runs, because of a limit of the room. Those that wait go on.
    pub fn stop_all(&mut self, why: &str, now: Instant) {
        let calls: Vec<Pid> = self.workers.iter().map(Worker::pid).collect();
        let keep: Vec<Pid> = self.kept_pids().into_iter().filter(|pid| !calls.contains(pid)).collect();
        // Also what no shell knows of any more.
        processes::kill_all_but(&keep);
        self.finished.extend(self.bash.stop(why, &keep, now));
        self.finished.extend(self.workers.drain(..).map(|worker| worker.stop(why, now)));
    }

    /// Calls that run, wait, or have ended with a result that may still be wanted.
    pub fn known(&self) -> Vec<CallId> {
        let results = self.finished.iter().chain(&self.kept).map(|result| result.id.clone());
        self.bash.calls().chain(self.workers.iter().map(|w| w.id().clone())).chain(results).collect()
    }

    /// Stops every other call; nobody wants their results.
    pub fn keep_only(&mut self, wanted: &[CallId], now: Instant) {
        let unwanted: Vec<CallId> = self.known().into_iter().filter(|id| !wanted.contains(id)).collect();
        unwanted.iter().for_each(|id| self.cancel(id, now));
        self.finished.retain(|result| wanted.contains(&result.id));
        self.kept.retain(|result| wanted.contains(&result.id));
    }

    /// The journal has all results that were handed out.
    pub fn forget(&mut self) {
        self.kept.clear();
    }

    /// Adds what the event loop is to watch.
    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        self.bash.poll_fds(fds);
        self.workers.iter().for_each(|w| w.poll_fds(fds));
    }

    /// When to call `advance` even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.workers.iter().map(Worker::deadline).chain(self.bash.deadline()).min()
    }

    /// A child of the cell has ended.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus, now: Instant) {
        self.finished.extend(self.bash.reaped(pid, status, now));
        self.workers.iter_mut().for_each(|w| w.reaped(pid, status));
        self.idle.take_if(|runner| runner.pid == pid);
    }

    /// Takes in what is there and gives the calls that have ended since.
    pub fn advance(&mut self, now: Instant) -> Vec<CallResult> {
        for worker in std::mem::take(&mut self.workers) {
            match worker.advance(now) {
                Ok(running) => self.workers.push(running),
                Err(done) => {
                    self.finished.push(done.result);
                    self.idle = self.idle.take().or(done.runner);
                }
            }
        }
        let keep = self.kept_pids();
        self.bash.advance(&keep, now, &mut self.finished);
        self.kept.extend(self.finished.iter().cloned());
        std::mem::take(&mut self.finished)
    }

    /// A piece of a running call's output, at most every now and then.
    pub fn preview(&mut self, now: Instant) -> Option<(CallId, String)> {
        self.bash.preview(now)
    }

    /// What goes on when the shell and all that it started are killed.
    fn kept_pids(&self) -> Vec<Pid> {
        let runner = self.idle.iter().map(|runner| runner.pid);
        self.workers.iter().map(Worker::pid).chain(runner).chain(self.spared).collect()
    }
}

/// `None` for the tool that is no function.
fn function_of(builtin: Builtin) -> Option<Function> {
    Some(match builtin {
        Builtin::Bash => return None,
        Builtin::Read => read::run,
        Builtin::Write => write::run,
        Builtin::Edit => edit::run,
        Builtin::Glob => glob::run,
        Builtin::Grep => grep::run,
    })
}

/// How a call ended, before it is known whose and how long it took.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ending {
    pub content: Vec<ContentBlock>,
    pub is_error: bool,
    pub outcome: Outcome,
}

impl Ending {
    pub fn fine(text: impl Into<String>) -> Self {
        Ending { content: vec![ContentBlock::text(text)], is_error: false, outcome: Outcome::Completed }
    }

    pub fn error(text: impl Into<String>) -> Self {
        Ending { is_error: true, ..Ending::fine(text) }
    }

    pub fn outcome(self, outcome: Outcome) -> Self {
        Ending { outcome, ..self }
    }

    pub fn of(self, id: CallId, took: Duration) -> CallResult {
        let Ending { content, is_error, outcome } = self;
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        CallResult { id, content, is_error, outcome, duration_ms }
    }
}

/// A call that came to nothing, and why.
pub fn failed(id: CallId, message: String) -> CallResult {
    Ending::error(message).of(id, Duration::ZERO)
}

/// A call that must not have happened.
pub fn not_run(id: CallId, message: String) -> CallResult {
    Ending::error(message).outcome(Outcome::NotRun).of(id, Duration::ZERO)
}
