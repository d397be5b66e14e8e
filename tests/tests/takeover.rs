//! A data directory passes on: from a server that stops, from one that is asked to, and from one that shows no sign of life.

use loopd_tests::http::{Frame, Stream};
use loopd_tests::script::{invocation, runs, says};
use loopd_tests::server::{Options, Signal};
use loopd_tests::{Http, Server};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// Far below the real one, and far above what a busy machine makes of a sign of life every third of it.
const LEASE: Duration = Duration::from_millis(3_000);
const ANY_PORT: &str = "127.0.0.1:0";
/// Exit code of a server whose directory another one has taken.
const REPLACED: i32 = 9;

fn server() -> Server {
    Server::with(Options::default().env("LOOPD_LEASE_MS", &LEASE.as_millis().to_string()))
}

/// A turn of some seconds, seen up to its first result.
async fn turn(http: &Http) -> (Stream, Vec<Frame>, String) {
    let mut steps: Vec<Value> = (1..=5)
        .map(|n| {
            let mut step = runs(&format!("sleep 0.2; echo {n}"));
            step["delay_ms"] = json!(200);
            step
        })
        .collect();
    steps.push(says("the end"));
    let mut stream = http.invoke_stream(invocation(steps)).await;
    let seen = stream.until(|frame| frame.event == "agent.tool_result").await;
    let session = seen[0].data["session_id"].as_str().expect("a session").to_owned();
    // The model takes its time now, so nothing is written: who is stopped here sleeps on no lock.
    sleep(Duration::from_millis(50)).await;
    (stream, seen, session)
}

/// The turn came to its end, and what was told before is what is kept.
async fn is_complete(http: &Http, seen: &[Frame], session: &str) {
    http.until_idle(session).await;
    let events = http.events(session).await;
    let idle = events.last().expect("events");
    assert_eq!((&idle["type"], &idle["stop_reason"]["type"]), (&json!("session.status_idle"), &json!("end_turn")));
    let told: Vec<&str> = seen.iter().filter_map(|f| f.seq.and(f.data["id"].as_str())).collect();
    let kept: Vec<&str> = events.iter().filter_map(|e| e["id"].as_str()).collect();
    assert_eq!(kept[..told.len()], told);
}

/// Starts a successor on a thread of its own, since it waits until that serves.
async fn succeeded(server: Server, listen: String, args: &'static [&'static str]) -> (Server, Server) {
    let start = move || {
        let successor = server.successor(&listen, args);
        (server, successor)
    };
    tokio::task::spawn_blocking(start).await.expect("it serves")
}

#[tokio::test]
async fn a_server_that_stops_is_waited_for() {
    let server = server();
    let (mut stream, seen, session) = turn(&server.http()).await;
    server.signal(Signal::TERM);
    let address = server.address().to_owned();
    let (mut server, successor) = succeeded(server, address, &[]).await;
    assert_eq!(server.ended(), Some(0));
    assert!(stream.until_end().await.iter().all(|frame| frame.event != "error"), "the stream ends, and is not cut");
    is_complete(&successor.http(), &seen, &session).await;
}

#[tokio::test]
async fn a_server_that_works_is_asked_to_stop() {
    let server = server();
    let (_stream, seen, session) = turn(&server.http()).await;
    let address = server.address().to_owned();
    let (mut server, successor) = succeeded(server, address, &["--take-over"]).await;
    assert_eq!(server.ended(), Some(0));
    is_complete(&successor.http(), &seen, &session).await;
}

#[tokio::test]
async fn a_server_that_sleeps_is_replaced_and_ends_when_it_wakes() {
    let server = server();
    let (_stream, seen, session) = turn(&server.http()).await;
    server.signal(Signal::STOP);
    sleep(LEASE).await;
    let (mut server, successor) = succeeded(server, ANY_PORT.to_owned(), &[]).await;
    let http = successor.http();
    is_complete(&http, &seen, &session).await;
    let before = http.events(&session).await;

    server.signal(Signal::CONT);
    assert_eq!(server.ended(), Some(REPLACED), "it found out by itself");
    assert_eq!(http.events(&session).await, before, "it changed nothing");
    let next = json!({"session": session, "input": "again"});
    assert_eq!(http.invoke(next).await["status"], "completed", "its successor is unharmed");
}

#[tokio::test]
async fn a_server_that_sleeps_on_the_address_is_ended() {
    let server = server();
    server.http().shell("true").await;
    server.signal(Signal::STOP);
    sleep(LEASE).await;
    let address = server.address().to_owned();
    let (mut server, successor) = succeeded(server, address.clone(), &[]).await;
    assert_eq!((successor.address(), server.ended()), (address.as_str(), None));
    successor.http().shell("true").await;
}
