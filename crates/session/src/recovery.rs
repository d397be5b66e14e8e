//! What was in flight when somebody vanished: settled by its effect class, and said to the model or the client.
//!
//! ```text
//!  owner gone, room alive ─► nothing in the room is settled: its cell knows each call by id
//!  owner gone, room gone  ┐
//!  room gone              ┴► calls that may have happened ─► continue: the model is told │ ask: the client decides │ fail: the turn ends
//! ```
//!
//! Who finds out that somebody is gone is the driver's business.

use crate::driver::session_error;
use crate::ledger::Draft;
use crate::turn;
use loopd_domain::CallId;
use loopd_domain::agent::OnUnknownOutcome;
use loopd_domain::event::{EffectClass, EventBody, Outcome, Permission, RetryStatus, RunsIn, Verdict};
use loopd_domain::fold::{IllegalEvent, OpenCall};
use loopd_domain::limits::RECOVERIES_MAX;
use loopd_domain::session::{Session, StopReason};

/// How a running turn comes to a new owner.
#[derive(Debug, Clone, Copy)]
pub struct Takeover {
    /// The owner before let go of it in order, which brings nobody down.
    pub handed_over: bool,
    /// Its room lives, and with it all that runs there.
    pub room_lives: bool,
}

/// A new owner takes a running turn over.
pub fn take_over(draft: &mut Draft, session: &Session, how: Takeover) -> Result<(), IllegalEvent> {
    let who = if how.handed_over { "was stopped" } else { "ended" };
    let room = if how.room_lives { "; the room lives on" } else { "" };
    let reason = format!("the server that ran it {who}{room}");
    turn::cut_request(draft, None)?;
    let recoveries = draft.fold.recoveries + u32::from(!how.handed_over);
    draft.push(EventBody::SessionRecovered { message: reason.clone(), recoveries })?;
    // Nobody knows what the one before had handed to a room that is gone, or sent: what has a key is sent again under it.
    let is_lost = |call: &OpenCall| match call.runs_in {
        RunsIn::Host => ends_with_its_owner(call),
        _ => !how.room_lives && room_may_have_run(call),
    };
    // What runs in a room that lives is not lost, but would be with its turn.
    let may_have_begun = |call: &OpenCall| host_may_have_sent(call) || room_may_have_run(call);
    doubt(draft, session, &reason, is_lost, may_have_begun)?;
    match recoveries > RECOVERIES_MAX && draft.fold.turn.is_some() {
        true => park_with(draft, session, &reason, may_have_begun),
        false => Ok(()),
    }
}

/// The room is gone while its owner lives.
pub fn lose_room(
    draft: &mut Draft,
    session: &Session,
    reason: &str,
    was_dispatched: impl Fn(&CallId) -> bool,
) -> Result<(), IllegalEvent> {
    let recoveries = draft.fold.recoveries + 1;
    draft.push(EventBody::SessionRecovered { message: reason.to_owned(), recoveries })?;
    doubt(draft, session, reason, |call| room_may_have_run(call) && was_dispatched(&call.id), host_may_have_sent)
}

/// Ends a turn that cannot go on, so that it does not take its host with it. What its room had begun is settled already.
pub fn park(draft: &mut Draft, session: &Session, reason: &str) -> Result<(), IllegalEvent> {
    park_with(draft, session, reason, host_may_have_sent)
}

/// Ends a turn for which no room can be had. Nothing of it runs anywhere.
pub fn no_room(draft: &mut Draft, session: &Session, reason: &str) -> Result<(), IllegalEvent> {
    turn::cut_request(draft, None)?;
    give_up(draft, session, reason.to_owned(), &format!("not run: {reason}"), host_may_have_sent)
}

fn park_with(
    draft: &mut Draft,
    session: &Session,
    reason: &str,
    may_have_begun: impl Fn(&OpenCall) -> bool,
) -> Result<(), IllegalEvent> {
    turn::cut_request(draft, None)?;
    let message = format!("the turn was given up after {} recoveries: {reason}", draft.fold.recoveries);
    give_up(draft, session, message, &format!("not run: {reason}"), may_have_begun)
}

/// Lost calls are of unknown outcome. What follows is the agent's setting; the turn may be over, or wait for the client,
/// afterwards.
fn doubt(
    draft: &mut Draft,
    session: &Session,
    reason: &str,
    is_lost: impl Fn(&OpenCall) -> bool,
    may_have_begun: impl Fn(&OpenCall) -> bool,
) -> Result<(), IllegalEvent> {
    let setting = session.agent.spec.on_unknown_outcome;
    let lost: Vec<OpenCall> = turn::unsettled(draft).into_iter().filter(is_lost).collect();
    for call in &lost {
        let message = unknown(call, reason);
        match setting {
            OnUnknownOutcome::Ask => {
                draft.push(EventBody::OutcomeUnknown { tool_use_id: call.id.clone(), message })?;
            }
            OnUnknownOutcome::Continue | OnUnknownOutcome::Fail => {
                turn::settle(draft, &call.id, Outcome::Unknown, &message)?;
            }
        }
    }
    match (setting, lost.first()) {
        (OnUnknownOutcome::Fail, Some(call)) => {
            let message = format!("outcome_unknown: nobody can know whether `{}` happened ({reason})", call.name);
            let not_run = "not run: the turn ended because the outcome of another call is unknown";
            give_up(draft, session, message, not_run, may_have_begun)
        }
        (OnUnknownOutcome::Ask, Some(_)) if draft.fold.turn.as_ref().is_some_and(|t| t.waits_for_client()) => {
            let event_ids = draft.fold.waiting();
            turn::rest(draft, session, StopReason::RequiresAction { event_ids }, None)
        }
        _ => Ok(()),
    }
}

/// Ends the turn with an error. A call without a result gets `not_run` for one, unless it may be on its way already.
fn give_up(
    draft: &mut Draft,
    session: &Session,
    message: String,
    not_run: &str,
    may_have_begun: impl Fn(&OpenCall) -> bool,
) -> Result<(), IllegalEvent> {
    for call in turn::unsettled(draft) {
        match may_have_begun(&call) {
            true => turn::settle(draft, &call.id, Outcome::Unknown, &unknown(&call, "the turn was given up"))?,
            false => turn::settle(draft, &call.id, Outcome::NotRun, not_run)?,
        }
    }
    draft.push(session_error("unknown_error", message, RetryStatus::Exhausted))?;
    turn::rest(draft, session, StopReason::RetriesExhausted, None)
}

/// A room could run it, and running it again could do it twice.
fn room_may_have_run(call: &OpenCall) -> bool {
    call.runs_in == RunsIn::Room && may_run(call) && call.effect != EffectClass::Pure
}

/// The host may have sent it, and sending it could have done something.
pub fn host_may_have_sent(call: &OpenCall) -> bool {
    call.runs_in == RunsIn::Host && may_run(call) && call.effect != EffectClass::Pure
}

/// Nobody but the owner that it has now could say what becomes of it.
pub fn ends_with_its_owner(call: &OpenCall) -> bool {
    host_may_have_sent(call) && call.effect != EffectClass::Keyed
}

fn may_run(call: &OpenCall) -> bool {
    call.malformed.is_none()
        && call.permission != Permission::Deny
        && call.verdict != Some(Verdict::Deny)
        && !call.waits_for_client()
        && !call.settled
}

/// What is known of a call that may have happened.
fn unknown(call: &OpenCall, reason: &str) -> String {
    let (name, at) = (&call.name, call.asked_at);
    match call.runs_in {
        RunsIn::Room => format!(
            "outcome_unknown: `{name}` was started at {at} and its result was lost ({reason}). It may or may not have \
             happened, in whole or in part; running processes were ended. Check before you repeat it."
        ),
        _ => format!(
            "outcome_unknown: `{name}` was asked for at {at} and its answer was lost ({reason}). It may or may not have \
             happened. Check before you repeat it."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::agent::{AgentSpec, Metadata, ModelRef};
    use loopd_domain::event::{AnswerStop, Intent, RequestOutcome};
    use loopd_domain::fold::SessionFold;
    use loopd_domain::session::{SessionAgent, TurnSettings};
    use loopd_domain::{Epoch, IdSource, SessionId, Timestamp, WorkspaceId};
    use serde_json::json;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Ids(AtomicU64);

    impl IdSource for Ids {
        fn ulid(&self) -> u128 {
            u128::from(self.0.fetch_add(1, Ordering::Relaxed))
        }
    }

    fn session(ids: &Ids, on_unknown_outcome: OnUnknownOutcome) -> Session {
        let id = "builtin/script".to_owned();
        let model = ModelRef { id, effort: None, base_url: None, max_tokens: None, temperature: None, extra: None };
        let spec = AgentSpec {
            name: "tester".to_owned(),
            description: None,
            model,
            system: None,
            tools: Vec::new(),
            on_unknown_outcome,
            mcp_servers: Vec::new(),
            metadata: Metadata::new(),
        };
        Session {
            id: SessionId::generate(ids),
            workspace: WorkspaceId::default_workspace(),
            agent: SessionAgent { id: None, version: 0, spec },
            environment: None,
            vaults: Vec::new(),
            room: Default::default(),
            title: None,
            metadata: Metadata::new(),
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            archived_at: None,
            fold: SessionFold::default(),
            epoch: Epoch(1),
        }
    }

    fn asks_for(name: &str, runs_in: RunsIn, effect: EffectClass) -> EventBody {
        let call = Intent {
            provider_call_id: name.to_owned(),
            runs_in,
            effect,
            arguments_digest: String::new(),
            malformed: None,
            raw_arguments: None,
            native: None,
        };
        EventBody::AgentToolUse {
            name: name.to_owned(),
            input: json!({}),
            evaluated_permission: Permission::Allow,
            call,
        }
    }

    /// A turn whose model has asked for a call of the room and one of the host's, which were both begun.
    fn in_step(on_unknown_outcome: OnUnknownOutcome) -> (Session, Draft) {
        let ids = Arc::new(Ids(AtomicU64::new(1)));
        let session = session(&ids, on_unknown_outcome);
        let mut draft = Draft { at: Timestamp(1), ids, fold: SessionFold::default(), events: Vec::new() };
        turn::run(&mut draft, &session, &TurnSettings::default()).unwrap();
        let (model, request_digest) = (String::new(), String::new());
        let start = EventBody::ModelRequestStart { step: 1, attempt: 1, model, request_digest, messages: 1 };
        let model_request_start_id = draft.push(start).unwrap();
        draft.push(asks_for("bash", RunsIn::Room, EffectClass::Room)).unwrap();
        draft.push(asks_for("mail", RunsIn::Host, EffectClass::Once)).unwrap();
        draft
            .push(EventBody::ModelRequestEnd {
                model_request_start_id,
                is_error: false,
                model_usage: Default::default(),
                outcome: RequestOutcome::Answered { stop: AnswerStop::ToolUse, stop_details: None },
                cost: None,
                first_token_ms: None,
                provider_request_id: None,
                response_model: None,
            })
            .unwrap();
        (session, draft)
    }

    fn outcomes(draft: &Draft) -> Vec<Outcome> {
        let outcome = |event: &loopd_domain::event::Event| match &event.body {
            EventBody::AgentToolResult { outcome, .. } => Some(*outcome),
            _ => None,
        };
        draft.events.iter().filter_map(outcome).collect()
    }

    #[test]
    fn a_turn_that_is_given_up_does_not_say_that_what_runs_in_a_living_room_did_not_run() {
        let how = Takeover { handed_over: false, room_lives: true };
        let (session, mut failed) = in_step(OnUnknownOutcome::Fail);
        take_over(&mut failed, &session, how).unwrap();
        assert_eq!(outcomes(&failed), [Outcome::Unknown, Outcome::Unknown]);
        let (session, mut parked) = in_step(OnUnknownOutcome::Continue);
        parked.fold.recoveries = RECOVERIES_MAX;
        take_over(&mut parked, &session, how).unwrap();
        assert_eq!(outcomes(&parked), [Outcome::Unknown, Outcome::Unknown]);
        // While the host lives it knows what it has handed to its room.
        let (session, mut lost) = in_step(OnUnknownOutcome::Continue);
        lose_room(&mut lost, &session, "gone", |_| false).unwrap();
        park(&mut lost, &session, "gone").unwrap();
        assert_eq!(outcomes(&lost), [Outcome::NotRun, Outcome::Unknown]);
    }
}
