//! What crosses on its way: clients, loops, rooms and clocks that act at the same moment.

mod support;

use loopd_agent_loop::Command;
use loopd_domain::agent::{PermissionPolicy, ToolConfig};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EventBody, Outcome, Verdict};
use loopd_domain::session::{LimitName, Status, StopReason, TurnLimits, TurnSettings};
use loopd_domain::{EventId, SessionId};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::*;

const SOON: Duration = Duration::from_secs(10);

fn interrupt() -> EventBody {
    EventBody::UserInterrupt { session_thread_id: None }
}

fn result_of(call: &EventId) -> EventBody {
    let content = vec![ContentBlock::text("found")];
    EventBody::UserCustomToolResult {
        custom_tool_use_id: call.clone(),
        content,
        is_error: false,
        arguments_digest: None,
    }
}

fn is_request_end(body: &EventBody) -> bool {
    matches!(body, EventBody::ModelRequestEnd { .. })
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, wait).await.is_ok(), "{what}");
}

/// A session that waits long to ask its model again, and that has lost its room meanwhile.
async fn rescheduled_without_a_loop(house: &House, settings: TurnSettings) -> SessionId {
    let fault = json!({"class": "overloaded", "status": 529, "retry_after_ms": 600_000, "times": 9});
    let script = json!({"steps": [{"fault": fault, "text": "there"}]});
    let made = house.try_create(script, Vec::new(), "go", settings).await.expect("created");
    let id = made.session.id;
    house.until(&id, 0, |b| matches!(b, EventBody::ThreadStatusRescheduled { .. })).await;
    house.mishaps.kill_rooms();
    eventually("the room is gone", || house.mishaps.alive.load(Ordering::Relaxed) == 0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(house.rooms_started.load(Ordering::Relaxed), 1, "nothing is to be done in a room until it asks again");
    assert_eq!(house.session(&id).await.fold.status, Status::Rescheduling);
    id
}

#[tokio::test]
async fn an_interrupt_ends_a_turn_that_waits_to_ask_again_without_a_loop() {
    let house = House::open(echo()).await;
    let id = rescheduled_without_a_loop(&house, TurnSettings::default()).await;
    let sent = house.send(&id, vec![interrupt()]).await.unwrap();
    let events = house.until_idle(&id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn time_up_ends_a_turn_that_waits_to_ask_again_without_a_loop() {
    let house = House::open(echo()).await;
    let limits = TurnLimits { seconds: 2, ..TurnLimits::default() };
    let id = rescheduled_without_a_loop(&house, TurnSettings { limits, ..TurnSettings::default() }).await;
    let events = house.until_idle(&id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::LimitReached { limit: LimitName::Seconds });
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn an_interrupt_that_crosses_with_the_wish_to_wait_ends_the_turn() {
    let house = House::open(echo()).await;
    house.mishaps.lag_ms.store(200, Ordering::Relaxed);
    let script = json!({"steps": [{"tools": [{"name": "lookup", "input": {}}]}, {"text": "thanks"}]});
    let made = house.create(script, vec![custom("lookup")], "go").await;
    let id = &made.session.id;
    house.until(id, 0, is_request_end).await;
    let sent = house.send(id, vec![interrupt()]).await.unwrap();
    let events = house.until_idle(id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn, "the interrupt was acknowledged before");
    assert_eq!(results(&events)[0].1, Outcome::Interrupted);
    house.assert_legal(id).await;
}

#[tokio::test]
async fn what_comes_before_a_new_sessions_room_is_there_is_not_lost_on_its_loop() {
    let script = || json!({"steps": [{"text": "one"}, {"text": "two"}]});
    let slow = || async {
        let house = House::open(echo()).await;
        house.mishaps.start_lag_ms.store(200, Ordering::Relaxed);
        house
    };
    let house = slow().await;
    let made = house.create(script(), Vec::new(), "go").await;
    let sent = house.send(&made.session.id, vec![message("and this")]).await.unwrap();
    let events = house.until(&made.session.id, 0, |body| matches!(body, EventBody::AgentMessage { .. })).await;
    assert!(events.iter().any(|event| event.id == sent.inputs[0].id), "{:?}", kinds(&events));
    house.until_idle(&made.session.id, sent.seq).await;
    house.assert_legal(&made.session.id).await;
    let house = slow().await;
    let made = house.create(script(), Vec::new(), "go").await;
    let sent = house.send(&made.session.id, vec![interrupt()]).await.unwrap();
    let events = house.until_idle(&made.session.id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert!(!kinds(&events).contains(&"agent.message"), "{:?}", kinds(&events));
    house.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn a_result_that_comes_with_the_interrupt_costs_no_room() {
    let house = House::open(Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {}}, {"name": "lookup", "input": {}}]}]});
    let mut tools = toolset(ToolConfig::default());
    tools.push(custom("lookup"));
    let made = house.create(script, tools, "go").await;
    let id = &made.session.id;
    let events = house.until(id, 0, is_request_end).await;
    let call = events.iter().find(|e| e.body.kind() == "agent.custom_tool_use").unwrap().id.clone();
    let sent = house.send(id, vec![interrupt(), result_of(&call)]).await.unwrap();
    let events = house.until_idle(id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert!(!kinds(&events).contains(&"loopd.session_recovered"), "{:?}", kinds(&events));
    assert_eq!(house.rooms_started.load(Ordering::Relaxed), 1);
    house.assert_legal(id).await;
}

#[tokio::test]
async fn a_message_that_an_interrupted_step_wanted_is_answered_by_the_next_turn() {
    let house = House::open(echo()).await;
    let script = json!({"steps": [{"delay_ms": 400, "text": "one"}, {"text": "two"}]});
    let made = house.create(script, Vec::new(), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestStart { .. })).await;
    house.mishaps.lag_ms.store(300, Ordering::Relaxed);
    house.send(id, vec![message("and another thing")]).await.unwrap();
    house.until(id, 0, is_request_end).await;
    // The loop has decided to take the message up, and has not said so yet.
    let sent = house.send(id, vec![interrupt()]).await.unwrap();
    let first = house.until_idle(id, sent.seq).await;
    let second = house.until_idle(id, first.last().unwrap().seq).await;
    assert!(kinds(&second).contains(&"agent.message"), "{:?}", kinds(&second));
    assert_eq!(house.session(id).await.fold.turns, 2);
    house.assert_legal(id).await;
}

#[tokio::test]
async fn what_waits_is_taken_up_after_a_turn_that_was_given_up() {
    let house = House::open(Arc::new(|_| Act::Die)).await;
    let script = json!({"steps": [{"delay_ms": 300, "tools": [{"name": "read", "input": {}}]}, {"text": "done"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestStart { .. })).await;
    house.send(id, vec![message("and then?")]).await.unwrap();
    let first = house.until_idle(id, 0).await;
    assert_eq!(stop_reason(&first), StopReason::RetriesExhausted);
    let second = house.until_idle(id, first.last().unwrap().seq).await;
    assert_eq!(stop_reason(&second), StopReason::EndTurn);
    house.assert_legal(id).await;
}

#[tokio::test]
async fn a_call_that_no_room_was_given_is_not_taken_for_done() {
    let house = House::open(echo()).await;
    let ask_first = ToolConfig { enabled: true, permission_policy: PermissionPolicy::AlwaysAsk };
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {}}]}, {"text": "done"}]});
    let made = house.create(script, toolset(ask_first), "go").await;
    let id = &made.session.id;
    let events = house.until_idle(id, 0).await;
    let StopReason::RequiresAction { event_ids } = stop_reason(&events) else { panic!("{:?}", kinds(&events)) };
    house.mishaps.kill_rooms();
    eventually("the room ends", || house.mishaps.alive.load(Ordering::Relaxed) == 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    house.mishaps.failing_starts.store(1, Ordering::Relaxed);
    let tool_use_id = event_ids[0].clone();
    let allow = EventBody::UserToolConfirmation {
        tool_use_id,
        result: Verdict::Allow,
        deny_message: None,
        arguments_digest: None,
    };
    let sent = house.send(id, vec![allow]).await.unwrap();
    let events = house.until_idle(id, sent.seq).await;
    assert_eq!(results(&events)[0].1, Outcome::Completed, "{:?}", results(&events));
    house.assert_legal(id).await;
}

#[tokio::test]
async fn a_batch_that_is_refused_changes_nothing() {
    let house = House::open(echo()).await;
    let id = EventId::parse("id", "sevt_none").unwrap();
    *house.mishaps.intrusion.lock() = vec![Command::CancelModel, Command::RunTool { id }];
    let script = json!({"steps": [{"delay_ms": 400, "text": "there"}]});
    let made = house.create(script, Vec::new(), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    house.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn an_archived_session_keeps_no_room() {
    let house = House::open(echo()).await;
    let made = house.create(json!({"steps": [{"text": "a"}]}), Vec::new(), "go").await;
    let id = &made.session.id;
    house.until_idle(id, 0).await;
    house.service.archive(&workspace(), id).await.unwrap();
    eventually("the room ends", || house.mishaps.alive.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn a_cell_that_wants_to_wait_while_its_model_is_asked_loses_its_room_and_no_more() {
    let house = House::open(echo()).await;
    let reason = StopReason::RequiresAction { event_ids: Vec::new() };
    house.mishaps.intrusion.lock().push(Command::EndTurn { reason, details: None });
    let made = house.create(json!({"steps": [{"text": "there", "delay_ms": 400}]}), Vec::new(), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert!(kinds(&events).contains(&"loopd.session_recovered"), "{:?}", kinds(&events));
    house.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn a_cell_does_not_have_the_model_asked_before_its_time() {
    let house = House::open(echo()).await;
    house.mishaps.intrusion.lock().push(Command::CallModel { step: 1, take: Vec::new(), repair: None });
    let fault = json!({"class": "overloaded", "status": 529, "retry_after_ms": 900, "times": 1});
    let made = house.create(json!({"steps": [{"fault": fault, "text": "there"}]}), Vec::new(), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let retry_at = events.iter().find_map(|e| match &e.body {
        EventBody::StatusRescheduled { retry_at } => Some(*retry_at),
        _ => None,
    });
    let asked: Vec<_> = events.iter().filter(|e| matches!(e.body, EventBody::ModelRequestStart { .. })).collect();
    assert!(asked.len() == 2 && Some(asked[1].at) >= retry_at, "{:?}", kinds(&events));
    house.assert_legal(&made.session.id).await;
}
