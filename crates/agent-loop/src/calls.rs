//! The calls of one step: what each of them needs, which run, and how the step stands.
//!
//! A call is refused, or it waits for the client, or it runs (in the room or on the host); in each case it is settled once. Results are put
//! in call order by the conversation's fold, so the order of settling does not matter here.

use crate::messages;
use crate::types::{Call, Command, LoopConfig};
use loopd_domain::CallId;
use loopd_domain::event::{Outcome, Permission, RunsIn, Verdict};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Calls {
    /// In the model's order.
    calls: Vec<Call>,
    /// Started and not ended, in the room and on the host. At most `parallel_max`.
    running: Vec<CallId>,
    /// The answer that holds them was cut off by `max_tokens`.
    cut_off: bool,
}

/// How a step stands after every call that could move has moved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Something runs.
    Running,
    /// Nothing runs, and these wait for the client, in call order.
    Waiting(Vec<CallId>),
    Settled,
}

/// What an unsettled call needs next.
enum Need {
    Refusal(String),
    Client,
    Run,
}

impl Calls {
    pub(crate) fn new(calls: Vec<Call>, cut_off: bool) -> Self {
        Calls { calls, running: Vec::new(), cut_off }
    }

    pub(crate) fn get(&self, id: &CallId) -> Option<&Call> {
        self.calls.iter().find(|c| &c.id == id)
    }

    pub(crate) fn all_settled(&self) -> bool {
        self.calls.iter().all(|c| c.settled)
    }

    /// The call has its result. False when it is unknown or had one.
    pub(crate) fn settle(&mut self, id: &CallId) -> bool {
        self.running.retain(|r| r != id);
        match self.calls.iter_mut().find(|c| &c.id == id && !c.settled) {
            Some(call) => {
                call.settled = true;
                true
            }
            None => false,
        }
    }

    /// The client confirmed or denied. False when the call does not wait for that.
    pub(crate) fn decide(&mut self, id: &CallId, verdict: Verdict, deny_message: Option<String>) -> bool {
        let waits = |c: &&mut Call| &c.id == id && !c.settled && c.permission == Permission::Ask && c.verdict.is_none();
        match self.calls.iter_mut().find(waits) {
            Some(call) => {
                call.verdict = Some(verdict);
                call.deny_message = deny_message;
                true
            }
            None => false,
        }
    }

    /// Refuses what can never run, and starts in order what may run now.
    pub(crate) fn advance(&mut self, config: &LoopConfig) -> Vec<Command> {
        let mut commands = Vec::new();
        // At least one, or a step with a call to run would never end.
        let parallel_max = config.parallel_max.max(1);
        for index in 0..self.calls.len() {
            let call = &self.calls[index];
            if call.settled || self.running.contains(&call.id) {
                continue;
            }
            let id = call.id.clone();
            match self.need(index, config) {
                Need::Refusal(message) => {
                    self.calls[index].settled = true;
                    commands.push(Command::Settle { id, outcome: Outcome::NotRun, message });
                }
                Need::Run if self.running.len() < parallel_max => {
                    self.running.push(id.clone());
                    commands.push(Command::RunTool { id });
                }
                Need::Run | Need::Client => {}
            }
        }
        commands
    }

    /// Only after [`Calls::advance`]: whatever neither runs nor is settled then waits for the client, or for a free place
    /// beside one that runs.
    pub(crate) fn standing(&self) -> Standing {
        if !self.running.is_empty() {
            return Standing::Running;
        }
        let waiting: Vec<CallId> = self.calls.iter().filter(|c| !c.settled).map(|c| c.id.clone()).collect();
        match waiting.is_empty() {
            true => Standing::Settled,
            false => Standing::Waiting(waiting),
        }
    }

    /// Cancels what runs; gives everything else that has no result this one.
    pub(crate) fn stop(&mut self, outcome: Outcome, message: &str) -> Vec<Command> {
        let mut commands = Vec::new();
        for call in self.calls.iter_mut().filter(|c| !c.settled) {
            let id = call.id.clone();
            if self.running.contains(&id) {
                commands.push(Command::CancelTool { id });
            } else {
                call.settled = true;
                commands.push(Command::Settle { id, outcome, message: message.to_owned() });
            }
        }
        commands
    }

    fn need(&self, index: usize, config: &LoopConfig) -> Need {
        let call = &self.calls[index];
        if index >= config.calls_max {
            return Need::Refusal(messages::too_many_calls(config.calls_max));
        }
        if let Some(reason) = &call.malformed {
            return Need::Refusal(messages::malformed(reason, self.cut_off));
        }
        if call.runs_in == RunsIn::Nowhere {
            return Need::Refusal(messages::unknown_tool(&call.name, &config.tools));
        }
        match (call.permission, call.verdict) {
            (Permission::Deny, _) => Need::Refusal(messages::denied_by_policy(&call.name)),
            (Permission::Ask, None) => Need::Client,
            (Permission::Ask, Some(Verdict::Deny)) => {
                Need::Refusal(messages::denied_by_client(call.deny_message.as_deref()))
            }
            (Permission::Ask, Some(Verdict::Allow)) | (Permission::Allow, _) => match call.runs_in {
                RunsIn::Room | RunsIn::Host => Need::Run,
                RunsIn::Client | RunsIn::Nowhere => Need::Client,
            },
        }
    }
}
