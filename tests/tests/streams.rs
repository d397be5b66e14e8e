//! Stream torture: many followers, slow ones, ones that come and go; and clients that repeat themselves or hang up.
//!
//! What is promised: whoever follows sees every event once and in order, however often the connection is lost; a reader that
//! does not read costs the session nothing and the server a bounded amount of memory.

use loopd_tests::http::{Frame, fenced, text};
use loopd_tests::script::{invocation, runs, says};
use loopd_tests::{Http, PATIENCE, Server};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const FOLLOWERS: u64 = 200;
/// Memory that a follower of small events may cost the server.
const FOLLOWER_KIB_MAX: u64 = 256;
/// Memory that a reader of large events may cost the server when it does not read: a page of the journal, what may wait in
/// its stream (1 MiB), and the connection's own buffers.
const DEAF_KIB_MAX: u64 = 3 << 10;

/// A turn of many small steps, in the background; the session's id.
async fn long_turn(http: &Http, steps: usize, command: &str) -> String {
    let mut plan: Vec<Value> = vec![runs(command); steps];
    plan.push(says("{{last_result}}"));
    let mut body = invocation(plan);
    body["background"] = json!(true);
    http.invoke(body).await["session_id"].as_str().expect("a session").to_owned()
}

/// Follows to the end of the turn. Reads some frames, then leaves and comes back after the last one seen.
async fn restless(http: Http, session: String, number: u64) -> Vec<(u64, String)> {
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |end: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % end
    };
    let mut seen: Vec<(u64, String)> = Vec::new();
    loop {
        let mut stream = http.follow(&session, seen.last().map_or(0, |last| last.0)).await;
        for _ in 0..1 + next(40) {
            let Some(frame) = stream.next().await else { break };
            let Some(seq) = frame.seq else { continue };
            seen.push((seq, frame.data["id"].as_str().expect("an id").to_owned()));
            if frame.event == "session.status_idle" {
                return seen;
            }
            // Every fifth one is slow.
            if number.is_multiple_of(5) {
                sleep(Duration::from_millis(next(8))).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_followers_see_every_event_once_and_in_order() {
    let server = Server::start();
    let http = server.http();
    // The room, the store and the first connections are there before memory is compared.
    http.shell("true").await;
    let before = memory_kib(server.pid(), "VmRSS");
    let session = long_turn(&http, 40, "echo step").await;
    let mut followers = JoinSet::new();
    for number in 0..FOLLOWERS {
        followers.spawn(restless(http.clone(), session.clone(), number));
    }
    let all = timeout(PATIENCE, followers.join_all()).await.expect("every follower sees the end");
    let mut listed = Vec::new();
    for event in http.events(&session).await {
        listed.push(event["id"].as_str().expect("an id").to_owned());
    }
    for seen in all {
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order: {seen:?}");
        let ids: Vec<String> = seen.into_iter().map(|(_, id)| id).collect();
        assert_eq!(ids, listed, "each once, none left out");
    }
    let grown = memory_kib(server.pid(), "VmHWM").saturating_sub(before);
    println!("{FOLLOWERS} followers: {grown} KiB");
    assert!(grown < FOLLOWERS * FOLLOWER_KIB_MAX, "{FOLLOWERS} followers made the server grow by {grown} KiB");
}

/// A follower that asked for the stream and reads nothing of it.
async fn deaf(url: &str, session: &str) -> TcpStream {
    let address = url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!(
        "GET /v1/sessions/{session}/events/stream?event_deltas[]=agent.message HTTP/1.1\r\nhost: {address}\r\nlast-event-id: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_hold_up_nobody() {
    const DEAF: u64 = 24;
    const STEPS: usize = 90;
    // 90 results of some 60 KB: 5.4 MB for each reader.
    let command = "head -c 60000 /dev/zero | tr '\\0' x";
    let server = Server::start();
    let http = server.http();
    let alone = Instant::now();
    let session = long_turn(&http, STEPS, command).await;
    http.until_idle(&session).await;
    let alone = alone.elapsed();

    let before = memory_kib(server.pid(), "VmRSS");
    let watched = Instant::now();
    let session = long_turn(&http, STEPS, command).await;
    let mut readers = Vec::new();
    for _ in 0..DEAF {
        readers.push(deaf(server.url(), &session).await);
    }
    http.until_idle(&session).await;
    let watched = watched.elapsed();
    assert!(watched < alone * 4 + Duration::from_secs(2), "{watched:?} with deaf readers, {alone:?} without");
    let grown = memory_kib(server.pid(), "VmHWM").saturating_sub(before);
    println!("{DEAF} deaf readers: {grown} KiB");
    assert!(grown < DEAF * DEAF_KIB_MAX, "{DEAF} deaf readers made the server grow by {grown} KiB");

    // The one that reads at last has missed nothing.
    let seen = read_ids(readers.pop().expect("a reader")).await;
    let listed: Vec<String> = http.events(&session).await.iter().map(id).collect();
    assert_eq!(seen, listed);
    drop(readers);
    goes_on(&http).await;
}

/// Ids of the journal's entries on a raw stream, up to the end of the turn.
async fn read_ids(mut stream: TcpStream) -> Vec<String> {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4_096)..]).contains("session.status_idle") {
        let read = timeout(PATIENCE, stream.read_buf(&mut bytes)).await.expect("it goes on").expect("whole");
        assert!(read > 0, "the stream ended early");
    }
    // The rest of the last frame.
    sleep(Duration::from_millis(100)).await;
    drop(timeout(Duration::from_millis(100), stream.read_buf(&mut bytes)).await);
    // Chunk headers of HTTP/1.1 stand between frames, which are written whole.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    events.filter(|event| event["processed_at"].is_string()).map(|event| id(&event)).collect()
}

#[tokio::test]
async fn a_turn_goes_on_when_its_only_reader_hangs_up() {
    let server = Server::start();
    let http = server.http();
    let body = invocation(vec![runs("sleep 0.4; echo on"), says("{{last_result}}")]);
    let mut stream = http.invoke_stream(body).await;
    let seen = stream.until(|frame: &Frame| frame.event == "agent.tool_use").await;
    drop(stream);
    let session = seen[0].data["session_id"].as_str().expect("a session").to_owned();
    http.until_idle(&session).await;
    let events = http.events(&session).await;
    let said = events.iter().rfind(|e| e["type"] == "agent.message").expect("an answer");
    assert!(text(&said["content"]).contains("on"), "{said}");
}

#[tokio::test]
async fn a_request_that_was_cut_in_half_has_no_effect() {
    let server = Server::start();
    let http = server.http();
    let body = json!({"model": "builtin/shell", "input": fenced("true"), "background": true}).to_string();
    let address = server.url().strip_prefix("http://").expect("an address").to_owned();
    for sent in [0, 1, body.len() / 2, body.len() - 1] {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        let head = format!("POST /v1/invoke HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n");
        let request = format!("{head}content-length: {}\r\n\r\n{}", body.len(), &body[..sent]);
        stream.write_all(request.as_bytes()).await.expect("written");
    }
    sleep(Duration::from_millis(200)).await;
    let sessions = http.get("/v1/sessions").await.ok();
    assert_eq!(sessions["data"], json!([]), "half a request makes no session");
    goes_on(&http).await;
}

#[tokio::test]
async fn a_repeated_post_has_one_effect_across_a_kill() {
    let mut server = Server::start();
    let body = json!({"model": "builtin/shell", "input": fenced("echo once"), "background": true});
    let named = [("idempotency-key", "torture-1")];
    let retried = |count: &'static str| [("x-stainless-retry-count", count)];
    let http = server.http();
    let first = http.post_with("/v1/invoke", &named, body.clone()).await.ok();
    let unnamed = http.post_with("/v1/invoke", &retried("0"), body.clone()).await.ok();
    server.kill();
    server.start_again();
    let http = server.http();
    let again = http.post_with("/v1/invoke", &named, body.clone()).await.ok();
    assert_eq!(again["session_id"], first["session_id"], "the same key");
    let again = http.post_with("/v1/invoke", &retried("1"), body.clone()).await.ok();
    assert_eq!(again["session_id"], unnamed["session_id"], "an official client's retry of the same body");
    let other = http.post_with("/v1/invoke", &[], body).await.ok();
    assert_ne!(other["session_id"], unnamed["session_id"], "two requests on purpose are two");
    for answer in [&first, &unnamed, &other] {
        let session = answer["session_id"].as_str().expect("a session");
        http.until_idle(session).await;
        let messages = http.events(session).await.iter().filter(|e| e["type"] == "user.message").count();
        assert_eq!(messages, 1, "{session}");
    }
}

/// After whatever was done to it, the server works.
async fn goes_on(http: &Http) {
    let answer = http.shell("echo fine").await;
    assert!(text(&answer["output"]).contains("fine"), "{answer}");
}

fn id(event: &Value) -> String {
    event["id"].as_str().expect("an id").to_owned()
}

/// A line of the process's `/proc/<pid>/status`, in KiB.
fn memory_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).expect("a number of KiB")
}
