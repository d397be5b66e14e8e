//! Calls that the host runs: sent once their intent is durable, settled by their class when they are stopped or lost.

mod support;

use loopd_agent_loop::Command;
use loopd_domain::agent::PermissionPolicy;
use loopd_domain::event::{EffectClass, EventBody, Outcome, Verdict, idempotency_key};
use loopd_domain::limits::CALLS_PARALLEL_MAX;
use loopd_domain::session::{StopReason, TurnSettings};
use loopd_domain::{CallId, SessionId};
use loopd_session::StopMode;
use serde_json::{Value, json};
use std::time::Duration;
use support::errands::{Errand, errand};
use support::*;

const CLASSES: [(&str, EffectClass); 3] =
    [("look", EffectClass::Pure), ("book", EffectClass::Keyed), ("mail", EffectClass::Once)];

fn tools() -> Vec<loopd_domain::agent::Tool> {
    CLASSES.map(|(name, effect)| errand(name, effect, PermissionPolicy::AlwaysAllow)).to_vec()
}

/// One answer that asks for these calls, then a last word.
fn script(names: &[&str]) -> Value {
    let calls: Vec<Value> = names.iter().map(|name| json!({"name": name, "input": {"of": name}})).collect();
    json!({"steps": [{"tools": calls}, {"text": "done"}]})
}

/// The calls of a session, by the name of their tool.
async fn call_id(house: &House, id: &SessionId, tool: &str) -> CallId {
    let events = house.store.journal().read(id, 0, 1_000).await.expect("a journal");
    let is = |body: &EventBody| body.intent().is_some_and(|(name, ..)| name == tool);
    events.iter().find(|e| is(&e.body)).expect("a call").id.clone()
}

/// What each call came to, by the name of its tool.
async fn outcomes(house: &House, id: &SessionId) -> Vec<(String, Outcome)> {
    let events = house.assert_legal(id).await;
    let mut list = Vec::new();
    for event in &events {
        if let EventBody::AgentToolResult { tool_use_id, outcome, .. } = &event.body {
            let call = events.iter().find(|e| &e.id == tool_use_id).expect("its call");
            list.push((call.body.intent().expect("a call").0.to_owned(), *outcome));
        }
    }
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

fn of(list: &[(&str, Outcome)]) -> Vec<(String, Outcome)> {
    list.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect()
}

#[tokio::test]
async fn a_call_is_sent_after_its_intent_is_durable_and_its_result_is_the_models() {
    let house = House::open(echo()).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let settings = TurnSettings { traceparent: Some(traceparent.clone()), ..TurnSettings::default() };
    let session = house.try_create(script(&["mail"]), tools(), "go", settings).await.expect("created").session;
    let events = house.until_idle(&session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events), [("{\"of\":\"mail\"}".to_owned(), Outcome::Completed)]);
    let [sent] = house.errands.sent().try_into().expect("one");
    let intent = events.iter().find(|e| e.body.intent().is_some()).expect("a call");
    assert_eq!(sent.key, idempotency_key(&session.id, &intent.id));
    assert_eq!((sent.effect, sent.traceparent), (EffectClass::Once, Some(traceparent)));
    assert!(house.errands.sent_at()[0] >= intent.at);
    house.assert_legal(&session.id).await;
}

#[tokio::test]
async fn calls_of_the_room_and_of_the_host_are_settled_together() {
    let house = House::open(echo()).await;
    let mut tools = tools();
    tools.extend(toolset(Default::default()));
    let session = house.create(script(&["bash", "mail", "bash", "look"]), tools, "go").await.session;
    let events = house.until_idle(&session.id, 0).await;
    assert_eq!((results(&events).len(), stop_reason(&events)), (4, StopReason::EndTurn));
    assert_eq!(house.errands.sent().len(), 2);
}

#[tokio::test]
async fn a_call_that_asks_is_sent_when_it_is_allowed_and_not_when_it_is_denied() {
    for (verdict, sent) in [(Verdict::Allow, 1), (Verdict::Deny, 0)] {
        let house = House::open(echo()).await;
        let tools = vec![errand("mail", EffectClass::Once, PermissionPolicy::AlwaysAsk)];
        let session = house.create(script(&["mail"]), tools, "go").await.session;
        let events = house.until_idle(&session.id, 0).await;
        let tool_use_id = call_id(&house, &session.id, "mail").await;
        assert_eq!(stop_reason(&events), StopReason::RequiresAction { event_ids: vec![tool_use_id.clone()] });
        assert!(house.errands.sent().is_empty());
        let answer = EventBody::UserToolConfirmation {
            tool_use_id,
            result: verdict,
            deny_message: None,
            arguments_digest: None,
        };
        let accepted = house.send(&session.id, vec![answer]).await.expect("accepted");
        let events = house.until_idle(&session.id, accepted.seq).await;
        assert_eq!((stop_reason(&events), house.errands.sent().len()), (StopReason::EndTurn, sent));
    }
}

#[tokio::test]
async fn an_interrupt_leaves_what_may_have_happened_unknown() {
    let house = House::open(echo()).await;
    house.errands.does(Errand::Hang);
    let session = house.create(script(&["look", "book", "mail"]), tools(), "go").await.session;
    house.errands.until_sent(3).await;
    house.send(&session.id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.expect("accepted");
    let events = house.until_idle(&session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let expected = [("book", Outcome::Unknown), ("look", Outcome::Interrupted), ("mail", Outcome::Unknown)];
    assert_eq!(outcomes(&house, &session.id).await, of(&expected));
    assert_eq!(house.errands.sent().len(), 3);
}

#[tokio::test]
async fn the_end_of_the_turns_time_stops_calls_as_an_interrupt_does() {
    let house = House::open(echo()).await;
    house.errands.does(Errand::Hang);
    let mut settings = TurnSettings::default();
    settings.limits.seconds = 1;
    let session = house.try_create(script(&["mail"]), tools(), "go", settings).await.expect("created").session;
    let events = house.until_idle(&session.id, 0).await;
    assert!(matches!(stop_reason(&events), StopReason::LimitReached { .. }));
    assert_eq!(outcomes(&house, &session.id).await, of(&[("mail", Outcome::Unknown)]));
}

#[tokio::test]
async fn a_call_outlives_the_loss_of_the_room() {
    let house = House::open(echo()).await;
    house.errands.does(Errand::Slow(Duration::from_millis(700)));
    let session = house.create(script(&["mail"]), tools(), "go").await.session;
    house.errands.until_sent(1).await;
    house.mishaps.kill_rooms();
    let events = house.until_idle(&session.id, 0).await;
    assert!(kinds(&events).contains(&"loopd.session_recovered"));
    assert_eq!((results(&events).len(), results(&events)[0].1), (1, Outcome::Completed));
    assert_eq!(house.errands.sent().len(), 1, "the next loop asks for it again, and that changes nothing");
    house.assert_legal(&session.id).await;
}

#[tokio::test]
async fn a_new_owner_settles_or_sends_again_by_class() {
    let house = House::open(echo()).await;
    house.errands.does(Errand::Hang);
    let session = house.create(script(&["look", "book", "mail"]), tools(), "go").await.session;
    house.errands.until_sent(3).await;
    house.errands.does(Errand::Answer);
    let next = house.reopen(echo()).await;
    let events = next.until_idle(&session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let expected = [("book", Outcome::Completed), ("look", Outcome::Completed), ("mail", Outcome::Unknown)];
    assert_eq!(outcomes(&next, &session.id).await, of(&expected));
    let keys = |effect| {
        let sent = next.errands.sent().into_iter().filter(move |call| call.effect == effect);
        sent.map(|call| call.key).collect::<Vec<_>>()
    };
    let key = idempotency_key(&session.id, &call_id(&next, &session.id, "book").await);
    assert_eq!(keys(EffectClass::Keyed), [key.clone(), key], "sent again, under the same key");
    assert_eq!((keys(EffectClass::Pure).len(), keys(EffectClass::Once).len()), (2, 1));
}

#[tokio::test]
async fn an_owner_of_the_past_sends_nothing_that_its_room_still_asks_for() {
    let house = House::open(echo()).await;
    house.mishaps.lag_ms.store(500, std::sync::atomic::Ordering::Relaxed);
    let session = house.create(script(&["mail"]), tools(), "go").await.session;
    house.until(&session.id, 0, |body| matches!(body, EventBody::ModelRequestEnd { .. })).await;
    // The wish to run the call is on its way to somebody who has lost the session by now.
    let next = house.reopen(echo()).await;
    next.until_idle(&session.id, 0).await;
    assert_eq!(outcomes(&next, &session.id).await, of(&[("mail", Outcome::Unknown)]));
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(next.errands.sent().is_empty());
}

#[tokio::test]
async fn a_service_that_hands_over_sees_a_new_answers_calls_through() {
    let house = House::open(echo()).await;
    house.errands.does(Errand::Slow(Duration::from_millis(200)));
    let mut script = script(&["mail"]);
    script["steps"][0]["delay_ms"] = json!(300);
    let session = house.create(script, tools(), "go").await.session;
    house.until(&session.id, 0, |body| matches!(body, EventBody::ModelRequestStart { .. })).await;
    house.service.stop(StopMode::HandOver).await;
    let next = house.reopen(echo()).await;
    next.until_idle(&session.id, 0).await;
    assert_eq!(outcomes(&next, &session.id).await, of(&[("mail", Outcome::Completed)]), "nobody was in a hurry");
    assert_eq!(next.errands.sent().len(), 1);
}

#[tokio::test]
async fn an_interrupted_turn_does_not_send_again_what_an_old_owner_sent() {
    let house = House::open(echo()).await;
    house.errands.does(Errand::Hang);
    let session = house.create(script(&["look", "book"]), tools(), "go").await.session;
    house.errands.until_sent(2).await;
    // The cell says nothing more, so the interrupt is in the journal when the owner vanishes, and nothing after it.
    house.mishaps.lag_ms.store(60_000, std::sync::atomic::Ordering::Relaxed);
    house.send(&session.id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.expect("accepted");
    let next = house.reopen(echo()).await;
    next.until_idle(&session.id, 0).await;
    let expected = [("book", Outcome::Unknown), ("look", Outcome::Interrupted)];
    assert_eq!(outcomes(&next, &session.id).await, of(&expected));
    assert_eq!(next.errands.sent().len(), 2);
}

#[tokio::test]
async fn a_call_under_way_that_the_next_loop_has_no_place_for_is_still_not_known_to_be_stopped() {
    let house = House::open(echo()).await;
    house.errands.does(Errand::Hang);
    let mut tools = tools();
    tools.push(errand("late", EffectClass::Once, PermissionPolicy::AlwaysAsk));
    let mut names = vec!["late"];
    names.extend(["mail"; CALLS_PARALLEL_MAX]);
    let session = house.create(script(&names), tools, "go").await.session;
    house.errands.until_sent(CALLS_PARALLEL_MAX).await;
    let tool_use_id = call_id(&house, &session.id, "late").await;
    let (result, deny_message, arguments_digest) = (Verdict::Allow, None, None);
    let allow = EventBody::UserToolConfirmation { tool_use_id, result, deny_message, arguments_digest };
    house.send(&session.id, vec![allow]).await.expect("accepted");
    // For the loop of the next room it is the first in line, and the last of the others is not there.
    house.mishaps.kill_rooms();
    while house.rooms_started.load(std::sync::atomic::Ordering::Relaxed) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    house.send(&session.id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.expect("accepted");
    house.until_idle(&session.id, 0).await;
    let mut expected = vec![("late", Outcome::Interrupted)];
    expected.extend([("mail", Outcome::Unknown); CALLS_PARALLEL_MAX]);
    assert_eq!(outcomes(&house, &session.id).await, of(&expected));
    assert_eq!(house.errands.sent().len(), CALLS_PARALLEL_MAX);
}

#[tokio::test]
async fn a_call_that_breaks_down_is_settled_by_its_class() {
    let house = House::open(echo()).await;
    house.errands.does(Errand::Panic);
    let session = house.create(script(&["mail"]), tools(), "go").await.session;
    house.until_idle(&session.id, 0).await;
    assert_eq!(outcomes(&house, &session.id).await, of(&[("mail", Outcome::Unknown)]));
}

#[tokio::test]
async fn a_cell_cannot_have_sent_what_is_not_the_hosts_to_send() {
    let house = House::open(echo()).await;
    let tools = vec![errand("mail", EffectClass::Once, PermissionPolicy::AlwaysAllow)];
    let script = json!({"steps": [{"text": "hm", "delay_ms": 400}]});
    let made_up = CallId::parse("id", &format!("sevt_{:026}", 7)).expect("well formed");
    house.mishaps.intrusion.lock().push(Command::RunTool { id: made_up });
    let session = house.create(script, tools, "go").await.session;
    let events = house.until_idle(&session.id, 0).await;
    let told = |body: &EventBody| match body {
        EventBody::SessionRecovered { message, .. } => Some(message.clone()),
        _ => None,
    };
    let message = events.iter().find_map(|e| told(&e.body)).expect("the room is lost");
    assert!(message.contains("is not the host's to run or stop"), "{message}");
    assert!(house.errands.sent().is_empty());
}
