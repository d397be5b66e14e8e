//! The event loop: one owner of the loop, the tools and the channel.
//!
//! Each round takes in all that is ready, lets the loop decide, starts what it wants done in the room, and sends the host
//! one batch: results first, then the commands that follow from them. One batch is one commit of the journal, so nothing
//! that is ready at the same time is sent apart.

use crate::channel::ChannelError;
use crate::clock::{self, HostClock};
use crate::hosts::{Heard, Hosts};
use crate::limits::BATCH_BYTES_MAX;
use crate::network::Network;
use crate::processes;
use crate::tool_user::ToolUser;
use crate::tools::{Tools, not_run};
use crate::variables::Variables;
use loopd_agent_loop::{AgentLoop, Command, Input, LoopConfig, Resume};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::RunsIn;
use loopd_domain::{CallId, Epoch, Timestamp};
use loopd_protocol::{CallResult, FromCell, ToCell, VERSION};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::time::Instant;

#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("waiting for something to happen: {0}")]
    Poll(Errno),
}

#[derive(Debug)]
pub struct Room {
    hosts: Hosts,
    /// Readable when a child has ended.
    children: OwnedFd,
    tools: Tools,
    /// `None` in a room without a way out.
    network: Option<Network>,
    /// `None` until the present host says what to work on.
    turn: Option<Turn>,
    stopping: bool,
}

#[derive(Debug)]
struct Turn {
    clock: HostClock,
    agent_loop: AgentLoop,
    /// For the next batch.
    results: Vec<CallResult>,
    commands: Vec<Command>,
}

impl Room {
    pub fn new(hosts: Hosts, children: OwnedFd, user: ToolUser, network: Option<Network>) -> Self {
        Room { hosts, children, tools: Tools::new(user), network, turn: None, stopping: false }
    }

    /// Works until a host ends it, or none comes any more.
    pub fn run(mut self) -> Result<(), RoomError> {
        let mut now = clock::now();
        while !self.stopping && self.hosts.gives_up_at().is_none_or(|at| now < at) {
            let quiet = self.wait(now)?;
            now = clock::now();
            self.reap(now);
            self.serve_network(now)?;
            self.hear(now)?;
            self.settle(now);
            self.tell(now)?;
            if quiet {
                self.tools.get_ready();
            }
        }
        Ok(())
    }

    /// True: nothing happened until a deadline.
    fn wait(&self, now: Instant) -> Result<bool, RoomError> {
        let mut fds = vec![PollFd::new(&self.children, PollFlags::IN)];
        self.hosts.poll_fds(&mut fds);
        self.tools.poll_fds(&mut fds);
        let mut network_deadline = None;
        if let Some(network) = &self.network {
            network.poll_fds(&mut fds);
            network_deadline = network.deadline();
        }
        let deadlines =
            [self.tools.deadline(), self.tools.gets_ready_at(now), self.hosts.gives_up_at(), network_deadline];
        let deadline = deadlines.into_iter().flatten().min();
        let timeout = deadline.map(|at| clock::timespec(at.saturating_duration_since(now)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => Ok(ready == 0),
            Err(Errno::INTR) => Ok(false),
            Err(fault) => Err(RoomError::Poll(fault)),
        }
    }

    /// Takes leave of every process that has ended, orphans of the room included.
    fn reap(&mut self, now: Instant) {
        crate::pipe::read_some(&self.children, usize::MAX, |_| {});
        while let Some((pid, status)) = processes::reap() {
            self.tools.reaped(pid, status, now);
            if let Some(network) = &mut self.network {
                network.reaped(pid, now);
            }
        }
    }

    fn serve_network(&mut self, now: Instant) -> Result<(), RoomError> {
        let Some(network) = &mut self.network else { return Ok(()) };
        let came = network.advance(now);
        self.tools.spare(network.stub());
        match came {
            Ok(()) => Ok(()),
            Err(fault) => self.log(&format!("the network stub could not be started: {fault}")),
        }
    }

    fn hear(&mut self, now: Instant) -> Result<(), RoomError> {
        self.hosts.read(now)?;
        while let Some(heard) = self.hosts.next(now) {
            match heard {
                Heard::Attached => {
                    // What runs goes on. The new host learns of it, and says with `Begin` what is still wanted.
                    self.turn = None;
                    self.hosts.send(&FromCell::Hello { version: VERSION, calls: self.tools.known() })?;
                }
                Heard::Frame(ToCell::Begin { config, resume, now: told, variables, limits }) => {
                    let (variables, refused) = Variables::accept(variables);
                    for why in refused {
                        self.log(&why)?;
                    }
                    self.tools.set_variables(variables);
                    self.tools.limit(limits);
                    self.begin(config, resume, told, now);
                }
                Heard::Frame(ToCell::Stop { message }) => self.tools.stop_all(&message, now),
                Heard::Frame(ToCell::Input { now: told, input }) => match &mut self.turn {
                    Some(turn) => {
                        turn.clock = HostClock::told(told, now);
                        turn.step(input, &mut self.tools, now);
                    }
                    None => self.log("an input came before a turn began; it was ignored")?,
                },
                Heard::Frame(ToCell::Shutdown) => self.stopping = true,
                Heard::Frame(ToCell::Attach { .. }) => {}
            }
        }
        Ok(())
    }

    /// Takes a turn up where the host's journal has it. What of it runs here goes on; what is not of it is stopped.
    fn begin(&mut self, config: LoopConfig, resume: Resume, told: Timestamp, now: Instant) {
        let open: Vec<CallId> = resume.calls.iter().filter(|call| !call.settled).map(|call| call.id.clone()).collect();
        self.tools.keep_only(&open, now);
        self.tools.expect(&config.tools);
        let (agent_loop, commands) = AgentLoop::resume(config, resume, told);
        let turn = self.turn.insert(Turn::new(HostClock::told(told, now), agent_loop));
        turn.carry_out(commands, &mut self.tools, now);
    }

    /// Brings calls that have ended to the loop, and what the loop wants next to the tools, until nothing is left to do now.
    fn settle(&mut self, now: Instant) {
        loop {
            let finished = self.tools.advance(now);
            let Some(turn) = self.turn.as_mut().filter(|_| !finished.is_empty()) else { return };
            for result in finished {
                let id = result.id.clone();
                turn.results.push(result);
                turn.step(Input::CallDone { id }, &mut self.tools, now);
            }
        }
    }

    fn tell(&mut self, now: Instant) -> Result<(), RoomError> {
        if let (Some(turn), Some(epoch)) = (&mut self.turn, self.hosts.epoch()) {
            for batch in turn.batches(epoch) {
                self.hosts.send(&batch)?;
            }
        }
        if let Some((id, text)) = self.tools.preview(now) {
            self.hosts.send_preview(&FromCell::Output { id, text })?;
        }
        Ok(self.hosts.flush()?)
    }

    fn log(&mut self, message: &str) -> Result<(), RoomError> {
        Ok(self.hosts.send(&FromCell::Log { message: message.to_owned() })?)
    }
}

impl Turn {
    fn new(clock: HostClock, agent_loop: AgentLoop) -> Self {
        Turn { clock, agent_loop, results: Vec::new(), commands: Vec::new() }
    }

    fn step(&mut self, input: Input, tools: &mut Tools, now: Instant) {
        if matches!(input, Input::Answered { .. }) {
            // A next step: the results of the one before are in the journal.
            tools.forget();
        }
        let commands = self.agent_loop.step(self.clock.now(now), input);
        self.carry_out(commands, tools, now);
    }

    /// Does what is done in the room; the rest is for the host.
    fn carry_out(&mut self, commands: Vec<Command>, tools: &mut Tools, now: Instant) {
        for command in commands {
            match command {
                Command::RunTool { id } if !self.is_hosts(&id) => self.run_tool(&id, tools, now),
                Command::CancelTool { id } if !self.is_hosts(&id) => tools.cancel(&id, now),
                other => self.commands.push(other),
            }
        }
    }

    /// The host runs it.
    fn is_hosts(&self, id: &CallId) -> bool {
        self.agent_loop.call(id).is_some_and(|call| call.runs_in == RunsIn::Host)
    }

    fn run_tool(&mut self, id: &CallId, tools: &mut Tools, now: Instant) {
        match self.agent_loop.call(id) {
            Some(call) => tools.start(id, &call.name, &call.input, now),
            None => tools.finish(not_run(id.clone(), format!("no call `{id}` in this step"))),
        }
    }

    /// Everything for the host as one frame, or as several when one could not hold it; what the loop wants comes last.
    fn batches(&mut self, epoch: Epoch) -> Vec<FromCell> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        let mut part = Vec::new();
        for result in self.results.drain(..) {
            let weight = weight(&result);
            if !part.is_empty() && bytes + weight > BATCH_BYTES_MAX {
                let results = std::mem::take(&mut part);
                batches.push(FromCell::Batch { epoch, results, commands: Vec::new() });
                bytes = 0;
            }
            bytes += weight;
            part.push(result);
        }
        let commands = std::mem::take(&mut self.commands);
        if !part.is_empty() || !commands.is_empty() {
            batches.push(FromCell::Batch { epoch, results: part, commands });
        }
        batches
    }
}

/// Bytes that a result may take in a frame. A control character is written as six.
fn weight(result: &CallResult) -> usize {
    let escaped = |text: &str| text.len() + 5 * text.bytes().filter(|b| *b < 0x20 || *b == b'"' || *b == b'\\').count();
    let block = |block: &ContentBlock| match block {
        ContentBlock::Text { text } => escaped(text),
        other => other.weight(),
    };
    256 + result.content.iter().map(block).sum::<usize>()
}
