//! Calls that the host runs for this session: dispatched once their intent is on disk, ended with a result in the journal.
//!
//! ```text
//!  RunTool (batch on disk) ──► [waits for a place] ──► [sent] ──► result ──► commit ──► CallDone to the loop
//!                                      └── CancelTool, the turn's end: stopped, and settled by its effect class
//! ```
//!
//! They run on while a room is lost and replaced: the next loop asks for them again, and that changes nothing. They end with
//! the turn, and with the driver. What a new owner does about calls that an old one may have sent is `recovery`'s.

use super::{Driver, Halt};
use crate::ledger::Draft;
use crate::turn;
use loopd_agent_loop::Input;
use loopd_domain::CallId;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EffectClass, Outcome, RunsIn, idempotency_key};
use loopd_domain::fold::{IllegalEvent, OpenCall};
use loopd_domain::limits::CALLS_PARALLEL_MAX;
use loopd_host_tools::{HostCall, HostResult, SessionTools};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;

pub struct HostCalls {
    tools: Arc<dyn SessionTools>,
    tasks: JoinSet<(HostResult, u64)>,
    running: HashMap<CallId, Running>,
    /// Open calls that an earlier owner may have sent.
    inherited: HashSet<CallId>,
    /// How many may be on their way at a time, whatever the loop says.
    places: Arc<Semaphore>,
}

struct Running {
    task: AbortHandle,
    effect: EffectClass,
    fate: Arc<OnceLock<Fate>>,
    since: Instant,
}

/// What becomes of a call, decided once: it is sent, or it is settled as one that never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    HeldBack,
}

/// A call that came to its end by itself.
pub struct Finished {
    id: CallId,
    result: HostResult,
    ran_ms: u64,
}

impl HostCalls {
    pub fn new(tools: Arc<dyn SessionTools>) -> Self {
        HostCalls {
            tools,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            inherited: HashSet::new(),
            places: Arc::new(Semaphore::new(CALLS_PARALLEL_MAX)),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn tools(&self) -> Arc<dyn SessionTools> {
        self.tools.clone()
    }

    pub fn runs(&self, id: &CallId) -> bool {
        self.running.contains_key(id)
    }

    pub(super) fn inherit(&mut self, calls: impl Iterator<Item = CallId>) {
        self.inherited.extend(calls);
    }

    /// It is on its way, or waits for that, or an earlier owner may have sent it.
    pub(super) fn knows(&self, id: &CallId) -> bool {
        self.running.contains_key(id) || self.inherited.contains(id)
    }

    /// What a call comes to that is stopped now: only one that may have been sent can have happened. One that was not is held
    /// back from here on, so that this stays true while it is written down.
    pub(super) fn if_stopped(&self, call: &OpenCall) -> Outcome {
        let fate = |running: &Running| *running.fate.get_or_init(|| Fate::HeldBack);
        let is_sent = self.running.get(&call.id).map(fate) == Some(Fate::Sent);
        match is_sent || self.inherited.contains(&call.id) {
            true => call.effect.stopped(),
            false => Outcome::Interrupted,
        }
    }

    /// What was held back for a result that is not written after all was never here.
    pub(super) fn forget_held_back(&mut self) {
        for (_, running) in self.running.extract_if(|_, running| running.fate.get() == Some(&Fate::HeldBack)) {
            running.task.abort();
        }
    }

    fn start(&mut self, id: CallId, call: HostCall) {
        let (tools, places, fate) = (self.tools.clone(), self.places.clone(), Arc::new(OnceLock::new()));
        let (decided, effect) = (fate.clone(), call.effect);
        let task = self.tasks.spawn(async move {
            // Nobody closes the places; without one the call waits for the turn's end.
            let _place = places.acquire().await;
            if *decided.get_or_init(|| Fate::Sent) == Fate::HeldBack {
                std::future::pending::<()>().await;
            }
            let since = Instant::now();
            fail::fail_point!("session::before_host_call");
            let result = tools.call(call).await;
            fail::fail_point!("session::after_host_call");
            (result, since.elapsed().as_millis() as u64)
        });
        self.running.insert(id, Running { task, effect, fate, since: Instant::now() });
    }

    pub(super) fn stop(&mut self, id: &CallId) {
        if let Some(running) = self.running.remove(id) {
            running.task.abort();
        }
    }

    pub(super) fn stop_all(&mut self) {
        self.tasks.abort_all();
        self.running.clear();
        self.inherited.clear();
    }

    /// How long a call has been with us.
    pub(super) fn ran_ms(&self, id: &CallId) -> u64 {
        self.running.get(id).map_or(0, |running| running.since.elapsed().as_millis() as u64)
    }

    /// The next call that comes to its end. Safe to cancel.
    pub(super) async fn next(&mut self) -> Finished {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            if let Some(finished) = self.finish(ended) {
                return finished;
            }
        }
        std::future::pending().await
    }

    /// `None` for a call that was stopped.
    fn finish(&mut self, ended: Result<(Id, (HostResult, u64)), JoinError>) -> Option<Finished> {
        let task = match &ended {
            Ok((task, _)) => *task,
            Err(fault) => fault.id(),
        };
        let id = self.running.iter().find(|(_, running)| running.task.id() == task).map(|(id, _)| id.clone())?;
        let running = self.running.remove(&id)?;
        let (result, ran_ms) = match ended {
            Ok((_, outcome)) => outcome,
            Err(fault) => {
                tracing::error!(call = %id, %fault, "a call of the host's broke down");
                let reason = "the server broke down while it waited for the answer";
                (HostResult::unanswered(running.effect, false, reason), running.since.elapsed().as_millis() as u64)
            }
        };
        Some(Finished { id, result, ran_ms })
    }
}

impl Driver {
    /// What is sent without being written first is sent only while the journal is as this driver left it: whoever took the
    /// session over has settled the call by then.
    pub(super) async fn check_journal(&mut self) -> Result<(), Halt> {
        match self.parts.store.journal().head(self.id()).await.map_err(Halt::Store)? {
            None => Err(Halt::Deleted),
            Some(head) if head.seq != self.ledger.fold().last_seq => Err(Halt::Overtaken),
            Some(_) => Ok(()),
        }
    }

    /// Sends a call whose intent is on disk.
    pub(super) fn dispatch(&mut self, id: CallId) {
        let Some(turn) = self.ledger.fold().turn.as_ref() else { return };
        let Some(call) = turn.calls.iter().find(|c| c.id == id && !c.settled) else { return };
        let tool = self.ledger.tools.iter().find(|tool| tool.spec.name == call.name);
        let (Some(target), Some(input)) = (tool.and_then(|tool| tool.host.clone()), self.ledger.arguments(&id)) else {
            // A call is taken for the host's own only by the same list of tools.
            tracing::error!(session = %self.id(), call = %id, "a call of the host's has no target");
            return;
        };
        let call = HostCall {
            target,
            effect: call.effect,
            input: input.clone(),
            key: idempotency_key(self.id(), &id),
            traceparent: turn.settings.traceparent.clone(),
        };
        self.host.start(id, call);
    }

    pub(super) async fn on_host_call(&mut self, finished: Finished) -> Result<(), Halt> {
        let Finished { id, mut result, ran_ms } = finished;
        let is_open = self.ledger.fold().turn.iter().flat_map(|t| &t.calls).any(|c| c.id == id && !c.settled);
        if !is_open {
            return Ok(());
        }
        result.is_error |= !self.masking().await.result(&mut result.content);
        let mut draft = self.ledger.draft();
        turn::result(&mut draft, &id, result.content, result.is_error, result.outcome, ran_ms)?;
        self.commit(&draft).await?;
        fail::fail_point!("session::after_host_result");
        self.tell(Input::CallDone { id }).await
    }

    /// Gives a call its result that is stopped: by the loop, or with its turn.
    pub(super) fn settle_stopped(&self, draft: &mut Draft, call: &OpenCall, message: &str) -> Result<(), IllegalEvent> {
        if call.in_doubt.is_some() {
            // It stays unknown, with what is known of it.
            return turn::settle(draft, &call.id, Outcome::Interrupted, message);
        }
        let outcome = if call.runs_in == RunsIn::Host { self.host.if_stopped(call) } else { Outcome::Interrupted };
        let message = match outcome {
            Outcome::Unknown => format!(
                "outcome_unknown: `{}` was stopped after it may have been sent. It may or may not have happened. Check \
                 before you repeat it.",
                call.name
            ),
            _ => message.to_owned(),
        };
        turn::result(draft, &call.id, vec![ContentBlock::text(message)], true, outcome, self.host.ran_ms(&call.id))
    }
}
