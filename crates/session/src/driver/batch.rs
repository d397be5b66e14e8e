//! What the loop in the room wants: validated, written in one commit, then done.

use super::{Driver, Halt};
use crate::ledger::Draft;
use crate::turn;
use loopd_agent_loop::Command;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EventBody, RunsIn};
use loopd_domain::fold::IllegalEvent;
use loopd_domain::limits::TOOL_RESULT_BYTES_MAX;
use loopd_domain::session::{StopDetails, StopReason};
use loopd_protocol::CallResult;

/// Bytes of images and documents that one result may carry beside its text.
const RESULT_MEDIA_BYTES_MAX: usize = 24 << 20;
/// Room for the lines that a tool adds to output that fills its limit.
const RESULT_TEXT_SLACK: usize = 8 << 10;

/// What is to be done once the draft is on disk.
#[derive(Default)]
struct After {
    ask: Option<Box<super::model::Question>>,
    /// The model cannot be asked at all.
    model_failed: bool,
    rested: bool,
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
    pub(super) async fn on_batch(&mut self, results: Vec<CallResult>, commands: Vec<Command>) -> Result<(), Halt> {
        let mut draft = self.ledger.draft();
        let after = match self.plan(&mut draft, results, commands) {
            Ok(after) => after,
            Err(Violation(reason)) => {
                return self.on_room_lost(&format!("the cell asked for what cannot be: {reason}")).await;
            }
        };
        let went_on = draft.fold.turn.as_ref().map(|t| t.number) != self.ledger.fold().turn.as_ref().map(|t| t.number);
        if !draft.events.is_empty() {
            self.commit(&draft).await?;
        }
        if after.rested {
            self.rested();
        }
        if let Some(question) = after.ask {
            self.ask(*question);
        }
        if after.model_failed {
            self.tell(loopd_agent_loop::Input::ModelFailed).await?;
        }
        if after.rested || went_on {
            self.go_on().await?;
        }
        Ok(())
    }

    fn plan(
        &mut self,
        draft: &mut Draft,
        results: Vec<CallResult>,
        commands: Vec<Command>,
    ) -> Result<After, Violation> {
        let mut after = After::default();
        for result in results {
            self.take_result(draft, result)?;
        }
        for command in commands {
            match command {
                Command::CallModel { step, take, repair } => {
                    for id in take {
                        let waiting = self.ledger.waiting.iter().find(|w| w.id == id);
                        let body =
                            waiting.ok_or_else(|| Violation(format!("input `{id}` does not wait")))?.body.clone();
                        draft.push_as(id, *body)?;
                    }
                    if let Some(message) = repair {
                        draft.push(EventBody::OutputRejected { message })?;
                    }
                    self.plan_question(draft, step, &mut after)?;
                }
                Command::CancelModel => {
                    self.retry = None;
                    if let Some(asking) = self.asking.take() {
                        self.cut(draft, &asking)?;
                    }
                }
                Command::Settle { id, outcome, message } => turn::settle(draft, &id, outcome, &message)?,
                Command::EndTurn { reason, details } => self.end_turn(draft, reason, details, &mut after)?,
                Command::RunTool { id } | Command::CancelTool { id } => {
                    return Err(Violation(format!("call `{id}` is the cell's own to run or stop")));
                }
            }
        }
        Ok(after)
    }

    /// A result is taken for a call of the room that is open and that policy lets run; a late one is dropped.
    fn take_result(&mut self, draft: &mut Draft, result: CallResult) -> Result<(), Violation> {
        let calls = draft.fold.turn.iter().flat_map(|t| &t.calls);
        let Some(call) = calls.into_iter().find(|c| c.id == result.id && !c.settled) else {
            tracing::debug!(session = %self.id(), call = %result.id, "a result that nobody waits for was dropped");
            return Ok(());
        };
        if call.runs_in != RunsIn::Room || call.waits_for_client() || call.malformed.is_some() {
            return Err(Violation(format!("call `{}` is not for the room to run", result.id)));
        }
        let duration_ms = self.ran_ms(&result.id);
        draft.push(EventBody::AgentToolResult {
            tool_use_id: result.id,
            content: bounded(result.content)?,
            is_error: result.is_error,
            outcome: result.outcome,
            duration_ms,
        })?;
        Ok(())
    }

    /// The host has the last word on limits, whatever the loop counted.
    fn plan_question(&mut self, draft: &mut Draft, step: u32, after: &mut After) -> Result<(), Violation> {
        let turn = draft.fold.turn.as_ref().ok_or_else(|| Violation("no turn is open".to_owned()))?;
        if turn.interrupted || self.time_up {
            // Said before the loop heard of it; its next word ends the turn.
            return Ok(());
        }
        if let Some(limit) = super::model::spent(turn) {
            turn::rest(draft, &self.ledger.session, StopReason::LimitReached { limit }, None)?;
            turn::take_up_queue(draft, &self.ledger.session, &self.waiting_after(draft))?;
            after.rested = true;
            return Ok(());
        }
        match self.question(draft, step, 1)? {
            Some(question) => after.ask = Some(Box::new(question)),
            None => after.model_failed = true,
        }
        Ok(())
    }

    /// Ends the turn, or lets it wait; a client that was quicker than the loop makes it go on instead.
    fn end_turn(
        &mut self,
        draft: &mut Draft,
        reason: StopReason,
        details: Option<StopDetails>,
        after: &mut After,
    ) -> Result<(), Violation> {
        after.rested = true;
        let session = &self.ledger.session;
        if matches!(reason, StopReason::RequiresAction { .. }) {
            if draft.fold.turn.as_ref().is_some_and(|t| t.waits_for_client()) {
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
