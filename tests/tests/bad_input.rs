//! Bad input of every kind: each is a clear error or event that says what to do, and the server and its other sessions go on.

use loopd_tests::http::text;
use loopd_tests::provider::{Provider, Reply, Then};
use loopd_tests::script::{calls, fails, invocation, runs, says};
use loopd_tests::server::Options;
use loopd_tests::{Http, Server};
use reqwest::Method;
use serde_json::{Value, json};

const INVALID: &str = "invalid_request_error";

/// After whatever was sent, a session of somebody else still works.
async fn goes_on(http: &Http) {
    let answer = http.shell("echo fine").await;
    assert!(text(&answer["output"]).contains("fine"), "{answer}");
}

/// The message of a refused invocation.
#[track_caller]
fn refused(answer: loopd_tests::http::Answer, needles: &[&str]) {
    let message = answer.refused(400, INVALID);
    for needle in needles {
        assert!(message.contains(needle), "`{needle}` is not in: {message}");
    }
}

#[tokio::test]
async fn models_that_cannot_be_called() {
    let server = Server::start();
    let http = server.http();
    let invoke = |model: Value| http.post("/v1/invoke", json!({"model": model, "input": "hi"}));
    refused(invoke(json!("nobody/x")).await, &["`nobody`", "builtin/…", "anthropic/…"]);
    refused(invoke(json!("nonsense")).await, &["`nonsense`", "provider/name"]);
    refused(invoke(json!("builtin/nothing")).await, &["`nothing`", "builtin/shell"]);
    refused(invoke(json!("anthropic/claude-x")).await, &["ANTHROPIC_API_KEY"]);
    refused(invoke(json!({"id": "builtin/shell", "effor": "low"})).await, &["effor", "effort"]);
    refused(http.post("/v1/invoke", json!({"input": "hi"})).await, &["model"]);
    goes_on(&http).await;
}

#[tokio::test]
async fn tools_that_are_not_there() {
    let server = Server::start();
    let http = server.http();
    let body = json!({"model": "builtin/shell", "input": "hi", "tools": ["bsh"]});
    refused(http.post("/v1/invoke", body).await, &["`bsh`", "bash"]);

    let answer = http.invoke(invocation(vec![calls("fly", json!({})), says("{{last_result}}")])).await;
    assert_eq!(answer["status"], "completed", "a model that asks for it is told, and can go on");
    let told = text(&answer["output"]);
    assert!(told.contains("fly") && told.contains("bash"), "{told}");

    let torn = json!({"tools": [{"name": "bash", "raw_input": "{\"command\": \"echo"}]});
    let answer = http.invoke(invocation(vec![torn, runs("echo mended"), says("{{last_result}}")])).await;
    assert!(text(&answer["output"]).contains("mended"), "{answer}");
    goes_on(&http).await;
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let server = Server::start();
    let http = server.http();
    let send = |bytes: &[u8]| http.send(Method::POST, "/v1/invoke", &[], Some(bytes.to_vec()));
    refused(send(b"{\"model\": 7, \"input\": \"hi\"}").await, &["`model`"]);
    refused(send(b"{\"model\": \"builtin/shell\", \"input\": {\"a\": 1}}").await, &["`input`"]);
    refused(
        send(b"{\"model\": \"builtin/shell\", \"input\": \"hi\", \"sytem\": \"x\"}").await,
        &["`sytem`", "`system`"],
    );
    refused(send(b"{\"model\": \"builtin/shell\", \"model\": \"x\", \"input\": \"hi\"}").await, &["`model`", "twice"]);
    refused(send(b"{\"model\": \"builtin/\xff\", \"input\": \"hi\"}").await, &["UTF-8", "byte"]);
    refused(send(b"{\"model\": ").await, &["JSON"]);
    refused(send(b"[1, 2]").await, &["object"]);
    refused(send(b"").await, &["input"]);
    let deep = format!("{{\"input\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    refused(send(deep.as_bytes()).await, &["deep", "64"]);
    goes_on(&http).await;
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let server = Server::start();
    let http = server.http();
    let body = json!({"model": "builtin/shell", "input": "x".repeat(33 << 20)}).to_string();
    let answer = http.send(Method::POST, "/v1/invoke", &[], Some(body.into_bytes())).await;
    assert!(answer.refused(413, "request_too_large").contains("33554432"), "{}", answer.text);
    let many: Vec<Value> = (0..51).map(|_| json!({"type": "user.message", "content": []})).collect();
    let made = http.shell("true").await;
    let path = format!("/v1/sessions/{}/events", made["session_id"].as_str().expect("a session"));
    refused(http.post(&path, json!({"events": many})).await, &["events", "50"]);
    let long_header = "x".repeat(100_000);
    let answer = http.send(Method::GET, "/v1/agents", &[("x-long", &long_header)], None).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    goes_on(&http).await;
}

#[tokio::test]
async fn ids_of_nothing() {
    let server = Server::start();
    let http = server.http();
    let gone = [
        "/v1/sessions/sesn_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "/v1/sessions/sesn_01ARZ3NDEKTSV4RRFFQ69G5FAV/events",
        "/v1/sessions/sesn_01ARZ3NDEKTSV4RRFFQ69G5FAV/events/stream",
        "/v1/sessions/sesn_01ARZ3NDEKTSV4RRFFQ69G5FAV/trace",
        "/v1/agents/agent_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "/v1/environments/env_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "/v1/sessions/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/models/nobody",
        "/v1/nothing",
    ];
    for path in gone {
        http.get(path).await.refused(404, "not_found_error");
    }
    let body = json!({"session": "sesn_01ARZ3NDEKTSV4RRFFQ69G5FAV", "input": "hi"});
    http.post("/v1/invoke", body).await.refused(404, "not_found_error");
    let body = json!({"agent": "agent_01ARZ3NDEKTSV4RRFFQ69G5FAV", "input": "hi"});
    let answer = http.post("/v1/invoke", body).await;
    assert!(matches!(answer.status, 400 | 404), "{}", answer.text);
    let answer = http.send(Method::PUT, "/v1/agents", &[], Some(b"{}".to_vec())).await;
    assert_eq!(answer.status, 405, "{}", answer.text);
    goes_on(&http).await;
}

#[tokio::test]
async fn a_second_turn_while_one_runs() {
    let server = Server::start();
    let http = server.http();
    let mut body = invocation(vec![runs("sleep 1"), says("first"), says("second")]);
    body["background"] = json!(true);
    let running = http.invoke(body).await;
    let session = &running["session_id"];
    let second = json!({"session": session, "input": "more", "if_running": "reject"});
    let answer = http.post("/v1/invoke", second).await;
    assert!(answer.refused(409, "conflict_error").contains("run"), "{}", answer.text);
    assert_eq!(answer.headers["x-should-retry"], "false");

    let queued = http.invoke(json!({"session": session, "input": "more"})).await;
    assert_eq!(queued["status"], "completed", "{queued}");
    let delete = http.delete(&format!("/v1/sessions/{}", session.as_str().expect("an id"))).await;
    assert!(delete.status == 200, "idle again: {}", delete.text);
    goes_on(&http).await;
}

#[tokio::test]
async fn events_that_do_not_fit_the_session() {
    let server = Server::start();
    let http = server.http();
    let made = http.shell("true").await;
    let path = format!("/v1/sessions/{}/events", made["session_id"].as_str().expect("a session"));
    let send = |event: Value| http.post(&path, json!({"events": [event]}));
    refused(send(json!({"type": "user.mesage", "content": []})).await, &["user.mesage"]);
    refused(send(json!({"type": "agent.message", "content": []})).await, &["agent.message"]);
    let result = json!({"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "content": []});
    refused(send(result).await, &["sevt_01ARZ3NDEKTSV4RRFFQ69G5FAV"]);
    refused(send(json!({"type": "user.message", "content": [{"type": "txt", "text": "x"}]})).await, &["txt"]);
    goes_on(&http).await;
}

/// What becomes of a turn whose provider always answers so.
async fn turn_with(http: &Http, provider: &Provider) -> (Value, String) {
    let body = json!({"model": provider.model(), "input": "hi", "limits": {"seconds": 50}});
    let answer = http.invoke(body).await;
    let events = http.events(answer["session_id"].as_str().expect("a session")).await;
    let error = events.iter().rfind(|e| e["type"] == "session.error").map(|e| e["error"]["message"].to_string());
    (answer, error.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_that_refuse() {
    let server = Server::start();
    let http = server.http();
    let cases = [(401, "key", 1), (404, "m", 1), (429, "", 2), (500, "", 2), (529, "", 2)];
    for (status, needle, at_least) in cases {
        let provider = Provider::always(Reply::error(status, "said the provider")).await;
        let (answer, error) = turn_with(&http, &provider).await;
        assert_eq!(answer["stop_reason"]["type"], "retries_exhausted", "{status}: {answer}");
        assert!(error.contains(&status.to_string()) || error.contains("said the provider"), "{status}: {error}");
        assert!(error.contains(needle), "{status}: {error}");
        let asked = provider.requests();
        assert!((at_least..=8).contains(&asked), "{status}: asked {asked} times");
        assert_eq!(answer["error"]["message"].as_str().map(str::is_empty), Some(false), "{answer}");
    }
    goes_on(&http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_recovers() {
    let server = Server::start();
    let provider =
        Provider::start(|n| if n < 2 { Reply::error(529, "busy") } else { Reply::answer("back again") }).await;
    let (answer, _) = turn_with(&server.http(), &provider).await;
    assert_eq!((text(&answer["output"]).as_str(), provider.requests()), ("back again", 3), "{answer}");
    let events = server.http().events(answer["session_id"].as_str().expect("a session")).await;
    let retrying = events.iter().filter(|e| e["error"]["retry_status"]["type"] == "retrying").count();
    assert_eq!(retrying, 2, "each retry is seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_that_talk_nonsense() {
    let server = Server::with(Options::default().config("[models]\nsilence_seconds = 1\n"));
    let http = server.http();
    let half = [Reply::piece("half an ans")];
    let cases = [
        ("HTML", Reply::status(200, "text/html", "<html><h1>Welcome to nginx</h1></html>")),
        ("an HTML error", Reply::status(502, "text/html", "<html>Bad Gateway</html>")),
        ("half a stream", Reply::stream(&half, Then::Close)),
        ("a stream that stops", Reply::stream(&half, Then::Hang)),
        ("nothing at all", Reply::nothing(Then::Close)),
        ("silence", Reply::nothing(Then::Hang)),
    ];
    for (what, reply) in cases {
        // Every second attempt is told so at once, to spare the waits between them.
        let provider = Provider::start(move |n| if n == 0 { reply.clone() } else { Reply::error(401, "enough") }).await;
        let (answer, _) = turn_with(&http, &provider).await;
        assert_eq!(answer["stop_reason"]["type"], "retries_exhausted", "{what}: {answer}");
        assert!(provider.requests() >= 2, "{what} is tried again");
        let events = http.events(answer["session_id"].as_str().expect("a session")).await;
        let first = events.iter().find(|e| e["type"] == "session.error").unwrap_or_else(|| panic!("{what}: no error"));
        assert!(!first["error"]["message"].as_str().expect("a message").is_empty(), "{what}");
    }
    goes_on(&http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end() {
    let server = Server::start();
    let http = server.http();
    let endless = Reply::stream(&[Reply::piece("and")], Then::Forever);
    let provider = Provider::start(move |n| if n == 0 { endless.clone() } else { Reply::error(401, "enough") }).await;
    let (answer, _) = turn_with(&http, &provider).await;
    assert_eq!(answer["stop_reason"]["type"], "retries_exhausted", "{answer}");
    goes_on(&http).await;
}

#[tokio::test]
async fn a_script_that_is_none_is_told() {
    let server = Server::start();
    let http = server.http();
    let body = json!({"model": "builtin/script", "system": "{\"steps\": [{\"txt\": 1}]}", "input": "go"});
    let answer = http.invoke(body).await;
    assert_eq!(answer["status"], "failed");
    assert!(answer["error"]["message"].as_str().expect("a message").contains("txt"), "{answer}");
    let answer = http.invoke(invocation(vec![fails("overloaded", "too many")])).await;
    assert!(answer["error"]["message"].as_str().expect("a message").contains("too many"), "{answer}");
    goes_on(&http).await;
}
