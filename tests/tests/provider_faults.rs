//! Providers that fail in the middle of a turn: what was done stays done, what was half said is not acted on, and a wait for
//! the provider outlives the server.

use loopd_tests::http::{text, tool_results};
use loopd_tests::provider::{Provider, Reply, Then};
use loopd_tests::server::Options;
use loopd_tests::{Http, Server};
use serde_json::{Value, json};
use std::time::Duration;

fn server() -> Server {
    Server::with(Options::default().config("[models]\nsilence_seconds = 1\n"))
}

async fn turn(http: &Http, provider: &Provider) -> (Value, Vec<Value>) {
    let body = json!({"model": provider.model(), "input": "hi", "limits": {"seconds": 50}});
    let answer = http.invoke(body).await;
    let events = http.events(answer["session_id"].as_str().expect("a session")).await;
    (answer, events)
}

fn effects(events: &[Value]) -> Vec<String> {
    tool_results(events).iter().map(|result| text(&result["content"]).trim().to_owned()).collect()
}

/// First a call, then this fault, then a proper end.
async fn survives(what: &str, fault: Reply) {
    let server = server();
    let provider = Provider::start(move |n| match n {
        0 => Reply::runs("echo ran >> /workspace/runs; cat /workspace/runs"),
        1 => fault.clone(),
        _ => Reply::answer("the end"),
    });
    let provider = provider.await;
    let (answer, events) = turn(&server.http(), &provider).await;
    assert_eq!(answer["status"], "completed", "{what}: {answer}");
    assert_eq!(text(&answer["output"]), "the end", "{what}");
    assert_eq!((provider.requests(), answer["steps"].as_u64()), (3, Some(2)), "{what}: the step is tried again, once");
    assert_eq!(effects(&events), ["ran"], "{what}: the call before it is not repeated");
    let retries = events.iter().filter(|e| e["error"]["retry_status"]["type"] == "retrying").count();
    assert_eq!(retries, 1, "{what}: the retry is seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_mid_turn() {
    survives("a reset before the answer", Reply::nothing(Then::Reset)).await;
    survives("a reset in mid-answer", Reply::stream(&[Reply::piece("half")], Then::Reset)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_in_mid_turn() {
    survives("a hang before the answer", Reply::nothing(Then::Hang)).await;
    survives("a hang in mid-answer", Reply::stream(&[Reply::piece("half")], Then::Hang)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_mid_turn() {
    survives("a page", Reply::status(200, "text/html", "<html>Welcome to nginx</html>")).await;
    survives("no chunks", Reply::stream(&[json!({"surprise": true})], Then::Close)).await;
    survives("half a stream", Reply::stream(&[Reply::piece("half an ans")], Then::Close)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_in_mid_turn() {
    survives("429", Reply::limited(429, 1)).await;
    survives("529", Reply::error(529, "overloaded")).await;
    survives("503", Reply::error(503, "busy")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_half_said_is_not_run() {
    let server = server();
    let whole = json!({"command": "echo half >> /workspace/runs"}).to_string();
    let provider = Provider::start(move |n| match n {
        // All of the arguments, but not the end of the answer.
        0 => Reply::stream(&[Reply::call_piece(&whole)], Then::Close),
        1 => Reply::stream(&[Reply::call_piece("{\"command\": \"echo half >> /work")], Then::Reset),
        2 => Reply::runs("cat /workspace/runs || echo nothing"),
        _ => Reply::answer("the end"),
    });
    let provider = provider.await;
    let (answer, events) = turn(&server.http(), &provider).await;
    assert_eq!(text(&answer["output"]), "the end", "{answer}");
    let said = effects(&events);
    assert!(said.len() == 1 && said[0].contains("nothing"), "{said:?}");
    assert_eq!(events.iter().filter(|e| e["type"] == "agent.tool_use").count(), 1);
}

/// The wait that a provider asked for is kept by whoever owns the session when it is over, and by nobody before.
async fn waits_across(end: impl Fn(&mut Server), status: u16) {
    const WAIT: Duration = Duration::from_secs(4);
    let mut server = server();
    let provider =
        Provider::start(
            move |n| if n == 0 { Reply::limited(status, WAIT.as_secs()) } else { Reply::answer("at last") },
        );
    let provider = provider.await;
    let body = json!({"model": provider.model(), "input": "hi", "background": true});
    let answer = server.http().invoke(body).await;
    let session = answer["session_id"].as_str().expect("a session").to_owned();
    let mut stream = server.http().follow(&session, 0).await;
    let seen = stream.until(|frame| frame.event == "session.status_rescheduled").await;
    assert!(seen.last().is_some_and(|frame| frame.data["retry_at"].is_string()), "when is said");
    end(&mut server);
    server.start_again();
    let http = server.http();
    assert_eq!(http.status(&session).await, "rescheduling", "{status}: it waits on");
    http.until_idle(&session).await;
    let arrivals = provider.arrivals();
    assert_eq!(arrivals.len(), 2, "{status}: asked once before and once after the wait");
    let waited = arrivals[1] - arrivals[0];
    assert!(waited >= WAIT - Duration::from_millis(50), "{status}: asked again after {waited:?}");
    assert!(waited < WAIT * 3, "{status}: asked again only after {waited:?}");
    let events = http.events(&session).await;
    let said = events.iter().rfind(|e| e["type"] == "agent.message").expect("an answer");
    assert_eq!(text(&said["content"]), "at last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_outlives_a_server_that_is_killed() {
    waits_across(Server::kill, 429).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overload_outlives_a_server_that_is_stopped() {
    waits_across(|server| assert_eq!(server.terminate(), Some(0)), 529).await;
}
