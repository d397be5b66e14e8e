//! The judge must be able to find fault: each rule is broken once.

use super::check;
use crate::check::testing::entries;
use serde_json::{Value, json};

fn call() -> Value {
    json!({"type": "agent.tool_use", "name": "bash", "evaluated_permission": "allow", "call": {"runs_in": "room"}})
}

fn custom() -> Value {
    json!({"type": "agent.custom_tool_use", "name": "ask", "call": {"runs_in": "client"}})
}

fn start(step: u64) -> Value {
    json!({"type": "span.model_request_start", "step": step, "attempt": 1})
}

/// Ends the request that stands at this place.
fn end(start: usize, kind: &str) -> Value {
    json!({"type": "span.model_request_end", "model_request_start_id": format!("e{start}"), "outcome": {"kind": kind}})
}

fn result(call: usize) -> Value {
    json!({"type": "agent.tool_result", "tool_use_id": format!("e{call}")})
}

fn idle(reason: Value) -> [Value; 3] {
    [
        json!({"type": "session.thread_status_idle"}),
        json!({"type": "session.usage"}),
        json!({"type": "session.status_idle", "stop_reason": reason}),
    ]
}

/// A message, a turn of two steps with one call, and its end. Ids are `e1`, `e2`, … by place.
fn whole() -> Vec<Value> {
    let mut bodies = vec![
        json!({"type": "user.message"}),
        json!({"type": "session.status_running", "turn": 1}),
        start(1),
        call(),
        end(3, "answered"),
        result(4),
        start(2),
        json!({"type": "agent.message"}),
        end(7, "answered"),
    ];
    bodies.extend(idle(json!({"type": "end_turn"})));
    bodies
}

fn faults(bodies: &[Value]) -> Vec<String> {
    check(&entries(bodies), true)
}

#[track_caller]
fn finds(bodies: Vec<Value>, needle: &str) {
    let faults = faults(&bodies);
    assert!(faults.iter().any(|f| f.contains(needle)), "`{needle}` is not in {faults:?}");
}

#[test]
fn a_legal_history_has_no_faults() {
    assert_eq!(faults(&whole()), Vec::<String>::new());
}

#[test]
fn a_turn_may_wait_for_its_client_and_a_request_may_be_cut() {
    let mut bodies = whole()[..2].to_vec();
    bodies.extend([start(1), end(3, "interrupted"), start(1), custom(), end(5, "answered")]);
    bodies.extend(idle(json!({"type": "requires_action", "event_ids": ["e6"]})));
    bodies.push(json!({"type": "user.custom_tool_result", "custom_tool_use_id": "e6"}));
    bodies.push(json!({"type": "session.status_running", "turn": 1}));
    bodies.extend([start(2), end(13, "answered")]);
    bodies.extend(idle(json!({"type": "end_turn"})));
    assert_eq!(faults(&bodies), Vec::<String>::new());
}

#[test]
fn a_call_in_doubt_waits_for_its_client() {
    let doubt = json!({"type": "loopd.outcome_unknown", "tool_use_id": "e4"});
    let decision = json!({"type": "user.tool_confirmation", "tool_use_id": "e4", "result": "allow"});
    let mut bodies = whole()[..5].to_vec();
    bodies.push(doubt.clone());
    bodies.extend(idle(json!({"type": "requires_action", "event_ids": ["e4"]})));
    bodies.push(decision.clone());
    bodies.push(json!({"type": "session.status_running", "turn": 1}));
    bodies.push(result(4));
    bodies.extend([start(2), end(13, "answered")]);
    bodies.extend(idle(json!({"type": "end_turn"})));
    assert_eq!(faults(&bodies), Vec::<String>::new());
    let mut twice = bodies.clone();
    twice.insert(6, doubt);
    finds(twice, "waits for its client already");
    let mut unasked = whole();
    unasked.insert(5, decision);
    finds(unasked, "does not wait for it");
}

#[test]
fn results() {
    let mut twice = whole();
    twice.insert(6, result(4));
    finds(twice, "no call \"e4\" is open");
    let mut missing = whole();
    missing.remove(5);
    finds(missing, "the step before is not finished");
    let mut early = whole();
    early.swap(4, 5);
    finds(early, "still under way");
    let mut stranger = whole();
    stranger[5] = result(1);
    finds(stranger, "no call \"e1\" is open");
}

#[test]
fn steps_and_requests() {
    let mut repeated = whole();
    repeated[6] = start(1);
    finds(repeated, "its step is not the next");
    let mut skipped = whole();
    skipped[6] = start(3);
    finds(skipped, "its step is not the next");
    let mut other = whole();
    other[8] = end(3, "answered");
    finds(other, "does not end the open request");
    let mut cut = whole();
    cut[4] = end(3, "interrupted");
    finds(cut, "cut off asks for calls");
    let mut stray = whole();
    stray.insert(5, json!({"type": "agent.message"}));
    finds(stray, "no request is under way");
}

#[test]
fn turns_and_rests() {
    let mut again = whole();
    again.push(json!({"type": "session.status_running", "turn": 1}));
    finds(again, "its turn is not the next");
    let mut twice = whole();
    twice.insert(2, json!({"type": "session.status_running", "turn": 1}));
    finds(twice, "the session runs already");
    let mut bare = whole();
    bare.remove(10);
    finds(bare, "its thread and usage do not stand before it");
    let mut open = whole()[..5].to_vec();
    open.extend(idle(json!({"type": "end_turn"})));
    finds(open, "a call has no result");
    let mut wrong = whole()[..5].to_vec();
    wrong.extend(idle(json!({"type": "requires_action", "event_ids": ["e4"]})));
    finds(wrong, "it names what does not wait");
    finds(whole()[..9].to_vec(), "in the middle of turn");
    let mut ended = whole();
    ended.extend([json!({"type": "session.status_terminated"}), json!({"type": "user.message"})]);
    finds(ended, "the session was terminated");
}

#[test]
fn inputs_and_answers() {
    let mut inside = whole();
    inside.insert(3, json!({"type": "user.message"}));
    finds(inside, "a step is under way");
    let mut waits = whole();
    waits.push(json!({"type": "loopd.input_queued", "input": {"id": "later"}}));
    finds(waits, "accepted and never taken up");
    let mut foreign = whole();
    foreign.insert(5, json!({"type": "user.custom_tool_result", "custom_tool_use_id": "e4"}));
    finds(foreign, "not the client's to answer");
}

#[test]
fn entries_themselves() {
    let mut list = entries(&whole());
    list[3].at = 0;
    list[4].id = "e1".to_owned();
    list[5].kind = "agent.message".to_owned();
    let faults = check(&list, true);
    for needle in ["its time is before", "stands in the journal already", "not the type of its payload"] {
        assert!(faults.iter().any(|f| f.contains(needle)), "`{needle}` is not in {faults:?}");
    }
}
