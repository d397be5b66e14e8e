//! An owner that was stopped for longer than its lease comes back with its hands full: an answer of the model that asks for a
//! call, a tool that has ended, a client that says something. Everything it tries is refused, and it ends itself.
//!
//! What each wall refuses by itself has tests of its own: the store (`conformance/ownership.rs`), the room
//! (`sandbox/conformance`), the cell (`cell/tests`).

use loopd_tests::http::{text, tool_results};
use loopd_tests::provider::{Provider, Reply};
use loopd_tests::server::{Options, Signal};
use loopd_tests::{PATIENCE, Server};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const LEASE: Duration = Duration::from_millis(3_000);
/// Exit code of a server whose directory another one has taken.
const REPLACED: i32 = 9;

fn server() -> Server {
    Server::with(Options::default().env("LOOPD_LEASE_MS", &LEASE.as_millis().to_string()))
}

async fn until_told(server: &Server, session: &str, kind: &str) {
    while !server.http().events(session).await.iter().any(|event| event["type"] == kind) {
        sleep(Duration::from_millis(20)).await;
    }
}

/// A server on the same directory, started on a thread of its own because that waits until it serves.
async fn succeeded(server: Server) -> (Server, Server) {
    let start = move || {
        let successor = server.successor("127.0.0.1:0", &[]);
        (server, successor)
    };
    tokio::task::spawn_blocking(start).await.expect("it serves")
}

#[tokio::test(flavor = "multi_thread")]
async fn its_answer_is_not_written_its_call_not_run_and_no_model_asked() {
    let server = server();
    // The first question's answer reaches a server that is stopped, and lies in its socket when it wakes.
    let provider = Provider::start(|n| match n {
        0 => Reply::runs("echo zombie >> /workspace/effects").after(Duration::from_millis(500)),
        1 => Reply::runs("echo heir >> /workspace/effects; cat /workspace/effects"),
        _ => Reply::answer("by the heir"),
    });
    let provider = provider.await;
    let body = json!({"model": provider.model(), "input": "go", "background": true});
    let session = server.http().invoke(body).await["session_id"].as_str().expect("a session").to_owned();
    provider.asked(1).await;
    // It is asked while that is being written (ADR 10); one that stops with the database locked is ended by its heir.
    until_told(&server, &session, "span.model_request_start").await;
    server.signal(Signal::STOP);
    sleep(LEASE + Duration::from_millis(500)).await;
    let (mut server, successor) = succeeded(server).await;
    let http = successor.http();
    http.until_idle(&session).await;
    let before = http.events(&session).await;

    server.signal(Signal::CONT);
    assert_eq!(server.ended(), Some(REPLACED), "it ends itself and says why");
    assert_eq!(http.events(&session).await, before, "it wrote nothing");
    assert_eq!(provider.requests(), 3, "it asked nothing");
    let results: Vec<String> = tool_results(&before).iter().map(|r| text(&r["content"]).trim().to_owned()).collect();
    assert_eq!(results, ["heir"], "it ran nothing");
    let look = json!({"session": session, "input": "look"});
    assert_eq!(http.invoke(look).await["status"], "completed", "the session is its heir's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_it_finds_when_it_wakes_is_not_asked() {
    let server = server();
    // The command ends while the server is stopped: its result, and the loop's next question, lie in its socket when it wakes.
    let provider = Provider::start(|n| match n {
        0 => Reply::runs("sleep 1; echo once >> /workspace/effects; cat /workspace/effects"),
        _ => Reply::answer("by the heir"),
    });
    let provider = provider.await;
    let body = json!({"model": provider.model(), "input": "go", "background": true});
    let session = server.http().invoke(body).await["session_id"].as_str().expect("a session").to_owned();
    until_told(&server, &session, "agent.tool_use").await;
    server.signal(Signal::STOP);
    sleep(LEASE + Duration::from_millis(500)).await;
    let (mut server, successor) = succeeded(server).await;
    let http = successor.http();
    http.until_idle(&session).await;
    let before = http.events(&session).await;

    server.signal(Signal::CONT);
    assert_eq!(server.ended(), Some(REPLACED));
    assert_eq!(http.events(&session).await, before, "it wrote nothing");
    assert_eq!(provider.requests(), 2, "it asked nothing");
    let results: Vec<String> = tool_results(&before).iter().map(|r| text(&r["content"]).trim().to_owned()).collect();
    assert_eq!(results, ["once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_ran_meanwhile_reports_to_the_heir_alone() {
    let server = server();
    let steps = json!({"steps": [
        {"tools": [{"name": "bash", "input": {"command": "sleep 5; echo once >> /workspace/effects; cat /workspace/effects"}}]},
        {"tools": [{"name": "bash", "input": {"command": "cat /workspace/effects"}}]},
        {"text": "{{last_result}}"},
    ]});
    let body = json!({"model": "builtin/script", "system": steps.to_string(), "input": "go"});
    let mut stream = server.http().invoke_stream(body).await;
    let seen = stream.until(|frame| frame.event == "agent.tool_use").await;
    let session = seen[0].data["session_id"].as_str().expect("a session").to_owned();
    sleep(Duration::from_millis(100)).await;
    server.signal(Signal::STOP);
    sleep(LEASE + Duration::from_millis(500)).await;
    let (mut server, successor) = succeeded(server).await;
    // Awake while the tool still runs: what it would send to the room, or read from it, goes nowhere.
    server.signal(Signal::CONT);
    let ended = timeout(PATIENCE, tokio::task::spawn_blocking(move || server.ended())).await.expect("in time");
    assert_eq!(ended.expect("it ends"), Some(REPLACED));
    let http = successor.http();
    http.until_idle(&session).await;
    let events = http.events(&session).await;
    let results: Vec<(String, &Value)> =
        tool_results(&events).into_iter().map(|r| (text(&r["content"]).trim().to_owned(), &r["outcome"])).collect();
    let done = json!("completed");
    assert_eq!(
        results,
        [("once".to_owned(), &done), ("once".to_owned(), &done)],
        "run once, and its result taken once"
    );
}
