//! Traces of journals written by hand, as the exact trees that an engineer reads.

mod journal;

use journal::{Journal, TRACE};
use loopd_domain::environment::{Accelerator, Isolation};
use loopd_domain::event::*;
use loopd_domain::network::ConnectionOutcome;
use loopd_domain::session::{LimitName, StopReason};
use loopd_telemetry::{SpanKind, SpanStatus, Trace, TraceFold, render_tree, semconv};

const WIDTH: usize = 84;

/// The tree without the columns' heading and without trailing spaces.
fn tree(j: &Journal) -> String {
    let text = render_tree(&j.trace(), WIDTH, false);
    text.lines().skip(1).map(|line| format!("{line}\n")).collect()
}

#[track_caller]
fn assert_tree(j: &Journal, expected: &[&str]) {
    let expected: String = expected.iter().map(|line| format!("{line}\n")).collect();
    let actual = tree(j);
    assert!(actual == expected, "got:\n{actual}\nexpected:\n{expected}");
}

#[test]
fn a_turn_with_a_tool() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(2, 1, 1);
    let call = j.tool(1_200, "bash");
    j.answered(1_200, 1_000, 50, Some(4_500));
    j.result(1_540, &call, Outcome::Completed, false, 320);
    j.ask(1_541, 2, 1);
    j.answered(2_041, 1_100, 20, Some(3_600));
    j.idle(2_050, StopReason::EndTurn);
    assert_tree(
        &j,
        &[
            "session sesn_01TRACE                                        2100      70   $0.008100",
            "└─ turn 1  end_turn                                2.05s    2100      70   $0.008100",
            "   ├─ step 1                                       1.53s    1000      50   $0.004500",
            "   │  ├─ anthropic/opus  first token 200ms         1.19s    1000      50   $0.004500",
            "   │  └─ tool bash  waited 20ms                    320ms",
            "   └─ step 2                                       500ms    1100      20   $0.003600",
            "      └─ anthropic/opus  first token 200ms         500ms    1100      20   $0.003600",
        ],
    );
}

#[test]
fn a_room_with_a_kernel_of_its_own_shows_how_slow_it_is() {
    let room = |accelerator, waited_ms, woken| EventBody::RoomStarted {
        isolation: Isolation::Microvm,
        accelerator: Some(accelerator),
        waited_ms,
        woken,
    };
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.put(2_000, room(Accelerator::Emulation, 1_950, false));
    j.ask(2_000, 1, 1);
    j.answered(2_500, 1_000, 50, Some(4_500));
    j.idle(2_510, StopReason::EndTurn);
    // The second turn is in the same room, the third in it when it has slept.
    for (at, slept) in [(10_000, false), (20_000, true)] {
        j.say(at);
        j.running(at, None);
        if slept {
            j.put(at + 60, room(Accelerator::Kvm, 54, true));
        }
        j.ask(at + 100, 1, 1);
        j.answered(at + 600, 1_000, 50, Some(4_500));
        j.idle(at + 610, StopReason::EndTurn);
    }
    assert_tree(
        &j,
        &[
            "session sesn_01TRACE  microvm (kvm)                         3000     150   $0.013500",
            "├─ turn 1  end_turn  waited for a room 1.95s       2.51s    1000      50   $0.004500",
            "│  └─ step 1                                       500ms    1000      50   $0.004500",
            "│     └─ anthropic/opus  first token 200ms         500ms    1000      50   $0.004500",
            "├─ turn 2  end_turn                                610ms    1000      50   $0.004500",
            "│  └─ step 1                                       500ms    1000      50   $0.004500",
            "│     └─ anthropic/opus  first token 200ms         500ms    1000      50   $0.004500",
            "└─ turn 3  end_turn  room woken                    610ms    1000      50   $0.004500",
            "   │  waited for a room 54ms",
            "   └─ step 1                                       500ms    1000      50   $0.004500",
            "      └─ anthropic/opus  first token 200ms         500ms    1000      50   $0.004500",
        ],
    );
    let trace = j.trace();
    let turn = |n: usize, name: &str| trace.root.children[n].attributes.get(name).cloned().unwrap_or_default();
    for (n, accelerator, woken) in [(0, "emulation", false), (1, "emulation", false), (2, "kvm", true)] {
        assert_eq!(turn(n, semconv::LOOPD_SANDBOX_ISOLATION), "microvm");
        assert_eq!(turn(n, semconv::LOOPD_SANDBOX_ACCELERATOR), accelerator);
        assert_eq!(turn(n, semconv::LOOPD_SANDBOX_WOKEN) == true, woken);
    }
    let first = Trace::of(&j.events[..6], &j.session);
    assert!(render_tree(&first, WIDTH, false).contains("session sesn_01TRACE  microvm, emulated: slow"));
    assert!(render_tree(&first, WIDTH, true).contains("\x1b[33msession"), "it stands out");
}

/// Connections are told of when they have ended, some of them later than their step.
fn connected() -> Journal {
    let reason = "host `evil.example` is not in the environment's allowed_hosts; accepted: `pypi.org`".to_owned();
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(2, 1, 1);
    let call = j.tool(1_200, "bash");
    j.answered(1_200, 1_000, 50, Some(4_500));
    j.connection(1_300, 1_250, "pypi.org", ConnectionOutcome::Done);
    j.connection(1_330, 1_230, "evil.example", ConnectionOutcome::Refused { reason });
    j.result(1_540, &call, Outcome::Completed, false, 320);
    j.ask(1_541, 2, 1);
    let stopped = ConnectionOutcome::Violation { reason: "placeholder of `vcrd_1`".to_owned() };
    j.connection(1_600, 1_530, "late.example", stopped);
    j.answered(2_041, 1_100, 20, Some(3_600));
    j.put(2_049, EventBody::NetworkConnectionsOmitted { count: 7 });
    j.idle(2_050, StopReason::EndTurn);
    j.connection(3_000, 1_500, "last.example", ConnectionOutcome::Failed { reason: "reset".to_owned() });
    j.connection(4_000, 2_900, "between.example", ConnectionOutcome::Done);
    j
}

#[test]
fn connections_stand_below_the_step_in_which_they_were_begun() {
    assert_tree(
        &connected(),
        &[
            "session sesn_01TRACE                                        2100      70   $0.008100",
            "├─ turn 1  end_turn  7 connections more            2.05s    2100      70   $0.008100",
            "│  ├─ step 1                                       1.53s    1000      50   $0.004500",
            "│  │  ├─ anthropic/opus  first token 200ms         1.19s    1000      50   $0.004500",
            "│  │  ├─ tool bash  waited 20ms                    320ms",
            "│  │  ├─ connect evil.example:443  error refused    40ms",
            "│  │  │     host `evil.example` is not in the environment's allowed_hosts; accepted:",
            "│  │  │     `pypi.org`",
            "│  │  ├─ connect pypi.org:443                       40ms",
            "│  │  │     1200 B out, 5.3 MB in",
            "│  │  ├─ connect last.example:443  error failed     40ms",
            "│  │  │     reset",
            "│  │  └─ connect late.example:443  error violation  40ms",
            "│  │        placeholder of `vcrd_1`",
            "│  └─ step 2                                       500ms    1100      20   $0.003600",
            "│     └─ anthropic/opus  first token 200ms         500ms    1100      20   $0.003600",
            "└─ connect between.example:443                      40ms",
            "      1200 B out, 5.3 MB in",
        ],
    );
}

#[test]
fn a_connections_attributes_are_those_of_the_conventions() {
    let trace = connected().trace();
    let span = trace.root.walk().into_iter().find(|s| s.attributes.get("error.type").is_some_and(|e| e == "refused"));
    let span = span.expect("there");
    let expected = serde_json::json!({
        "server.address": "evil.example",
        "server.port": 443,
        "network.transport": "tcp",
        "loopd.network.bytes_out": 1_200,
        "loopd.network.bytes_in": 5_300_000,
        "error.type": "refused",
    });
    assert_eq!(serde_json::to_value(&span.attributes).expect("serialises"), expected);
    assert_eq!((span.kind, span.status, span.duration_ms), (SpanKind::Connection, SpanStatus::Error, Some(40)));
}

#[test]
fn retries_and_their_waits_show() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(0, 1, 1);
    j.failed(300, "overloaded", "the provider is overloaded; it asks for patience");
    j.put(300, EventBody::StatusRescheduled { retry_at: loopd_domain::Timestamp::from_millis(1_000_800) });
    j.ask(805, 1, 2);
    j.failed(1_000, "overloaded", "still");
    let error = SessionFault {
        mcp_server_name: None,
        kind: "model_overloaded_error".to_owned(),
        message: "the model could not be reached".to_owned(),
        retry_status: RetryStatus::Exhausted,
    };
    j.put(1_000, EventBody::SessionError { error });
    j.idle(1_001, StopReason::RetriesExhausted);
    assert_tree(
        &j,
        &[
            "session sesn_01TRACE                                           0       0   $0.000000",
            "└─ turn 1  error model_overloaded_error            1.00s       0       0   $0.000000",
            "   │  retries_exhausted",
            "   │  the model could not be reached",
            "   └─ step 1  error                                1.00s       0       0   $0.000000",
            "      ├─ anthropic/opus  error overloaded          300ms       0       0   $0.000000",
            "      │     http 529",
            "      │     the provider is overloaded; it asks for patience",
            "      ├─ wait for retry                            505ms",
            "      └─ anthropic/opus  error overloaded          195ms       0       0   $0.000000",
            "            http 529, attempt 2",
            "            still",
        ],
    );
}

#[test]
fn a_wait_for_the_client_shows() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(0, 1, 1);
    let custom = j.call(100, "lookup", RunsIn::Client, Permission::Allow);
    let asks = j.call(100, "bash", RunsIn::Room, Permission::Ask);
    let denied = j.call(100, "bash", RunsIn::Room, Permission::Ask);
    j.answered(100, 10, 10, Some(1));
    j.idle(110, journal::requires(&[&custom, &asks, &denied]));
    let before = j.trace();
    let wait = before.root.walk().into_iter().find(|s| s.kind == SpanKind::ClientWait).expect("waits");
    assert_eq!((wait.status, wait.end), (SpanStatus::Open, None));
    let confirm = |id: &loopd_domain::EventId, result| EventBody::UserToolConfirmation {
        tool_use_id: id.clone(),
        result,
        deny_message: None,
        arguments_digest: None,
    };
    j.put(90_110, confirm(&asks, Verdict::Allow));
    j.put(90_110, confirm(&denied, Verdict::Deny));
    j.put(
        90_110,
        EventBody::UserCustomToolResult {
            custom_tool_use_id: custom,
            content: Vec::new(),
            is_error: false,
            arguments_digest: None,
        },
    );
    j.running(90_110, None);
    j.result(90_110, &denied, Outcome::NotRun, true, 0);
    j.result(90_200, &asks, Outcome::Completed, true, 80);
    j.ask(90_201, 2, 1);
    assert_tree(
        &j,
        &[
            "session sesn_01TRACE                                          10      10   $0.000001",
            "└─ turn 1  open                                               10      10   $0.000001",
            "   ├─ step 1                                       1m30s      10      10   $0.000001",
            "   │  ├─ anthropic/opus  first token 200ms         100ms      10      10   $0.000001",
            "   │  ├─ tool lookup                               1m30s",
            "   │  ├─ tool bash  error tool_error  client: allow 80ms",
            "   │  │     waited 1m30s",
            "   │  ├─ tool bash  error not_run  client: deny    1m30s",
            "   │  └─ wait for client                           1m30s",
            "   └─ step 2  open",
            "      └─ anthropic/opus  open",
        ],
    );
}

#[test]
fn a_crash_shows_as_what_it_cut_off() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(0, 1, 1);
    let call = j.tool(100, "bash");
    j.answered(100, 10, 10, Some(1));
    let recovered = |recoveries| EventBody::SessionRecovered { message: "the owner was lost".to_owned(), recoveries };
    j.put(5_000, recovered(1));
    j.result(5_000, &call, Outcome::Unknown, true, 0);
    j.ask(5_001, 2, 1);
    j.put(9_000, recovered(2));
    j.cut_off(9_000);
    j.ask(9_001, 2, 2);
    assert_tree(
        &j,
        &[
            "session sesn_01TRACE                                          10      10   $0.000001",
            "└─ turn 1  open                                               10      10   $0.000001",
            "   ├─ step 1                                       5.00s      10      10   $0.000001",
            "   │  ├─ anthropic/opus  first token 200ms         100ms      10      10   $0.000001",
            "   │  ├─ tool bash  outcome unknown                4.90s",
            "   │  └─ recovery",
            "   │        the owner was lost",
            "   └─ step 2  open                                             0       0   $0.000000",
            "      ├─ anthropic/opus  interrupted               3.99s       0       0   $0.000000",
            "      ├─ recovery",
            "      │     the owner was lost",
            "      └─ anthropic/opus  open  attempt 2",
        ],
    );
}

#[test]
fn queued_inputs_and_an_interrupt_show() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.named(0, "Coder");
    j.ask(0, 1, 1);
    for n in [801, 802] {
        let input =
            QueuedInput { id: journal::id(n), body: Box::new(journal::message()), settings: Default::default() };
        j.put(100, EventBody::InputQueued { input });
    }
    let call = j.tool(300, "bash");
    j.answered(300, 10, 10, None);
    j.result(700, &call, Outcome::TimedOut, true, 400);
    j.put_as(2_100, journal::id(801), journal::message());
    j.ask(2_100, 2, 1);
    j.put(2_600, EventBody::UserInterrupt { session_thread_id: None });
    j.cut_off(2_600);
    j.idle(2_600, StopReason::EndTurn);
    let turn = &j.trace().root.children[0];
    assert_eq!((turn.name.as_str(), turn.cost), ("invoke_agent Coder", None));
    assert_tree(
        &j,
        &[
            "session sesn_01TRACE  1 queued                                10      10           ?",
            "└─ turn 1  interrupted  end_turn                   2.60s      10      10           ?",
            "   ├─ step 1                                       700ms      10      10           ?",
            "   │  ├─ anthropic/opus  first token 200ms         300ms      10      10           ?",
            "   │  └─ tool bash  error timed_out                400ms",
            "   └─ step 2  interrupted  input queued 2.00s      500ms       0       0   $0.000000",
            "      └─ anthropic/opus  interrupted               500ms       0       0   $0.000000",
        ],
    );
}

#[test]
fn a_limit_and_a_rejected_answer_show_and_are_no_errors() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(0, 1, 1);
    j.answered(400, 10, 12_345, Some(2_000_000));
    j.put(401, EventBody::OutputRejected { message: "`age` is missing".to_owned() });
    j.ask(401, 2, 1);
    j.answered(75_000, 1_234_567, 10, Some(1));
    j.idle(75_000, StopReason::LimitReached { limit: LimitName::OutputSchema });
    j.put(80_000, EventBody::StatusTerminated { reason: "archived by its owner".to_owned() });
    assert_tree(
        &j,
        &[
            "session sesn_01TRACE                               1m20s    1.2M   12.3k   $2.000001",
            "│  archived by its owner",
            "└─ turn 1  limit_reached: output_schema            1m15s    1.2M   12.3k   $2.000001",
            "   ├─ step 1  answer rejected                      400ms      10   12.3k   $2.000000",
            "   │  └─ anthropic/opus  first token 200ms         400ms      10   12.3k   $2.000000",
            "   └─ step 2                                       1m14s    1.2M      10   $0.000001",
            "      └─ anthropic/opus  first token 200ms         1m14s    1.2M      10   $0.000001",
        ],
    );
}

#[test]
fn ids_come_from_the_journal_and_a_turn_joins_its_callers_trace() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, Some(&format!("00-{}-{}-01", TRACE.0, TRACE.1)));
    j.ask(0, 1, 1);
    j.answered(10, 1, 1, Some(1));
    j.idle(10, StopReason::EndTurn);
    j.say(20);
    j.running(20, Some("not a traceparent"));
    j.ask(20, 1, 1);
    let trace = j.trace();
    let [joined, own] = &trace.root.children[..] else { panic!("two turns") };
    assert_eq!((joined.trace_id.as_str(), joined.parent_span_id.as_deref()), (TRACE.0, Some(TRACE.1)));
    assert_eq!((&own.trace_id, own.parent_span_id.as_ref()), (&trace.trace_id, Some(&trace.root.span_id)));
    for turn in [joined, own] {
        for span in turn.walk() {
            assert_eq!(span.trace_id, turn.trace_id);
            assert!(span.children.iter().all(|c| c.parent_span_id.as_ref() == Some(&span.span_id)));
        }
    }
    let mut ids: Vec<&str> = trace.root.walk().iter().map(|s| s.span_id.as_str()).collect();
    assert!(ids.iter().all(|id| id.len() == 16));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 7, "session, two turns, two steps, two calls: all different");
    assert_eq!(trace, j.trace(), "the same journal is the same trace");
}

#[test]
fn attributes_follow_the_conventions() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(0, 1, 1);
    let call = j.tool(100, "bash");
    let usage = loopd_domain::usage::Usage {
        input_tokens: 10,
        output_tokens: 5,
        cache_read_input_tokens: 100,
        ..Default::default()
    };
    j.end(100, RequestOutcome::Answered { stop: AnswerStop::ToolUse, stop_details: None }, usage, Some(9));
    j.result(200, &call, Outcome::Completed, false, 100);
    let trace = j.trace();
    let spans = trace.root.walk();
    let of = |kind| spans.iter().find(|s| s.kind == kind).expect("there");
    let (model, tool) = (of(SpanKind::ModelCall), of(SpanKind::ToolCall));
    assert_eq!((model.name.as_str(), tool.name.as_str()), ("chat opus", "execute_tool bash"));
    let expected = serde_json::json!({
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "opus",
        "gen_ai.response.model": "opus-20260101",
        "gen_ai.response.finish_reasons": ["tool_use"],
        "gen_ai.conversation.id": "sesn_01TRACE",
        "gen_ai.usage.input_tokens": 110,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "loopd.attempt": 1,
        "loopd.cost_micro_usd": 9,
        "loopd.first_token_ms": 200,
        "loopd.provider.request_id": "req_abc",
        "loopd.request.digest": "ab12",
    });
    assert_eq!(serde_json::to_value(&model.attributes).expect("serialises"), expected);
    let expected = serde_json::json!({
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "bash",
        "gen_ai.tool.call.id": "toolu_1",
        "gen_ai.tool.type": "extension",
        "loopd.call.effect": "room",
        "loopd.call.arguments_digest": "cd34",
        "loopd.call.id": call.as_str(),
        "loopd.call.outcome": "completed",
    });
    assert_eq!(serde_json::to_value(&tool.attributes).expect("serialises"), expected);
    assert_eq!(trace.semconv, semconv::VERSION);
}

#[test]
fn a_call_of_the_hosts_shows_the_digest_of_its_key() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(0, 1, 1);
    let call = j.call(100, "book", RunsIn::Host, Permission::Allow);
    let trace = j.trace();
    let span = trace.root.walk().into_iter().find(|s| s.kind == SpanKind::ToolCall).expect("there").clone();
    let key = loopd_domain::event::idempotency_key(&trace.session_id, &call);
    let digest = loopd_domain::chain::sha256_hex(key.as_bytes());
    assert_eq!(span.attributes[semconv::LOOPD_CALL_KEY_DIGEST], digest);
    assert!(!serde_json::to_string(&trace).expect("serialises").contains(&key));
}

#[test]
fn a_trace_survives_json_and_holds_no_content() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(0, 1, 1);
    let call = j.tool(100, "bash");
    j.answered(100, 10, 10, Some(1));
    j.result(200, &call, Outcome::Completed, false, 10);
    let json = serde_json::to_string(&j.trace()).expect("serialises");
    assert_eq!(serde_json::from_str::<Trace>(&json).expect("reads back"), j.trace());
    for content in ["hello", "/etc/secret", "what the tool said"] {
        assert!(!json.contains(content), "{content} is in the trace");
    }
}

#[test]
fn a_trace_grows_with_the_journal_and_what_has_ended_stays() {
    let mut j = Journal::new();
    for turn in 0..3 {
        let t = turn * 1_000;
        j.say(t);
        j.running(t, None);
        j.ask(t, 1, 1);
        j.failed(t + 10, "server", "oops");
        j.ask(t + 20, 1, 2);
        let call = j.tool(t + 30, "bash");
        j.answered(t + 30, 1, 1, Some(1));
        j.result(t + 40, &call, Outcome::Completed, false, 5);
        j.ask(t + 50, 2, 1);
        j.answered(t + 60, 1, 1, Some(1));
        j.idle(t + 60, StopReason::EndTurn);
    }
    let mut fold = TraceFold::new(&j.session);
    for (n, event) in j.events.iter().enumerate() {
        let before = fold.trace();
        fold.apply(event);
        let after = fold.trace();
        assert_eq!(after, Trace::of(&j.events[..=n], &j.session));
        let all = after.root.walk();
        for old in before.root.walk().into_iter().filter(|s| s.end.is_some()) {
            let new = all.iter().find(|s| s.span_id == old.span_id).expect("still there");
            assert_eq!((new.end, new.status), (old.end, old.status), "{}", old.name);
        }
    }
    assert!(fold.trace().root.children.iter().all(|t| t.status == SpanStatus::Ok && t.duration_ms == Some(60)));
}

#[test]
fn a_terminal_does_not_obey_what_a_model_wrote() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(0, 1, 1);
    j.failed(10, "server", "\u{1b}[2J\u{202e}gone\r\n\u{9b}31m");
    j.ask(20, 1, 2);
    j.call(30, "rm\u{1b}]0;title\u{7}", RunsIn::Nowhere, Permission::Allow);
    let plain = render_tree(&j.trace(), WIDTH, false);
    assert!(plain.chars().all(|c| c == '\n' || !c.is_control()), "{plain:?}");
    assert!(plain.contains("gone") && plain.contains("tool rm") && !plain.contains('\u{202e}'));
}

#[test]
fn lines_keep_to_the_width_and_colour_changes_no_text() {
    let mut j = Journal::new();
    j.say(0);
    j.running(0, None);
    j.ask(0, 1, 1);
    j.failed(10, &"class".repeat(30), &format!("{} {}", "word ".repeat(60), "x".repeat(300)));
    j.ask(20, 1, 2);
    j.call(30, &"name".repeat(100), RunsIn::Nowhere, Permission::Allow);
    j.answered(40, u64::MAX, u64::MAX, Some(u64::MAX));
    for width in [0, 60, 80, 200] {
        let plain = render_tree(&j.trace(), width, false);
        let longest = plain.lines().map(|l| l.chars().count()).max().expect("lines");
        assert!(longest <= width.max(60), "{longest} > {width}:\n{plain}");
        let coloured = render_tree(&j.trace(), width, true);
        assert!(coloured.contains("\u{1b}[31m"), "errors are red");
        let mut stripped = coloured;
        for code in [0, 1, 2, 31, 33, 36] {
            stripped = stripped.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(stripped, plain);
    }
}

#[test]
fn a_journal_without_events_is_a_session_that_did_nothing() {
    assert_tree(&Journal::new(), &["session sesn_01TRACE"]);
}
