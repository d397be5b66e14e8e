//! Calls of which nobody knows whether they happened: what follows is the agent's setting.

mod support;

use loopd_domain::agent::{OnUnknownOutcome, PermissionPolicy, ToolConfig};
use loopd_domain::event::{EffectClass, Event, EventBody, Outcome, Verdict};
use loopd_domain::session::{Session, StopReason, TurnSettings};
use loopd_domain::{EventId, SessionId};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::errands::errand;
use support::*;

/// A tool whose first run takes the room with it.
fn dies_once() -> (Tools, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let seen = runs.clone();
    let tools: Tools = Arc::new(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
        0 => Act::Die,
        _ => Act::Say("deployed".to_owned()),
    });
    (tools, runs)
}

/// The events of a turn whose only call lost its room, up to its rest.
async fn turn(house: &House, setting: OnUnknownOutcome) -> (SessionId, Vec<Event>) {
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {"command": "deploy"}}]}, {"text": "done"}]});
    let mut spec = agent(script, toolset(ToolConfig::default()));
    spec.on_unknown_outcome = setting;
    let made = house.try_create_with(spec, "go", TurnSettings::default()).await.expect("created");
    let id = made.session.id;
    let events = house.until_idle(&id, 0).await;
    (id, events)
}

fn doubted(events: &[Event]) -> EventId {
    let doubt = events.iter().find_map(|e| match &e.body {
        EventBody::OutcomeUnknown { tool_use_id, message } => Some((tool_use_id.clone(), message.clone())),
        _ => None,
    });
    let (call, message) = doubt.expect("the client is told");
    assert!(message.contains("`bash` was started at") && message.contains("may or may not have happened"), "{message}");
    assert_eq!(stop_reason(events), StopReason::RequiresAction { event_ids: vec![call.clone()] });
    call
}

fn verdict(call: &EventId, result: Verdict, deny_message: Option<&str>) -> EventBody {
    let deny_message = deny_message.map(str::to_owned);
    EventBody::UserToolConfirmation { tool_use_id: call.clone(), result, deny_message, arguments_digest: None }
}

#[tokio::test]
async fn by_default_the_model_is_told_and_goes_on() {
    let (tools, runs) = dies_once();
    let house = House::open(tools).await;
    let (id, events) = turn(&house, OnUnknownOutcome::Continue).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let (text, outcome) = results(&events).remove(0);
    assert!(outcome == Outcome::Unknown && text.contains("Check before you repeat it"), "{text}");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn asked_for_it_the_client_has_it_run_again() {
    let (tools, runs) = dies_once();
    let house = House::open(tools).await;
    let (id, events) = turn(&house, OnUnknownOutcome::Ask).await;
    let call = doubted(&events);
    let sent = house.send(&id, vec![verdict(&call, Verdict::Allow, None)]).await.expect("taken");
    let events = house.until_idle(&id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events), [("deployed".to_owned(), Outcome::Completed)]);
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn asked_for_it_the_client_leaves_it_at_that() {
    let (tools, runs) = dies_once();
    let house = House::open(tools).await;
    let (id, events) = turn(&house, OnUnknownOutcome::Ask).await;
    let call = doubted(&events);
    // As long as it takes: across restarts, without a process.
    let house = house.reopen(echo()).await;
    let sent = house.send(&id, vec![verdict(&call, Verdict::Deny, Some("it is out already"))]).await.expect("taken");
    let after = sent.seq;
    let events = house.until_idle(&id, after).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let (text, outcome) = results(&events).remove(0);
    assert_eq!(outcome, Outcome::Unknown);
    assert!(text.ends_with("The user was asked, and does not want it run again: it is out already."), "{text}");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let again = house.send(&id, vec![verdict(&call, Verdict::Allow, None)]).await.expect_err("answered");
    assert!(again.to_string().contains(call.as_str()), "{again}");
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn an_agent_that_must_not_guess_ends_its_turn() {
    let (tools, runs) = dies_once();
    let house = House::open(tools).await;
    let (id, events) = turn(&house, OnUnknownOutcome::Fail).await;
    assert_eq!(stop_reason(&events), StopReason::RetriesExhausted);
    assert_eq!(results(&events)[0].1, Outcome::Unknown);
    let said = events.iter().any(|e| match &e.body {
        EventBody::SessionError { error } => error.message.contains("nobody can know whether `bash` happened"),
        _ => false,
    });
    assert!(said, "{:?}", kinds(&events));
    let Session { fold, .. } = house.session(&id).await;
    assert_eq!((fold.turn, runs.load(Ordering::Relaxed)), (None, 1));
    let sent = house.send(&id, vec![message("and now?")]).await.expect("it stays usable");
    assert_eq!(stop_reason(&house.until_idle(&id, sent.seq).await), StopReason::EndTurn);
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn an_interrupt_ends_a_turn_whose_call_is_in_doubt() {
    let (tools, _) = dies_once();
    let house = House::open(tools).await;
    let (id, events) = turn(&house, OnUnknownOutcome::Ask).await;
    doubted(&events);
    let sent = house.send(&id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.expect("taken");
    let events = house.until_idle(&id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events)[0].1, Outcome::Unknown, "an interrupt does not make it known");
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn an_interrupt_between_two_rooms_does_not_make_a_doubt_known() {
    let (tools, _) = dies_once();
    let house = House::open(tools).await;
    let calls = json!([{"name": "bash", "input": {"command": "deploy"}}, {"name": "mail", "input": {}}]);
    let mut offered = toolset(ToolConfig::default());
    offered.push(errand("mail", EffectClass::Once, PermissionPolicy::AlwaysAllow));
    let mut spec = agent(json!({"steps": [{"tools": calls}, {"text": "done"}]}), offered);
    spec.on_unknown_outcome = OnUnknownOutcome::Ask;
    let made = house.try_create_with(spec, "go", TurnSettings::default()).await.expect("created");
    let id = made.session.id;
    // The other call can go on, so the turn does; its next room is not there yet.
    house.until(&id, 0, |body| matches!(body, EventBody::OutcomeUnknown { .. })).await;
    let sent = house.send(&id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.expect("taken");
    let events = house.until_idle(&id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let (text, outcome) = results(&events).remove(0);
    assert!(outcome == Outcome::Unknown && text.contains("`bash` was started at"), "{outcome:?}: {text}");
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn the_model_is_told_that_its_shell_is_a_new_one() {
    let house = House::open(echo()).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {"command": "cd src"}}]}, {"text": "one"}, {"text": "two"}, {"text": "three"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = made.session.id;
    house.until_idle(&id, 0).await;
    house.mishaps.kill_rooms();
    let told = |events: &[Event]| kinds(events).iter().filter(|kind| **kind == "loopd.room_restarted").count();
    let house = house.reopen(echo()).await;
    for expected in [1, 0] {
        let sent = house.send(&id, vec![message("go on")]).await.expect("taken");
        assert_eq!(told(&house.until_idle(&id, sent.seq).await), expected, "once, and only when there was a shell");
    }
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn what_was_allowed_and_interrupted_before_it_ran_again_is_still_unknown() {
    let (tools, runs) = dies_once();
    let house = House::open(tools).await;
    let (id, events) = turn(&house, OnUnknownOutcome::Ask).await;
    let call = doubted(&events);
    let interrupt = EventBody::UserInterrupt { session_thread_id: None };
    let sent = house.send(&id, vec![verdict(&call, Verdict::Allow, None), interrupt]).await.expect("taken");
    let events = house.until_idle(&id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events)[0].1, Outcome::Unknown, "its first run is as unknown as before");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    house.assert_legal(&id).await;
}
