//! What the loop in the room wants: validated, written in one commit, then done.

use super::{Driver, Halt};
use crate::ledger::Draft;
use crate::turn;
use loopd_agent_loop::Command;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EventBody, Outcome, Permission, RunsIn, Verdict};
use loopd_domain::fold::{IllegalEvent, OpenCall};
use loopd_domain::limits::{CALLS_PER_STEP_MAX, TOOL_RESULT_BYTES_MAX};
use loopd_domain::session::{StopDetails, StopReason};
use loopd_domain::{CallId, EventId};
use loopd_protocol::CallResult;

/// Bytes of images and documents that one result may carry beside its text.
const RESULT_MEDIA_BYTES_MAX: usize = 24 << 20;
/// Room for the lines that a tool adds to output that fills its limit.
const RESULT_TEXT_SLACK: usize = 8 << 10;

/// What the model is told of a room that was built anew.
const RESTARTED: &str = "Your sandbox was restarted since your last command. Files are as they were; the shell's working \
                         directory and variables, and background processes, are gone.";

/// What is to be done once the draft is on disk.
#[derive(Default)]
struct After {
    ask: Option<Box<crate::asking::Question>>,
    /// The model cannot be asked at all.
    model_failed: bool,
    /// The request that was under way is abandoned.
    cancelled: bool,
    rested: bool,
    /// Calls that the host sends now.
    dispatch: Vec<CallId>,
    /// Calls of the host's that got their result in this commit.
    stopped: Vec<CallId>,
}

/// Why a batch is not taken: the cell is not what it should be, and its room ends.
#[derive(Debug)]
struct Violation(String);

impl From<IllegalEvent> for Violation {
    fn from(fault: IllegalEvent) -> Self {
        Violation(fault.to_string())
    }
}

impl Driver {
    pub(super) async fn on_batch(&mut self, mut results: Vec<CallResult>, commands: Vec<Command>) -> Result<(), Halt> {
        if !results.is_empty() {
            let masking = self.masking().await;
            for result in &mut results {
                result.is_error |= !masking.result(&mut result.content);
                self.previews.remove(&result.id);
            }
        }
        self.name_limits(&mut results);
        let mut draft = self.ledger.draft();
        let after = match self.plan(&mut draft, results, commands) {
            Ok(after) => after,
            Err(Violation(reason)) => {
                self.host.forget_held_back();
                self.write_held().await?;
                return self.on_room_lost(&format!("the cell asked for what cannot be: {reason}")).await;
            }
        };
        let went_on = draft.fold.turn.as_ref().map(|t| t.number) != self.ledger.fold().turn.as_ref().map(|t| t.number);
        if !draft.events.is_empty() {
            fail::fail_point!("session::before_results");
            match after.ask.is_some() {
                true => self.commit_question(draft).await?,
                false => self.commit(&draft).await?,
            }
            fail::fail_point!("session::after_results");
        } else if !after.dispatch.is_empty() {
            self.write_held().await?;
            self.check_journal().await?;
        }
        if after.ask.is_some() {
            self.room_is_fresh = false;
            self.walls_to_tell = None;
        }
        if after.cancelled {
            self.asking = None;
            self.retry = None;
        }
        for id in &after.stopped {
            self.host.stop(id);
        }
        if after.rested {
            self.rested();
        }
        for id in after.dispatch {
            self.dispatch(id);
        }
        for id in after.stopped {
            self.tell(loopd_agent_loop::Input::CallDone { id }).await?;
        }
        if let Some(question) = after.ask {
            self.ask(*question).await;
        }
        if after.model_failed {
            self.tell(loopd_agent_loop::Input::ModelFailed).await?;
        }
        if after.rested || went_on {
            self.go_on().await?;
        }
        Ok(())
    }

    /// Changes nothing but the draft: a batch is taken whole or not at all.
    fn plan(&self, draft: &mut Draft, results: Vec<CallResult>, commands: Vec<Command>) -> Result<After, Violation> {
        let mut after = After::default();
        for result in results {
            self.take_result(draft, result)?;
        }
        for command in commands {
            match command {
                Command::CallModel { step, take, repair } => self.plan_step(draft, step, take, repair, &mut after)?,
                Command::CancelModel => {
                    if let Some(asking) = self.asking.as_ref().filter(|_| !after.cancelled) {
                        self.cut(draft, asking)?;
                    }
                    after.cancelled = true;
                }
                // A loop that was resumed need not know that it is on its way.
                Command::Settle { id, .. } if self.host.knows(&id) => self.plan_stop(draft, &id, &mut after)?,
                Command::Settle { id, outcome, message } => settle(draft, &id, outcome, &message)?,
                Command::EndTurn { reason, details } => self.end_turn(draft, reason, details, &mut after)?,
                Command::RunTool { id } => self.plan_run(draft, id, &mut after)?,
                Command::CancelTool { id } => self.plan_stop(draft, &id, &mut after)?,
            }
        }
        Ok(after)
    }

    /// A call for the host to send, if it is that. One that is on its way, or has its result, is left as it is: the loop
    /// may have been resumed from before that.
    fn plan_run(&self, draft: &Draft, id: CallId, after: &mut After) -> Result<(), Violation> {
        let turn = draft.fold.turn.as_ref().ok_or_else(|| Violation("no turn is open".to_owned()))?;
        let (place, call) = hosts(&turn.calls, &id)?;
        let is_denied = call.permission == Permission::Deny || call.verdict == Some(Verdict::Deny);
        if place >= CALLS_PER_STEP_MAX || call.waits_for_client() || call.malformed.is_some() || is_denied {
            return Err(Violation(format!("call `{id}` is not to be run")));
        }
        let is_under_way = call.settled || self.host.runs(&id) || after.dispatch.contains(&id);
        // Of a turn that is to end, nothing more is sent; the loop's next word stops the call.
        if !is_under_way && !turn.interrupted && !self.time_up {
            after.dispatch.push(id);
        }
        Ok(())
    }

    fn plan_stop(&self, draft: &mut Draft, id: &CallId, after: &mut After) -> Result<(), Violation> {
        let turn = draft.fold.turn.as_ref().ok_or_else(|| Violation("no turn is open".to_owned()))?;
        let call = hosts(&turn.calls, id)?.1.clone();
        if !call.settled {
            after.dispatch.retain(|waits| waits != id);
            self.settle_stopped(draft, &call, loopd_agent_loop::messages::INTERRUPTED)?;
            after.stopped.push(id.clone());
        }
        Ok(())
    }

    /// A result is taken for a call of the room that is open and that policy lets run; a late one is dropped.
    fn take_result(&self, draft: &mut Draft, result: CallResult) -> Result<(), Violation> {
        let calls = draft.fold.turn.iter().flat_map(|t| &t.calls);
        let Some(call) = calls.into_iter().find(|c| c.id == result.id && !c.settled) else {
            tracing::debug!(session = %self.id(), call = %result.id, "a result that nobody waits for was dropped");
            return Ok(());
        };
        let is_denied = call.permission == Permission::Deny || call.verdict == Some(Verdict::Deny);
        if call.runs_in != RunsIn::Room || call.waits_for_client() || call.malformed.is_some() || is_denied {
            return Err(Violation(format!("call `{}` is not for the room to run", result.id)));
        }
        let duration_ms = self.ran_ms(&result.id);
        let content = bounded(result.content)?;
        Ok(turn::result(draft, &result.id, content, result.is_error, result.outcome, duration_ms)?)
    }

    /// The next step with the inputs that it takes up. The host has the last word on limits, whatever the loop counted.
    fn plan_step(
        &self,
        draft: &mut Draft,
        step: u32,
        take: Vec<EventId>,
        repair: Option<String>,
        after: &mut After,
    ) -> Result<(), Violation> {
        let turn = draft.fold.turn.as_ref().ok_or_else(|| Violation("no turn is open".to_owned()))?;
        if turn.interrupted || self.time_up {
            // Said before the loop heard of it; its next word ends the turn. What waits is the next turn's.
            return Ok(());
        }
        if self.retry.is_some() {
            return Err(Violation("the model is to be asked again later".to_owned()));
        }
        if let Some(limit) = super::model::spent(turn) {
            turn::rest(draft, &self.ledger.session, StopReason::LimitReached { limit }, None)?;
            turn::take_up_queue(draft, &self.ledger.session, &self.waiting_after(draft))?;
            after.rested = true;
            return Ok(());
        }
        for id in take {
            let waiting = self.waiting_after(draft).into_iter().find(|w| w.id == id);
            let body = waiting.ok_or_else(|| Violation(format!("input `{id}` does not wait")))?.body;
            draft.push_as(id, *body)?;
        }
        if let Some(told) = &self.walls_to_tell {
            draft.push(told.clone())?;
        }
        if self.room_is_fresh && draft.fold.shell_used {
            draft.push(EventBody::RoomRestarted { message: RESTARTED.to_owned() })?;
        }
        if let Some(message) = repair {
            draft.push(EventBody::OutputRejected { message: said(message)? })?;
        }
        match self.question(draft, step, 1)? {
            Some(question) => after.ask = Some(Box::new(question)),
            None => after.model_failed = true,
        }
        Ok(())
    }

    /// Ends the turn, or lets it wait; a client that was quicker than the loop makes it go on, or end, instead.
    fn end_turn(
        &self,
        draft: &mut Draft,
        reason: StopReason,
        details: Option<StopDetails>,
        after: &mut After,
    ) -> Result<(), Violation> {
        after.rested = true;
        let session = &self.ledger.session;
        if matches!(reason, StopReason::RequiresAction { .. }) {
            if draft.fold.turn.as_ref().is_none_or(|t| t.request.is_some()) || !self.host.is_idle() {
                return Err(Violation("a turn waits for the client while something else is under way".to_owned()));
            }
            if draft.fold.turn.as_ref().is_some_and(|t| t.waits_for_client() && !t.interrupted) {
                let event_ids = draft.fold.waiting();
                turn::rest(draft, session, StopReason::RequiresAction { event_ids }, None)?;
            }
            return Ok(());
        }
        turn::rest(draft, session, reason, details)?;
        turn::take_up_queue(draft, session, &self.waiting_after(draft))?;
        Ok(())
    }

    /// Inputs that wait and that the draft does not take up.
    fn waiting_after(&self, draft: &Draft) -> Vec<loopd_domain::event::QueuedInput> {
        let waits = |id| draft.fold.queued.iter().any(|q| &q.id == id);
        self.ledger.waiting.iter().filter(|w| waits(&w.id)).cloned().collect()
    }
}

/// A call of the host's, and its place in the answer.
fn hosts<'a>(calls: &'a [OpenCall], id: &CallId) -> Result<(usize, &'a OpenCall), Violation> {
    let found = calls.iter().enumerate().find(|(_, c)| &c.id == id && c.runs_in == RunsIn::Host);
    found.ok_or_else(|| Violation(format!("call `{id}` is not the host's to run or stop")))
}

/// A call's result without its having run. One that got its result meanwhile keeps that one.
fn settle(draft: &mut Draft, id: &CallId, outcome: Outcome, message: &str) -> Result<(), Violation> {
    let mut calls = draft.fold.turn.iter().flat_map(|t| &t.calls);
    if calls.any(|c| &c.id == id && c.settled) {
        return Ok(());
    }
    Ok(turn::settle(draft, id, outcome, &said(message.to_owned())?)?)
}

/// What the loop says to the model in its own words is short.
fn said(message: String) -> Result<String, Violation> {
    match message.len() > TOOL_RESULT_BYTES_MAX {
        true => Err(Violation(format!("a message of {} bytes", message.len()))),
        false => Ok(message),
    }
}

/// A result within its limits; the cell cuts output itself, so more than that is no honest result.
fn bounded(content: Vec<ContentBlock>) -> Result<Vec<ContentBlock>, Violation> {
    let is_text = |c: &&ContentBlock| matches!(c, ContentBlock::Text { .. });
    let text: usize = content.iter().filter(is_text).map(ContentBlock::weight).sum();
    let all: usize = content.iter().map(ContentBlock::weight).sum();
    // `read` may return a text of up to 256 KiB.
    if text > 3 * TOOL_RESULT_BYTES_MAX + RESULT_TEXT_SLACK || all > RESULT_MEDIA_BYTES_MAX {
        return Err(Violation(format!("a result of {all} bytes, {text} of them text")));
    }
    Ok(content)
}
