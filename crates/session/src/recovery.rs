//! What was in flight when somebody vanished: settled by its effect class, and said to the model.

use crate::driver::session_error;
use crate::ledger::Draft;
use crate::turn;
use loopd_domain::CallId;
use loopd_domain::event::{EffectClass, EventBody, Outcome, Permission, RetryStatus, RunsIn, Verdict};
use loopd_domain::fold::{IllegalEvent, OpenCall};
use loopd_domain::limits::RECOVERIES_MAX;
use loopd_domain::session::{Session, Status, StopReason, TurnSettings};

/// A new owner takes a running turn over from one that is gone, its room with it.
pub fn take_over(draft: &mut Draft, session: &Session, reason: &str) -> Result<(), IllegalEvent> {
    turn::cut_request(draft, None)?;
    lose_host_calls(draft, reason)?;
    // Nobody knows what the one before had handed out.
    lose_room(draft, reason, |_| true)?;
    if draft.fold.recoveries > RECOVERIES_MAX {
        return park(draft, session, reason);
    }
    if draft.fold.status == Status::Rescheduling {
        turn::run(draft, session, &TurnSettings::default())?;
    }
    Ok(())
}

/// The owner that sent them is gone: calls that must not be sent again are `outcome_unknown`. The others are: a `keyed` one
/// under its key.
fn lose_host_calls(draft: &mut Draft, reason: &str) -> Result<(), IllegalEvent> {
    for call in turn::unsettled(draft) {
        if host_may_have_sent(&call) && call.effect != EffectClass::Keyed {
            turn::settle(draft, &call.id, Outcome::Unknown, &unanswered(&call, reason))?;
        }
    }
    Ok(())
}

/// The room is gone: calls that were handed to it are `outcome_unknown`, unless repeating them is harmless.
pub fn lose_room(
    draft: &mut Draft,
    reason: &str,
    was_dispatched: impl Fn(&CallId) -> bool,
) -> Result<(), IllegalEvent> {
    for call in turn::unsettled(draft) {
        if may_have_happened(&call) && was_dispatched(&call.id) {
            turn::settle(draft, &call.id, Outcome::Unknown, &unknown(&call, reason))?;
        }
    }
    let recoveries = draft.fold.recoveries + 1;
    draft.push(EventBody::SessionRecovered { message: reason.to_owned(), recoveries })?;
    Ok(())
}

/// Ends a turn that cannot go on, so that it does not take its host with it.
pub fn park(draft: &mut Draft, session: &Session, reason: &str) -> Result<(), IllegalEvent> {
    for call in turn::unsettled(draft) {
        match host_may_have_sent(&call) {
            true => turn::settle(draft, &call.id, Outcome::Unknown, &unanswered(&call, reason))?,
            false => turn::settle(draft, &call.id, Outcome::NotRun, &format!("not run: {reason}"))?,
        }
    }
    turn::cut_request(draft, None)?;
    let message = format!("the turn was given up after {} recoveries: {reason}", draft.fold.recoveries);
    draft.push(session_error("unknown_error", message, RetryStatus::Exhausted))?;
    turn::rest(draft, session, StopReason::RetriesExhausted, None)
}

/// A room could run it, and running it again could do it twice.
fn may_have_happened(call: &OpenCall) -> bool {
    call.runs_in == RunsIn::Room && may_run(call) && call.effect != EffectClass::Pure
}

/// The host may have sent it, and sending it could have done something.
pub fn host_may_have_sent(call: &OpenCall) -> bool {
    call.runs_in == RunsIn::Host && may_run(call) && call.effect != EffectClass::Pure
}

fn may_run(call: &OpenCall) -> bool {
    call.malformed.is_none()
        && call.permission != Permission::Deny
        && call.verdict != Some(Verdict::Deny)
        && !call.waits_for_client()
        && !call.settled
}

fn unanswered(call: &OpenCall, reason: &str) -> String {
    format!(
        "outcome_unknown: `{}` was asked for at {} and its answer was lost ({reason}). It may or may not have happened. \
         Check before you repeat it.",
        call.name, call.asked_at
    )
}

fn unknown(call: &OpenCall, reason: &str) -> String {
    format!(
        "outcome_unknown: `{}` was started at {} and its result was lost ({reason}). It may or may not have happened, in \
         whole or in part; running processes were ended. Check before you repeat it.",
        call.name, call.asked_at
    )
}
