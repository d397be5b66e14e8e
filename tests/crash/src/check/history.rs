//! Is a journal a legal history? Written from the rules of the design, not from the code that writes journals.
//!
//! Within a turn a step is `request start → (thinking | message | call)* → request end → one result for each call`; the next
//! request starts only then, and its step is the next. A turn starts when the session rests and ends with an idle; after
//! `requires_action` the same turn goes on. Nothing follows a termination.

use crate::journal::Entry;
use serde_json::Value;
use std::collections::HashSet;

#[derive(Debug, Default)]
struct History {
    last_at: i64,
    ids: HashSet<String>,
    status: Status,
    /// Number of the open turn.
    turn: Option<u64>,
    turns: u64,
    steps: u64,
    request: Option<String>,
    calls: Vec<Call>,
    /// Inputs that were accepted and wait.
    queued: Vec<String>,
    /// Kinds of the two entries before.
    before: [String; 2],
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Status {
    #[default]
    Idle,
    Running,
    Rescheduling,
    Terminated,
}

#[derive(Debug)]
struct Call {
    id: String,
    is_clients: bool,
    asks: bool,
    is_confirmed: bool,
    settled: bool,
}

impl Call {
    fn waits(&self) -> bool {
        !self.settled && (self.is_clients || (self.asks && !self.is_confirmed))
    }
}

/// Every entry that cannot stand where it stands. `at_rest`: nothing may be left open at the end.
pub fn check(entries: &[Entry], at_rest: bool) -> Vec<String> {
    let mut history = History::default();
    let mut faults = Vec::new();
    for entry in entries {
        if let Err(fault) = history.step(entry) {
            faults.push(format!("entry {} ({}): {fault}", entry.seq, entry.kind));
        }
    }
    if at_rest {
        faults.extend(history.unfinished());
    }
    faults
}

type Step = Result<(), String>;

fn must(holds: bool, fault: &str) -> Step {
    if holds { Ok(()) } else { Err(fault.to_owned()) }
}

impl History {
    fn step(&mut self, entry: &Entry) -> Step {
        must(entry.body["type"] == entry.kind.as_str(), "its kind is not the type of its payload")?;
        must(entry.at >= self.last_at, "its time is before its predecessor's")?;
        must(self.ids.insert(entry.id.clone()), "its id stands in the journal already")?;
        must(self.status != Status::Terminated, "the session was terminated")?;
        self.last_at = entry.at;
        let outcome = self.transition(entry);
        self.before = [std::mem::take(&mut self.before[1]), entry.kind.clone()];
        outcome
    }

    fn transition(&mut self, entry: &Entry) -> Step {
        let body = &entry.body;
        match entry.kind.as_str() {
            "loopd.input_queued" => {
                let id = body["input"]["id"].as_str().unwrap_or("").to_owned();
                must(!id.is_empty() && !self.queued.contains(&id) && !self.ids.contains(&id), "its input is not new")?;
                self.queued.push(id);
                Ok(())
            }
            "user.message" | "system.message" => {
                self.queued.retain(|id| *id != entry.id);
                must(!self.in_step(), "a step is under way")
            }
            "user.interrupt" => Ok(()),
            "user.tool_confirmation" => {
                let call = self.open_call(&body["tool_use_id"])?;
                must(call.asks && !call.is_confirmed, "the call does not wait for it")?;
                call.is_confirmed = true;
                Ok(())
            }
            "loopd.outcome_unknown" => {
                let call = self.open_call(&body["tool_use_id"])?;
                must(!call.waits(), "the call waits for its client already")?;
                (call.asks, call.is_confirmed) = (true, false);
                Ok(())
            }
            "user.custom_tool_result" => {
                let call = self.open_call(&body["custom_tool_use_id"])?;
                must(call.is_clients, "the call is not the client's to answer")?;
                call.settled = true;
                Ok(())
            }
            "span.model_request_start" => self.request_start(entry),
            "span.model_request_end" => self.request_end(body),
            "agent.message" | "agent.thinking" => must(self.request.is_some(), "no request is under way"),
            "agent.tool_use" | "agent.custom_tool_use" | "agent.mcp_tool_use" => {
                must(self.request.is_some(), "no request is under way")?;
                self.calls.push(Call {
                    id: entry.id.clone(),
                    is_clients: body["call"]["runs_in"] == "client",
                    asks: body["evaluated_permission"] == "ask",
                    is_confirmed: false,
                    settled: false,
                });
                Ok(())
            }
            "agent.tool_result" => {
                must(self.request.is_none(), "its step's request is still under way")?;
                self.open_call(&body["tool_use_id"]).map(|call| call.settled = true)
            }
            "agent.mcp_tool_result" => {
                must(self.request.is_none(), "its step's request is still under way")?;
                self.open_call(&body["mcp_tool_use_id"]).map(|call| call.settled = true)
            }
            "session.status_running" => self.run(body),
            "session.status_idle" => self.rest(body),
            "session.status_rescheduled" => {
                must(self.status == Status::Running, "the session does not run")?;
                self.status = Status::Rescheduling;
                Ok(())
            }
            "session.status_terminated" => {
                self.status = Status::Terminated;
                (self.turn, self.request) = (None, None);
                self.calls.clear();
                Ok(())
            }
            // They tell of the session and change nothing in it.
            _ => Ok(()),
        }
    }

    fn run(&mut self, body: &Value) -> Step {
        must(self.status != Status::Running, "the session runs already")?;
        let number = body["turn"].as_u64().ok_or("it has no turn")?;
        match self.turn {
            Some(open) => must(open == number, "another turn is open")?,
            None => {
                must(number == self.turns + 1, "its turn is not the next")?;
                (self.turn, self.turns, self.steps) = (Some(number), number, 0);
                self.calls.clear();
            }
        }
        self.status = Status::Running;
        Ok(())
    }

    fn rest(&mut self, body: &Value) -> Step {
        must(self.status != Status::Idle, "the session rests already").or_else(|fault| {
            // After an answer that leaves others open, what is left is named again; an interrupt ends a turn that waits.
            if self.turn.is_some() { Ok(()) } else { Err(fault) }
        })?;
        must(self.turn.is_some(), "no turn is open")?;
        must(self.request.is_none(), "a request is under way")?;
        must(
            self.before == ["session.thread_status_idle", "session.usage"],
            "its thread and usage do not stand before it",
        )?;
        self.status = Status::Idle;
        if body["stop_reason"]["type"] == "requires_action" {
            let named = body["stop_reason"]["event_ids"].as_array().ok_or("it names no calls")?;
            let waiting: Vec<&str> = self.calls.iter().filter(|c| c.waits()).map(|c| c.id.as_str()).collect();
            must(
                !named.is_empty() && named.iter().all(|id| waiting.iter().any(|w| id == w)),
                "it names what does not wait",
            )?;
            return must(self.calls.iter().all(|c| c.settled || c.waits()), "a call could go on without the client");
        }
        self.turn = None;
        must(self.calls.iter().all(|c| c.settled), "a call has no result")
    }

    fn request_start(&mut self, entry: &Entry) -> Step {
        must(self.turn.is_some(), "no turn is open")?;
        must(self.status != Status::Idle, "the session rests")?;
        must(!self.in_step(), "the step before is not finished")?;
        must(entry.body["step"].as_u64() == Some(self.steps + 1), "its step is not the next")?;
        must(entry.body["attempt"].as_u64() >= Some(1), "it has no attempt")?;
        self.calls.clear();
        self.request = Some(entry.id.clone());
        self.status = Status::Running;
        Ok(())
    }

    fn request_end(&mut self, body: &Value) -> Step {
        let ends = body["model_request_start_id"].as_str();
        must(self.request.is_some() && self.request.as_deref() == ends, "it does not end the open request")?;
        self.request = None;
        match body["outcome"]["kind"] == "answered" {
            true => self.steps += 1,
            false => must(self.calls.is_empty(), "an answer that was cut off asks for calls")?,
        }
        Ok(())
    }

    fn open_call(&mut self, id: &Value) -> Result<&mut Call, String> {
        let open = self.calls.iter_mut().find(|c| *id == c.id.as_str() && !c.settled);
        open.ok_or_else(|| format!("no call {id} is open: it never was, or has its result"))
    }

    fn in_step(&self) -> bool {
        self.request.is_some() || self.calls.iter().any(|c| !c.settled)
    }

    fn unfinished(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.turn.is_some() || self.status != Status::Idle {
            faults.push(format!("the journal ends in the middle of turn {:?} ({:?})", self.turn, self.status));
        }
        faults.extend(self.queued.iter().map(|id| format!("input {id} was accepted and never taken up")));
        faults
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
