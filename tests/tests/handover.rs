//! Deploys and crashes of the server under running tools: rooms live on, and the next server goes on with them.

use loopd_tests::http::{Frame, fenced, text, tool_results};
use loopd_tests::script::{invocation, runs, says};
use loopd_tests::server::Signal;
use loopd_tests::{Http, Server};
use serde_json::{Value, json};
use std::time::Duration;

/// A turn whose only command takes a while and leaves its mark.
fn long_turn(seconds: f64) -> Value {
    let command = format!("echo begun >> marks; sleep {seconds}; echo ended >> marks; cat marks");
    let mut body = invocation(vec![runs(&command), says("{{last_result}}")]);
    body["background"] = json!(true);
    body
}

async fn begin(http: &Http, body: Value) -> String {
    let accepted = http.post("/v1/invoke", body).await.ok();
    let session = accepted["session_id"].as_str().expect("a session").to_owned();
    let mut stream = http.follow(&session, 0).await;
    stream.until(|frame: &Frame| frame.event == "agent.tool_use").await;
    // The command itself is under way, too.
    tokio::time::sleep(Duration::from_millis(200)).await;
    session
}

async fn went_on(http: &Http, session: &str) -> Vec<Value> {
    http.until_idle(session).await;
    let events = http.events(session).await;
    let results = tool_results(&events);
    assert_eq!(results.len(), 1);
    assert_eq!(results[0]["outcome"], "completed", "{}", results[0]);
    assert_eq!(text(&results[0]["content"]), "begun\nended\n", "it ran once, to its end");
    assert_eq!(events.last().expect("events")["stop_reason"]["type"], "end_turn");
    events
}

fn recoveries(events: &[Value]) -> Vec<(String, u64)> {
    let recovered = events.iter().filter(|e| e["type"] == "loopd.session_recovered");
    recovered.map(|e| (text_of(&e["message"]), e["recoveries"].as_u64().expect("a number"))).collect()
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_command_outlives_a_server_that_is_killed() {
    let mut server = Server::start();
    let session = begin(&server.http(), long_turn(2.0)).await;
    server.kill();
    server.start_again();
    let events = went_on(&server.http(), &session).await;
    assert_eq!(recoveries(&events), [("the server that ran it ended; the room lives on".to_owned(), 1)]);
}

#[tokio::test]
async fn a_command_that_ends_while_no_server_is_there_has_its_result() {
    let mut server = Server::start();
    let session = begin(&server.http(), long_turn(0.5)).await;
    server.kill();
    tokio::time::sleep(Duration::from_millis(800)).await;
    server.start_again();
    went_on(&server.http(), &session).await;
}

#[tokio::test]
async fn a_deploy_is_no_recovery() {
    let mut server = Server::start();
    let session = begin(&server.http(), long_turn(3.0)).await;
    for _ in 0..2 {
        assert_eq!(server.terminate(), Some(0));
        server.start_again();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let events = went_on(&server.http(), &session).await;
    let handed_over = ("the server that ran it was stopped; the room lives on".to_owned(), 0);
    assert_eq!(recoveries(&events), [handed_over.clone(), handed_over]);
}

#[tokio::test]
async fn a_shell_at_rest_outlives_a_deploy() {
    let mut server = Server::start();
    let answer = server.http().shell("cd /tmp; x=kept; sleep 300 & echo $!").await;
    let session = answer["session_id"].as_str().expect("a session").to_owned();
    assert_eq!(server.terminate(), Some(0));
    server.start_again();
    let next = json!({"session": session, "input": fenced("pwd; echo $x; jobs -r | wc -l")});
    let answer = server.http().invoke(next).await;
    assert!(text(&answer["output"]).contains("/tmp\nkept\n1\n"), "{}", answer["output"]);
}

#[tokio::test]
async fn ctrl_c_ends_rooms_and_what_ran_is_unknown() {
    let mut server = Server::start();
    let session = begin(&server.http(), long_turn(30.0)).await;
    server.signal(Signal::INT);
    server.ended();
    server.start_again();
    let http = server.http();
    http.until_idle(&session).await;
    let results = http.events(&session).await;
    let results = tool_results(&results);
    assert_eq!(results[0]["outcome"], "unknown", "{}", results[0]);
    assert!(text(&results[0]["content"]).contains("the server that ran it was stopped"), "{}", results[0]);
}

#[tokio::test]
async fn an_interrupt_that_was_acknowledged_ends_the_command_after_a_crash() {
    let mut server = Server::start();
    let looks = "cat marks; pgrep -c sleep || true";
    let mut body = invocation(vec![runs("echo begun >> marks; sleep 60"), runs(looks), says("{{last_result}}")]);
    body["background"] = json!(true);
    let session = begin(&server.http(), body).await;
    let interrupt = json!({"events": [{"type": "user.interrupt"}]});
    let sent = server.http().post(&format!("/v1/sessions/{session}/events"), interrupt).await.ok();
    assert!(sent["data"].is_array(), "{sent}");
    // At once: its loop may or may not have heard of it.
    server.kill();
    server.start_again();
    let http = server.http();
    http.until_idle(&session).await;
    let events = http.events(&session).await;
    let results = tool_results(&events);
    assert_eq!(results[0]["outcome"], "interrupted", "{}", results[0]);
    let answer = http.invoke(json!({"session": session, "input": "look"})).await;
    assert!(text(&answer["output"]).contains("begun\n0\n"), "nothing of it runs on: {}", answer["output"]);
}

#[tokio::test]
async fn a_hundred_commands_outlive_a_deploy() {
    const SESSIONS: usize = 100;
    let mut server = Server::start();
    let http = server.http();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let accepted = http.post("/v1/invoke", long_turn(8.0)).await.ok();
        sessions.push(accepted["session_id"].as_str().expect("a session").to_owned());
    }
    for session in &sessions {
        let mut stream = http.follow(session, 0).await;
        stream.until(|frame: &Frame| frame.event == "agent.tool_use").await;
    }
    assert_eq!(server.terminate(), Some(0));
    server.start_again();
    let http = server.http();
    for session in &sessions {
        let events = went_on(&http, session).await;
        assert_eq!(recoveries(&events).len(), 1);
    }
}
