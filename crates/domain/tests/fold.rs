//! The fold of a session: every legal transition, every refusal, and that a refusal changes nothing.

mod journal;

use journal::*;
use loopd_domain::event::*;
use loopd_domain::fold::SessionFold;
use loopd_domain::session::{Status, StopReason};
use loopd_domain::usage::MicroUsd;
use loopd_domain::{EventId, Timestamp};

#[test]
fn a_turn_from_input_to_idle() {
    let (mut j, request) = Journal::asking();
    assert_eq!((j.fold.status, j.fold.turns), (Status::Running, 1));
    j.put(said("hi"));
    j.put(answered(&request));
    j.wait(250);
    j.put(idle(StopReason::EndTurn));
    assert_eq!(j.fold.status, Status::Idle);
    assert_eq!(j.fold.stop_reason, Some(StopReason::EndTurn));
    assert_eq!((j.fold.turn.as_ref(), j.fold.steps, j.fold.active_ms), (None, 1, 250));
    assert_eq!((j.fold.usage.output_tokens, j.fold.cost), (5, Some(MicroUsd(7))));
    j.put(message("and now?"));
    j.put(running(2));
    assert_eq!((j.fold.turns, j.fold.stop_reason.as_ref()), (2, None));
}

#[test]
fn calls_are_open_until_the_next_request() {
    let (mut j, request) = Journal::asking();
    let call = j.put(tool("a", Permission::Allow));
    j.put(answered(&request));
    assert_eq!(j.refusal(start(2)), "the step before is not finished");
    assert_eq!(j.refusal(idle(StopReason::EndTurn)), "a call has no result");
    j.put(result(&call, "files"));
    assert_eq!(j.refusal(result(&call, "again")), "no such call is open");
    j.put(start(2));
    assert!(j.fold.turn.expect("open").calls.is_empty());
}

#[test]
fn an_attempt_that_failed_is_no_step_and_its_tokens_count() {
    let (mut j, request) = Journal::asking();
    j.put(failed(&request));
    j.put(EventBody::StatusRescheduled { retry_at: Timestamp(9) });
    assert_eq!(j.fold.status, Status::Rescheduling);
    assert_eq!(j.refusal(EventBody::StatusRescheduled { retry_at: Timestamp(9) }), "the session does not run");
    let again = j.put(start(1));
    assert_eq!(j.fold.status, Status::Running);
    j.put(answered(&again));
    let turn = j.fold.turn.as_ref().expect("open");
    assert_eq!((turn.steps, turn.output_tokens, turn.cost), (1, 10, Some(MicroUsd(14))));
}

#[test]
fn a_connection_is_told_of_at_any_time_and_changes_nothing() {
    let tell = |j: &mut Journal| {
        let before = j.fold.clone();
        j.put(connection());
        j.put(EventBody::NetworkConnectionsOmitted { count: 2 });
        let (last_seq, last_at) = (j.fold.last_seq, j.fold.last_at);
        assert_eq!(j.fold, SessionFold { last_seq, last_at, ..before });
    };
    let mut j = Journal::new();
    tell(&mut j);
    j.put(message("hello"));
    tell(&mut j);
    j.put(running(1));
    tell(&mut j);
    let request = j.put(start(1));
    tell(&mut j);
    j.put(failed(&request));
    j.put(EventBody::StatusRescheduled { retry_at: Timestamp(9) });
    tell(&mut j);
    let request = j.put(start(1));
    let call = j.put(custom("a"));
    tell(&mut j);
    j.put(answered(&request));
    j.put(requires(&[&call]));
    tell(&mut j);
    j.put(EventBody::StatusTerminated { reason: "archived".to_owned() });
    assert_eq!(j.refusal(connection()), "the session is terminated");
}

#[test]
fn a_session_is_due_now_later_or_never() {
    let (mut j, request) = Journal::asking();
    assert_eq!(j.fold.due_at(), Some(Timestamp(0)));
    j.put(failed(&request));
    let later = j.now.plus_ms(600_000);
    j.put(EventBody::StatusRescheduled { retry_at: later });
    assert_eq!((j.fold.retry_at, j.fold.due_at()), (Some(later), Some(later)));

    // What the client asked for does not wait, and neither does the end of the turn's own time.
    let mut interrupted = j.fold.clone();
    interrupted.turn.as_mut().expect("open").interrupted = true;
    assert_eq!(interrupted.due_at(), Some(Timestamp(0)));
    let mut short = j.fold.clone();
    short.turn.as_mut().expect("open").settings.limits.seconds = 60;
    assert_eq!(short.due_at(), Some(Timestamp::from_millis(1_000 + 60_000)));

    let again = j.put(start(1));
    assert_eq!((j.fold.retry_at, j.fold.due_at()), (None, Some(Timestamp(0))));
    j.put(answered(&again));
    j.put(idle(StopReason::EndTurn));
    assert_eq!(j.fold.due_at(), None);
    let waits = j.id();
    j.put(queued(&waits, message("and this")));
    assert_eq!(j.fold.due_at(), Some(Timestamp(0)));
    j.put(EventBody::StatusTerminated { reason: "archived".to_owned() });
    assert_eq!(j.fold.due_at(), None);
}

#[test]
fn one_unknown_price_makes_the_cost_unknown() {
    let (mut j, request) = Journal::asking();
    let mut body = answered(&request);
    if let EventBody::ModelRequestEnd { cost, .. } = &mut body {
        *cost = None;
    }
    j.put(body);
    let second = j.put(start(2));
    j.put(answered(&second));
    assert_eq!((j.fold.cost, j.fold.turn.expect("open").cost), (None, None));
}

#[test]
fn a_turn_waits_for_the_client_and_goes_on() {
    let (mut j, request) = Journal::asking();
    let asks = j.put(tool("a", Permission::Ask));
    let custom = j.put(custom("b"));
    j.put(answered(&request));
    assert_eq!(j.fold.waiting(), [asks.clone(), custom.clone()]);
    j.put(requires(&[&asks, &custom]));
    assert!(j.fold.is_waiting() && !j.fold.needs_owner());
    assert_eq!(j.refusal(start(2)), "the turn waits for the client");
    assert_eq!(j.refusal(message("hurry")), "a step is under way; it must be queued");

    j.wait(60_000);
    j.put(custom_result(&custom, "42"));
    assert!(!j.fold.needs_owner(), "the other call waits still");
    j.put(confirmation(&asks, Verdict::Allow));
    assert!(j.fold.needs_owner(), "a call could go on");
    assert_eq!(j.refusal(running(2)), "another turn is open");
    j.put(running(1));
    let turn = j.fold.turn.clone().expect("open");
    assert_eq!((turn.waited_ms, turn.rested_at), (60_000, None));
    assert_eq!(turn.counts_from(), turn.started_at.plus_ms(60_000));
    assert_eq!(j.fold.active_ms, 0, "waiting is not running");
    j.put(result(&asks, "done"));
    j.put(start(2));
}

#[test]
fn a_rest_must_leave_nothing_that_could_go_on() {
    let (mut j, request) = Journal::asking();
    let room = j.put(tool("a", Permission::Allow));
    let custom = j.put(custom("b"));
    assert_eq!(j.refusal(requires(&[&custom])), "a model request is under way");
    j.put(answered(&request));
    assert_eq!(j.refusal(requires(&[&custom])), "a call could go on without the client");
    assert_eq!(j.refusal(requires(&[&room])), "it names a call that does not wait for the client");
    assert_eq!(j.refusal(requires(&[])), "it names a call that does not wait for the client");
    j.put(result(&room, "ok"));
    j.put(requires(&[&custom]));
}

#[test]
fn confirmations_are_for_calls_that_ask() {
    let (mut j, request) = Journal::asking();
    let asks = j.put(tool("a", Permission::Ask));
    let allowed = j.put(tool("b", Permission::Allow));
    j.put(answered(&request));
    assert_eq!(j.refusal(confirmation(&allowed, Verdict::Deny)), "the call does not wait for a confirmation");
    assert_eq!(j.refusal(confirmation(&id(99), Verdict::Deny)), "no such call is open");
    assert_eq!(j.refusal(custom_result(&asks, "x")), "the call is not the client's to answer");
    j.put(confirmation(&asks, Verdict::Deny));
    assert_eq!(j.refusal(confirmation(&asks, Verdict::Allow)), "the call does not wait for a confirmation");
    assert!(j.fold.waiting().is_empty(), "a denied call will be refused; it waits for nobody");
}

#[test]
fn what_may_run_is_what_nobody_has_to_allow_any_more() {
    let (mut j, request) = Journal::asking();
    let a = j.put(tool("a", Permission::Allow));
    j.put(custom("b"));
    j.put(tool("c", Permission::Deny));
    let [d, e] = ["d", "e"].map(|name| j.put(tool(name, Permission::Ask)));
    j.put(answered(&request));
    assert_eq!(j.fold.running(), std::slice::from_ref(&a));
    j.put(confirmation(&d, Verdict::Allow));
    j.put(confirmation(&e, Verdict::Deny));
    assert_eq!(j.fold.running(), [a.clone(), d.clone()]);
    j.put(result(&a, "first"));
    assert_eq!(j.fold.running(), [d]);
}

#[test]
fn what_will_be_refused_does_not_wait() {
    let (mut j, request) = Journal::asking();
    let mut malformed = intent("a", RunsIn::Client);
    malformed.malformed = Some("not JSON".to_owned());
    j.put(EventBody::AgentCustomToolUse { name: "lookup".to_owned(), input: serde_json::json!({}), call: malformed });
    j.put(EventBody::AgentToolUse {
        name: "browse".to_owned(),
        input: serde_json::json!({}),
        evaluated_permission: Permission::Ask,
        call: intent("b", RunsIn::Nowhere),
    });
    j.put(tool("c", Permission::Deny));
    j.put(answered(&request));
    assert!(j.fold.waiting().is_empty());
}

#[test]
fn an_answer_belongs_to_its_request() {
    let mut j = Journal::new();
    assert_eq!(j.refusal(said("hi")), "no model request is under way");
    assert_eq!(j.refusal(tool("a", Permission::Allow)), "no model request is under way");
    assert_eq!(j.refusal(start(1)), "no turn is open");
    assert_eq!(j.refusal(idle(StopReason::EndTurn)), "no turn is open");
    let (mut j, request) = Journal::asking();
    assert_eq!(j.refusal(start(1)), "the step before is not finished");
    assert_eq!(j.refusal(answered(&id(99))), "it does not end the open request");
    assert_eq!(j.refusal(idle(StopReason::EndTurn)), "a model request is under way");
    assert_eq!(j.refusal(message("wait")), "a step is under way; it must be queued");
    j.put(tool("a", Permission::Allow));
    assert_eq!(j.refusal(failed(&request)), "an answer that was cut off cannot ask for calls");
}

#[test]
fn numbers_of_turns_and_steps_are_dense() {
    let mut j = Journal::new();
    assert_eq!(j.refusal(running(2)), "its turn is not the next");
    j.put(running(1));
    assert_eq!(j.refusal(running(1)), "the session runs already");
    assert_eq!(j.refusal(start(2)), "its step is not the next");
}

#[test]
fn mcp_servers_are_asked_once_in_a_turn_and_between_steps() {
    let listed = || EventBody::McpToolsListed { mcp_server_name: "shop".to_owned(), tools: None };
    let mut journal = Journal::new();
    assert_eq!(journal.refusal(listed()), "no turn is open");
    journal.put(message("hello"));
    journal.put(running(1));
    journal.put(listed());
    assert_eq!(journal.refusal(listed()), "the server was asked in this turn already");
    journal.put(start(1));
    let other = EventBody::McpToolsListed { mcp_server_name: "depot".to_owned(), tools: None };
    assert_eq!(journal.refusal(other), "a step is under way");
}

#[test]
fn a_result_is_of_the_kind_of_its_call() {
    let (mut journal, request) = Journal::asking();
    let call = journal.put(tool("call_1", Permission::Allow));
    journal.put(answered(&request));
    let result = EventBody::AgentMcpToolResult {
        mcp_tool_use_id: call,
        content: texts("done"),
        is_error: false,
        outcome: Outcome::Completed,
        duration_ms: 1,
    };
    assert_eq!(journal.refusal(result), "the result is of another kind than the call");
}

#[test]
fn a_rejected_output_is_counted_after_an_answer_only() {
    let rejected = || EventBody::OutputRejected { message: "not JSON".to_owned() };
    let (mut j, request) = Journal::asking();
    assert_eq!(j.refusal(rejected()), "no answer was just given");
    j.put(answered(&request));
    j.put(rejected());
    assert_eq!(j.fold.turn.expect("open").output_rejections, 1);
    assert_eq!(Journal::new().refusal(rejected()), "no turn is open");
}

#[test]
fn inputs_wait_in_order_until_a_turn_takes_them_up() {
    let (mut j, request) = Journal::asking();
    let (first, second) = (id(501), id(502));
    j.put(queued(&first, message("12345")));
    j.put(queued(&second, EventBody::SystemMessage { content: texts("123") }));
    assert_eq!(j.refusal(queued(&first, message("twice"))), "it is queued already");
    let weights: Vec<_> = j.fold.queued.iter().map(|q| (q.id.clone(), q.weight)).collect();
    assert_eq!(weights, [(first.clone(), 5), (second.clone(), 3)]);
    j.put(answered(&request));
    j.put_as(first, message("12345")).expect("between steps");
    assert_eq!(j.fold.queued.iter().map(|q| &q.id).collect::<Vec<_>>(), [&second]);
    j.put(idle(StopReason::EndTurn));
    assert!(j.fold.needs_owner(), "an input waits for a turn");
}

#[test]
fn an_interrupt_is_remembered_until_the_turn_is_over() {
    let (mut j, request) = Journal::asking();
    j.put(EventBody::UserInterrupt { session_thread_id: None });
    assert!(j.fold.turn.as_ref().expect("open").interrupted);
    j.put(end(&request, RequestOutcome::Interrupted));
    j.put(idle(StopReason::EndTurn));
    j.put(EventBody::UserInterrupt { session_thread_id: None });
    j.put(running(2));
    assert!(!j.fold.turn.expect("open").interrupted, "it was meant for the turn before");
}

#[test]
fn an_interrupt_of_a_turn_that_waits_needs_an_owner_and_ends_without_running() {
    let (mut j, request) = Journal::asking();
    let custom = j.put(custom("a"));
    j.put(answered(&request));
    j.put(requires(&[&custom]));
    j.put(EventBody::UserInterrupt { session_thread_id: None });
    assert!(j.fold.needs_owner());
    j.put(result(&custom, "interrupted"));
    j.put(idle(StopReason::EndTurn));
    assert!(!j.fold.needs_owner() && !j.fold.is_waiting());
}

#[test]
fn recoveries_are_counted_until_a_step_is_done() {
    let (mut j, request) = Journal::asking();
    j.put(EventBody::SessionRecovered { message: "the owner was lost".to_owned(), recoveries: 3 });
    j.put(end(&request, RequestOutcome::Interrupted));
    assert_eq!(j.fold.recoveries, 3);
    let again = j.put(start(1));
    j.put(answered(&again));
    assert_eq!(j.fold.recoveries, 0);
}

#[test]
fn a_terminated_session_takes_nothing() {
    let (mut j, _) = Journal::asking();
    j.put(queued(&id(500), message("late")));
    j.wait(40);
    j.put(EventBody::StatusTerminated { reason: "archived".to_owned() });
    assert_eq!((j.fold.status, j.fold.active_ms), (Status::Terminated, 40));
    assert!(j.fold.turn.is_none() && j.fold.queued.is_empty() && !j.fold.needs_owner());
    assert_eq!(j.refusal(message("hello?")), "the session is terminated");
}

#[test]
fn seq_is_dense_and_time_does_not_go_back() {
    let mut fold = SessionFold::default();
    let event = |seq, at| Event { seq, id: id(1), at: Timestamp(at), body: message("hi") };
    let reason = |fold: &mut SessionFold, e: Event| fold.apply(&e).expect_err("refused").to_string();
    assert_eq!(reason(&mut fold, event(2, 5)), "`user.message` at 2 cannot follow: its seq is not the next");
    fold.apply(&event(1, 5)).expect("first");
    assert_eq!(
        reason(&mut fold, event(2, 4)),
        "`user.message` at 2 cannot follow: its time is before its predecessor's"
    );
    fold.apply(&event(2, 5)).expect("the same moment is fine");
}

mod random {
    use super::*;
    use proptest::prelude::*;

    /// Some event, legal or not: `pick` chooses the kind, `which` what it refers to.
    fn body(j: &Journal, pick: u8, which: u8) -> EventBody {
        let turn = j.fold.turn.as_ref();
        let call = |n: u8| {
            let calls = turn.map(|t| t.calls.as_slice()).unwrap_or_default();
            calls.get(usize::from(n) % calls.len().max(1)).map_or_else(|| id(9_999), |c| c.id.clone())
        };
        let request = turn.and_then(|t| t.request.as_ref()).map_or_else(|| id(9_998), |r| r.id.clone());
        let step = turn.map_or(1, |t| t.steps + 1) + u32::from(which.is_multiple_of(13));
        let permission = [Permission::Allow, Permission::Ask, Permission::Deny][usize::from(which) % 3];
        match pick % 18 {
            0 => message("m"),
            1 => running(turn.map_or(j.fold.turns + 1, |t| t.number)),
            2 | 3 => start(step),
            4 | 5 => answered(&request),
            6 => failed(&request),
            7 => end(&request, RequestOutcome::Interrupted),
            8 => tool("c", permission),
            9 => custom("c"),
            10 | 11 => result(&call(which), "r"),
            12 => custom_result(&call(which), "r"),
            13 => confirmation(&call(which), [Verdict::Allow, Verdict::Deny][usize::from(which) % 2]),
            14 => idle(StopReason::EndTurn),
            15 => requires(&j.fold.waiting().iter().collect::<Vec<&EventId>>()),
            16 => queued(&id(1_000 + u32::from(which)), message("q")),
            _ => EventBody::OutputRejected { message: "no".to_owned() },
        }
    }

    proptest! {
        #[test]
        fn a_refusal_changes_nothing_and_every_fold_survives_storage(
            picks in prop::collection::vec((any::<u8>(), any::<u8>()), 1..120),
        ) {
            let mut j = Journal::new();
            for (pick, which) in picks {
                let before = j.fold.clone();
                let (id, event) = (j.id(), body(&j, pick, which));
                if j.put_as(id, event).is_err() {
                    prop_assert_eq!(&j.fold, &before);
                    continue;
                }
                prop_assert_eq!(j.fold.last_seq, before.last_seq + 1);
                let stored = serde_json::to_string(&j.fold).expect("serialises");
                let read: SessionFold = serde_json::from_str(&stored).expect("reads back");
                prop_assert_eq!(&read, &j.fold);
                let event = j.events.last().expect("just put");
                let stored = serde_json::to_string(event).expect("serialises");
                prop_assert_eq!(&serde_json::from_str::<Event>(&stored).expect("reads back"), event);
                prop_assert!(j.fold.turn.is_some() || j.fold.status == Status::Idle);
            }
        }
    }
}
