//! Turns end to end below the edge: real loop, real store, scripted model, a room without walls.

mod support;

use loopd_domain::agent::{PermissionPolicy, ToolConfig};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EventBody, Outcome, RequestOutcome, Verdict};
use loopd_domain::session::{LimitName, Status, StopReason, TurnLimits, TurnSettings};
use loopd_session::{EventQuery, FollowFrom, Followed, OnceKey, ServiceError};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::*;

fn ask_first() -> ToolConfig {
    ToolConfig { enabled: true, permission_policy: PermissionPolicy::AlwaysAsk }
}

#[tokio::test]
async fn a_turn_with_a_tool_is_told_in_order() {
    let house = House::open(echo()).await;
    let script = json!({"steps": [{"text": "looking", "tools": [{"name": "bash", "input": {"command": "ls"}}]}, {"text": "done"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(
        kinds(&events),
        [
            "user.message",
            "session.status_running",
            "session.thread_status_running",
            "span.model_request_start",
            "agent.message",
            "agent.tool_use",
            "span.model_request_end",
            "agent.tool_result",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.thread_status_idle",
            "session.usage",
            "session.status_idle",
        ]
    );
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events), [(r#"{"command":"ls"}"#.to_owned(), Outcome::Completed)]);
    house.assert_legal(&made.session.id).await;
    assert_eq!(house.session(&made.session.id).await.fold.steps, 2);
}

#[tokio::test]
async fn a_session_without_input_rests_until_it_gets_one() {
    let house = House::open(echo()).await;
    let made = house.create(json!({"steps": [{"text": "hello"}], "repeat": 5}), Vec::new(), "").await;
    assert_eq!(made.session.fold.status, Status::Idle);
    assert_eq!(house.rooms_started.load(Ordering::Relaxed), 0);
    for turn in 1..=3 {
        let sent = house.send(&made.session.id, vec![message("go")]).await.unwrap();
        let events = house.until_idle(&made.session.id, sent.seq).await;
        assert_eq!(events[0].id, sent.inputs[0].id, "the stream shows the id that was answered");
        assert_eq!(house.session(&made.session.id).await.fold.turns, turn);
    }
    assert_eq!(house.rooms_started.load(Ordering::Relaxed), 1, "one room serves all turns");
    house.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn custom_tools_wait_for_the_client_one_by_one() {
    let house = House::open(echo()).await;
    let call = |n: u32| json!({"name": "lookup", "input": {"n": n}});
    let script = json!({"steps": [{"tools": [call(1), call(2)]}, {"text": "thanks"}]});
    let made = house.create(script, vec![custom("lookup")], "go").await;
    let id = &made.session.id;
    let events = house.until_idle(id, 0).await;
    let StopReason::RequiresAction { event_ids } = stop_reason(&events) else { panic!("{:?}", kinds(&events)) };
    assert_eq!(event_ids.len(), 2);
    let answer = |n: usize| EventBody::UserCustomToolResult {
        custom_tool_use_id: event_ids[n].clone(),
        content: vec![ContentBlock::text("found")],
        is_error: false,
        arguments_digest: None,
    };
    let sent = house.send(id, vec![answer(1)]).await.unwrap();
    let events = house.until_idle(id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::RequiresAction { event_ids: vec![event_ids[0].clone()] });
    let again = house.send(id, vec![answer(1)]).await.expect_err("answered already");
    assert!(again.to_string().contains("answered already"), "{again}");
    let sent = house.send(id, vec![answer(0)]).await.unwrap();
    let events = house.until_idle(id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    house.assert_legal(id).await;
    assert_eq!(house.session(id).await.fold.turns, 1, "it was one turn all along");
}

#[tokio::test]
async fn a_client_quicker_than_the_loop_is_not_lost() {
    let house = House::open(Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {}}, {"name": "lookup", "input": {}}]}, {"text": "thanks"}]});
    let mut tools = toolset(ToolConfig::default());
    tools.push(custom("lookup"));
    let made = house.create(script, tools, "go").await;
    let id = &made.session.id;
    let events = house.until(id, 0, |b| matches!(b, EventBody::AgentCustomToolUse { .. })).await;
    let call = events.last().unwrap().id.clone();
    let end = house.until(id, 0, |b| matches!(b, EventBody::ModelRequestEnd { .. })).await.len() as u64;
    let result = EventBody::UserCustomToolResult {
        custom_tool_use_id: call,
        content: vec![],
        is_error: false,
        arguments_digest: None,
    };
    house.send(id, vec![result, EventBody::UserInterrupt { session_thread_id: None }]).await.unwrap();
    let events = house.until_idle(id, end).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    house.assert_legal(id).await;
}

#[tokio::test]
async fn calls_are_confirmed_or_denied() {
    let house = House::open(echo()).await;
    let call = |n: u32| json!({"name": "bash", "input": {"command": n.to_string()}});
    let script = json!({"steps": [{"tools": [call(1), call(2)]}, {"text": "ok"}]});
    let made = house.create(script, toolset(ask_first()), "go").await;
    let id = &made.session.id;
    let events = house.until_idle(id, 0).await;
    let StopReason::RequiresAction { event_ids } = stop_reason(&events) else { panic!("{:?}", kinds(&events)) };
    let verdict = |n: usize, result, deny_message: Option<&str>| EventBody::UserToolConfirmation {
        tool_use_id: event_ids[n].clone(),
        result,
        deny_message: deny_message.map(str::to_owned),
        arguments_digest: None,
    };
    let mixed = house.send(id, vec![verdict(0, Verdict::Allow, Some("no"))]).await.expect_err("refused");
    assert!(mixed.to_string().contains("deny_message"), "{mixed}");
    let both = vec![verdict(0, Verdict::Allow, None), verdict(1, Verdict::Deny, Some("not that one"))];
    let sent = house.send(id, both).await.unwrap();
    let events = house.until_idle(id, sent.seq).await;
    let results = results(&events);
    assert_eq!(results.len(), 2, "{results:?}");
    assert!(results.iter().any(|(text, outcome)| text.contains("not that one") && *outcome == Outcome::NotRun));
    assert!(results.iter().any(|(text, outcome)| text.contains("command") && *outcome == Outcome::Completed));
    house.assert_legal(id).await;
}

#[tokio::test]
async fn an_interrupt_ends_a_running_tool_and_the_turn() {
    let house = House::open(Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {}}]}, {"text": "after"}], "repeat": 2});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestEnd { .. })).await;
    let sent = house.send(id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.unwrap();
    let events = house.until_idle(id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events).len(), 1);
    house.assert_legal(id).await;
}

#[tokio::test]
async fn a_full_disk_stops_what_runs_and_the_turn_goes_on() {
    let house = House::open(Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {}}]}, {"text": "after"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestEnd { .. })).await;
    house.mishaps.disk.send_replace(11 << 30);
    let events = house.until_idle(id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let results = results(&events);
    let said = "The room's disk limit of 10 GiB was reached: the session's files take 11 GiB.";
    assert!(results.len() == 1 && results[0].0.contains(said) && results[0].1 == Outcome::Completed, "{results:?}");
    house.assert_legal(id).await;
}

#[tokio::test]
async fn an_interrupt_cuts_the_model_and_keeps_what_it_said() {
    let house = House::open(echo()).await;
    let text = "a long story ".repeat(50);
    let script = json!({"steps": [{"text": text, "chunk_delay_ms": 20}]});
    let made = house.create(script, Vec::new(), "").await;
    let id = &made.session.id;
    // Who comes after a message began gets no previews of it.
    let mut follower = house.service.follow(&workspace(), id, FollowFrom::Live).await.unwrap();
    house.send(id, vec![message("go")]).await.unwrap();
    loop {
        if let Followed::MessageText { .. } = follower.next().await.unwrap().unwrap() {
            break;
        }
    }
    let sent = house.send(id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.unwrap();
    let events = house.until_idle(id, sent.seq).await;
    assert!(
        events.iter().any(|e| matches!(&e.body, EventBody::AgentMessage { partial: true, .. })),
        "{:?}",
        kinds(&events)
    );
    let cut = |b: &EventBody| matches!(b, EventBody::ModelRequestEnd { outcome: RequestOutcome::Interrupted, .. });
    assert!(events.iter().any(|e| cut(&e.body)));
    house.assert_legal(id).await;
}

#[tokio::test]
async fn messages_during_a_turn_steer_it_or_follow_it() {
    let house = House::open(echo()).await;
    let script = json!({"steps": [
        {"delay_ms": 150, "tools": [{"name": "bash", "input": {}}]}, {"text": "one"}, {"text": "two"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestStart { .. })).await;
    let sent = house.send(id, vec![message("by the way")]).await.unwrap();
    assert_eq!(sent.inputs[0].processed_at, None, "it waits");
    let all = EventQuery { kinds: vec![], range: Default::default(), ascending: true, after: None, limit: 100 };
    let page = house.service.events(&workspace(), id, all.clone()).await.unwrap();
    assert_eq!(page.queued.iter().map(|q| &q.id).collect::<Vec<_>>(), [&sent.inputs[0].id]);
    let events = house.until_idle(id, 0).await;
    let at = |id| events.iter().position(|e| &e.id == id).unwrap();
    let taken = at(&sent.inputs[0].id);
    let result = events.iter().position(|e| e.body.kind() == "agent.tool_result").unwrap();
    assert!(taken > result, "taken up with the next step: {:?}", kinds(&events));
    assert_eq!(events.iter().filter(|e| e.body.kind() == "loopd.input_queued").count(), 0);
    let page = house.service.events(&workspace(), id, all).await.unwrap();
    assert!(page.queued.is_empty());
    assert_eq!(page.events.iter().map(|e| e.seq).collect::<Vec<_>>(), events.iter().map(|e| e.seq).collect::<Vec<_>>());
    house.assert_legal(id).await;
}

#[tokio::test]
async fn a_lost_room_is_said_and_replaced() {
    let deaths = Arc::new(AtomicUsize::new(0));
    let counter = deaths.clone();
    let tools: Tools = Arc::new(move |_| match counter.fetch_add(1, Ordering::Relaxed) {
        0 => Act::Die,
        _ => Act::Say("fine".to_owned()),
    });
    let house = House::open(tools).await;
    let call = json!({"tools": [{"name": "bash", "input": {"command": "x"}}]});
    let script = json!({"steps": [call, call, {"text": "done"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    let events = house.until_idle(id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let results = results(&events);
    assert_eq!((results[0].1, results[1].1), (Outcome::Unknown, Outcome::Completed));
    assert!(results[0].0.contains("may or may not have happened"), "{}", results[0].0);
    assert!(kinds(&events).contains(&"loopd.session_recovered"));
    assert_eq!(house.rooms_started.load(Ordering::Relaxed), 2);
    house.assert_legal(id).await;
}

#[tokio::test]
async fn a_pure_call_of_a_lost_room_runs_again() {
    let deaths = Arc::new(AtomicUsize::new(0));
    let counter = deaths.clone();
    let tools: Tools = Arc::new(move |_| match counter.fetch_add(1, Ordering::Relaxed) {
        0 => Act::Die,
        _ => Act::Say("fine".to_owned()),
    });
    let house = House::open(tools).await;
    let script = json!({"steps": [{"tools": [{"name": "read", "input": {"file_path": "x"}}]}, {"text": "done"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(results(&events), [("fine".to_owned(), Outcome::Completed)]);
    house.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn a_room_that_is_always_lost_ends_the_turn_and_not_the_session() {
    let house = House::open(Arc::new(|_| Act::Die)).await;
    let script = json!({"steps": [{"tools": [{"name": "read", "input": {}}]}, {"text": "done"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::RetriesExhausted);
    assert!(kinds(&events).contains(&"session.error"));
    house.assert_legal(&made.session.id).await;
    house.send(&made.session.id, vec![message("again")]).await.expect("the session lives");
}

#[tokio::test]
async fn a_failing_model_is_asked_again_in_plain_sight() {
    let house = House::open(echo()).await;
    let fault = json!({"class": "overloaded", "status": 529, "retry_after_ms": 10, "times": 1});
    let script = json!({"steps": [{"fault": fault, "text": "there"}]});
    let made = house.create(script, Vec::new(), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    for kind in ["session.error", "session.status_rescheduled", "session.thread_status_rescheduled"] {
        assert!(kinds(&events).contains(&kind), "{:?}", kinds(&events));
    }
    let attempts = events.iter().filter_map(|e| match e.body {
        EventBody::ModelRequestStart { attempt, step, .. } => Some((step, attempt)),
        _ => None,
    });
    assert_eq!(attempts.collect::<Vec<_>>(), [(1, 1), (1, 2)]);
    house.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn a_model_that_refuses_the_key_ends_the_turn() {
    let house = House::open(echo()).await;
    let fault = json!({"class": "authentication", "status": 401, "message": "bad key"});
    let script = json!({"steps": [{"fault": fault}]});
    let made = house.create(script, Vec::new(), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::RetriesExhausted);
    house.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn limits_are_stop_reasons() {
    let house = House::open(echo()).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {}}]}], "repeat": 100});
    let limits = TurnLimits { steps: 3, ..TurnLimits::default() };
    let settings = TurnSettings { limits, ..TurnSettings::default() };
    let made = house.try_create(script, toolset(ToolConfig::default()), "go", settings).await.unwrap();
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::LimitReached { limit: LimitName::Steps });
    assert_eq!(house.session(&made.session.id).await.fold.steps, 3);

    let hang = House::open(Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {}}]}]});
    let limits = TurnLimits { seconds: 1, ..TurnLimits::default() };
    let settings = TurnSettings { limits, ..TurnSettings::default() };
    let made = hang.try_create(script, toolset(ToolConfig::default()), "go", settings).await.unwrap();
    let events = hang.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::LimitReached { limit: LimitName::Seconds });
    hang.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn an_answer_that_is_not_of_the_schema_is_asked_for_again() {
    let house = House::open(echo()).await;
    let script = json!({"steps": [{"text": "four"}, {"text": "{\"sum\": 4}"}]});
    let schema = json!({"type": "object", "required": ["sum"], "properties": {"sum": {"type": "integer"}}});
    let settings = TurnSettings { output_schema: Some(schema), ..TurnSettings::default() };
    let made = house.try_create(script, Vec::new(), "2+2?", settings).await.unwrap();
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert!(kinds(&events).contains(&"loopd.output_rejected"));
    assert_eq!(house.session(&made.session.id).await.fold.steps, 2);
}

#[tokio::test]
async fn a_new_owner_goes_on_and_the_old_one_is_fenced() {
    let house = House::open(Arc::new(|_| Act::Hang)).await;
    let call = json!({"tools": [{"name": "bash", "input": {}}]});
    let script = json!({"steps": [call, {"text": "done"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestEnd { .. })).await;
    let heir = house.reopen(echo()).await;
    let events = heir.until_idle(id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events)[0].1, Outcome::Unknown, "bash may have run");
    let epoch = heir.session(id).await.epoch;
    assert!(epoch > made.session.epoch);
    heir.assert_legal(id).await;
}

#[tokio::test]
async fn a_turn_whose_model_call_was_lost_asks_again() {
    let house = House::open(echo()).await;
    let script = json!({"steps": [{"delay_ms": 300, "text": "there"}]});
    let made = house.create(script, Vec::new(), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestStart { .. })).await;
    let heir = house.reopen(echo()).await;
    let events = heir.until_idle(id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let cut = |b: &EventBody| matches!(b, EventBody::ModelRequestEnd { outcome: RequestOutcome::Interrupted, .. });
    assert!(events.iter().any(|e| cut(&e.body)), "{:?}", kinds(&events));
    heir.assert_legal(id).await;
}

#[tokio::test]
async fn the_same_request_twice_has_one_effect() {
    let house = House::open(echo()).await;
    let made = house.create(json!({"steps": [{"text": "a"}], "repeat": 9}), Vec::new(), "").await;
    let id = &made.session.id;
    let once = OnceKey { key: "events:k1".to_owned(), request_digest: "d1".to_owned() };
    let send = async |once: &OnceKey| {
        let inputs = vec![message("go")];
        house.service.send(&workspace(), id, inputs, TurnSettings::default(), Some(once.clone())).await
    };
    let first = send(&once).await.unwrap();
    let second = send(&once).await.unwrap();
    assert!(!first.repeated && second.repeated);
    assert_eq!(first.inputs[0].id, second.inputs[0].id);
    let events = house.until_idle(id, first.seq).await;
    assert_eq!(kinds(&events).iter().filter(|k| **k == "user.message").count(), 1);
    let other = OnceKey { request_digest: "d2".to_owned(), ..once };
    assert!(matches!(send(&other).await, Err(ServiceError::KeyReused { .. })));
}

#[tokio::test]
async fn followers_see_everything_once_and_in_order_with_previews_before_their_message() {
    let house = House::open(echo()).await;
    let script = json!({"steps": [
        {"text": "first I look around a little", "tools": [{"name": "bash", "input": {}}]},
        {"text": "then I say what I found there"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "").await;
    let id = &made.session.id;
    let mut live = house.service.follow(&workspace(), id, FollowFrom::Live).await.unwrap();
    house.send(id, vec![message("go")]).await.unwrap();
    let mut seqs = Vec::new();
    let mut previews = std::collections::HashMap::<_, String>::new();
    loop {
        match live.next().await.unwrap().unwrap() {
            Followed::Event(event) => {
                seqs.push(event.seq);
                if let EventBody::AgentMessage { content, .. } = &event.body {
                    let ContentBlock::Text { text } = &content[0] else { panic!("text") };
                    assert_eq!(previews.remove(&event.id).as_ref(), Some(text), "previews add up to the message");
                }
                if matches!(event.body, EventBody::StatusIdle { .. }) {
                    break;
                }
            }
            Followed::MessageStart { id } => assert!(previews.insert(id, String::new()).is_none()),
            Followed::MessageText { id, text, .. } => previews.get_mut(&id).expect("started").push_str(&text),
            other => panic!("{other:?}"),
        }
    }
    assert!(previews.is_empty());
    let all: Vec<u64> = house.assert_legal(id).await.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, all);
}

#[tokio::test]
async fn who_comes_late_sees_the_turn_that_nobody_saw() {
    let house = House::open(echo()).await;
    let made = house.create(json!({"steps": [{"text": "quick"}], "repeat": 9}), Vec::new(), "").await;
    let id = &made.session.id;
    let sent = house.send(id, vec![message("go")]).await.unwrap();
    while house.session(id).await.fold.status != Status::Idle {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut late = house.service.follow(&workspace(), id, FollowFrom::Live).await.unwrap();
    let Followed::Event(first) = late.next().await.unwrap().unwrap() else { panic!("an event") };
    assert_eq!(first.id, sent.inputs[0].id);
    let mut later = house.service.follow(&workspace(), id, FollowFrom::Live).await.unwrap();
    let next = tokio::time::timeout(std::time::Duration::from_millis(200), later.next()).await;
    assert!(next.is_err(), "it was seen by then: {next:?}");
}

#[tokio::test]
async fn running_sessions_are_neither_archived_nor_deleted() {
    let house = House::open(Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {}}]}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    assert!(matches!(house.service.archive(&workspace(), id).await, Err(ServiceError::Refused(_))));
    assert!(matches!(house.service.delete(&workspace(), id).await, Err(ServiceError::Refused(_))));
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestEnd { .. })).await;
    let sent = house.send(id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.unwrap();
    house.until_idle(id, sent.seq).await;
    let archived = house.service.archive(&workspace(), id).await.unwrap();
    assert!(archived.archived_at.is_some());
    assert_eq!(house.session(id).await.fold.status, Status::Terminated);
    assert!(matches!(house.send(id, vec![message("more")]).await, Err(ServiceError::Refused(_))));
    let mut follower = house.service.follow(&workspace(), id, FollowFrom::Live).await.unwrap();
    house.service.delete(&workspace(), id).await.unwrap();
    assert!(matches!(follower.next().await, Some(Ok(Followed::Deleted))));
    assert!(follower.next().await.is_none());
    assert!(matches!(house.service.get(&workspace(), id).await, Err(ServiceError::Absent(_))));
}

#[tokio::test]
async fn a_stopped_service_lets_go_and_the_next_goes_on() {
    let house = House::open(Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "read", "input": {}}]}, {"text": "done"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestEnd { .. })).await;
    house.service.stop(loopd_session::StopMode::End).await;
    assert!(matches!(house.send(id, vec![message("x")]).await, Err(ServiceError::Stopping)));
    let heir = house.reopen(echo()).await;
    let events = heir.until_idle(id, 0).await;
    assert_eq!(results(&events)[0].1, Outcome::Completed, "a pure call runs again");
    heir.assert_legal(id).await;
}

#[tokio::test]
async fn a_visitor_leaves_what_was_left_to_the_next_owner() {
    let house = House::open(Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "read", "input": {}}]}, {"text": "done"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestEnd { .. })).await;
    house.service.stop(loopd_session::StopMode::End).await;
    let before = house.session(id).await;
    let visitor = house.visit(echo()).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(visitor.session(id).await.fold, before.fold, "it only looked");
    let heir = house.reopen(echo()).await;
    assert_eq!(stop_reason(&heir.until_idle(id, 0).await), StopReason::EndTurn);
}
