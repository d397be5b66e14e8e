//! Bad input of every kind: each is a clear error or event that says what to do, and the server and its other sessions go on.

use loopd_tests::http::text;
use loopd_tests::provider::{Provider, Reply, Then};
use loopd_tests::script::{calls, fails, invocation, runs, says};
use loopd_tests::server::Options;
use loopd_tests::{Http, PATIENCE, Server};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

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

/// A refusal that names what is not there.
#[track_caller]
fn absent(answer: &loopd_tests::http::Answer, id: &str) {
    let message = answer.refused(404, "not_found_error");
    assert!(message.contains(&format!("`{id}`")), "`{id}` is not in: {message}");
}

#[tokio::test]
async fn ids_of_nothing() {
    const SESSION: &str = "sesn_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    const AGENT: &str = "agent_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    const ENVIRONMENT: &str = "env_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let server = Server::start();
    let http = server.http();
    for below in ["", "/events", "/events/stream", "/trace"] {
        absent(&http.get(&format!("/v1/sessions/{SESSION}{below}")).await, SESSION);
    }
    let gone = [
        ("/v1/sessions/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "../../etc/passwd"),
        ("/v1/models/nobody", "nobody"),
        ("/v1/nothing", "GET /v1/nothing"),
    ];
    for (path, id) in gone {
        absent(&http.get(path).await, id);
    }
    absent(&http.get(&format!("/v1/agents/{AGENT}")).await, AGENT);
    absent(&http.get(&format!("/v1/environments/{ENVIRONMENT}")).await, ENVIRONMENT);
    let bodies = [
        (json!({"session": SESSION, "input": "hi"}), SESSION),
        (json!({"agent": AGENT, "input": "hi"}), AGENT),
        (json!({"model": "builtin/shell", "environment": ENVIRONMENT, "input": "hi"}), ENVIRONMENT),
    ];
    for (body, id) in bodies {
        absent(&http.post("/v1/invoke", body).await, id);
    }
    let answer = http.send(Method::PUT, "/v1/agents", &[], Some(b"{}".to_vec())).await;
    assert!(answer.refused(405, INVALID).contains("`/v1/agents`"), "{}", answer.text);
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

/// What becomes of a turn whose provider answers so, and what its errors say, oldest first.
async fn turn_with(http: &Http, provider: &Provider) -> (Value, Vec<String>) {
    let body = json!({"model": provider.model(), "input": "hi", "limits": {"seconds": 50}});
    let answer = http.invoke(body).await;
    let events = http.events(answer["session_id"].as_str().expect("a session")).await;
    let errors = events.iter().filter(|event| event["type"] == "session.error");
    let told = errors.map(|event| event["error"]["message"].as_str().expect("a message").to_owned()).collect();
    (answer, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_that_refuse() {
    let server = Server::start();
    let http = server.http();
    let cases = [
        (401, "no key was sent: set the provider's key", 1),
        (404, "check the model's name and the base URL", 1),
        (429, "ask less often", 2),
        (500, "the provider, or a proxy before it, failed: try again later", 2),
        (529, "the provider is busy: try again later, or with another model", 2),
    ];
    for (status, remedy, at_least) in cases {
        let provider = Provider::always(Reply::error(status, "said the provider")).await;
        let (answer, told) = turn_with(&http, &provider).await;
        assert_eq!(answer["stop_reason"]["type"], "retries_exhausted", "{status}: {answer}");
        let asked = provider.requests();
        assert!((at_least..=8).contains(&asked), "{status}: asked {asked} times");
        assert_eq!(told.len(), asked, "{status}: each failure is told: {told:?}");
        for message in &told {
            assert!(message.contains(&format!("answered {status}: said the provider; ")), "{message}");
            assert!(message.contains(remedy), "{status}: `{remedy}` is not in: {message}");
        }
        assert_eq!(answer["error"]["message"].as_str(), told.last().map(String::as_str), "{answer}");
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

/// The first thing that is told of a provider whose first answer this is.
async fn told_first(http: &Http, what: &str, reply: Reply) -> String {
    // Every second attempt is told so at once, to spare the waits between them.
    let provider = Provider::start(move |n| if n == 0 { reply.clone() } else { Reply::error(401, "enough") }).await;
    let (answer, told) = turn_with(http, &provider).await;
    assert_eq!(answer["stop_reason"]["type"], "retries_exhausted", "{what}: {answer}");
    assert!(provider.requests() >= 2, "{what} is tried again");
    told.into_iter().next().unwrap_or_else(|| panic!("{what}: no error"))
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_that_talk_nonsense() {
    let server = Server::with(Options::default().config("[models]\nsilence_seconds = 1\n"));
    let http = server.http();
    let half = [Reply::piece("half an ans")];
    let page = Reply::status(200, "text/html", "<html><h1>Welcome to nginx</h1></html>");
    let gateway = Reply::status(502, "text/html", "<html>Bad Gateway</html>");
    let cases = [
        ("HTML", page, ["answered 200 with HTML: `<html><h1>Welcome to nginx", "check the base URL"]),
        ("an HTML error", gateway, ["answered 502: HTML instead of JSON: `<html>Bad", "a proxy before it, failed"]),
        ("half a stream", Reply::stream(&half, Then::Close), ["closed in the middle of the answer", "any proxy on"]),
        ("a stream that stops", Reply::stream(&half, Then::Hang), ["sent nothing for 1000 ms", "silence_seconds"]),
        ("nothing at all", Reply::nothing(Then::Close), ["lost the connection", "check the provider"]),
        ("no byte", Reply::status(200, "text/event-stream", ""), ["closed without a byte", "check the base URL"]),
        ("silence", Reply::nothing(Then::Hang), ["sent nothing for 1000 ms", "silence_seconds"]),
    ];
    for (what, reply, needles) in cases {
        let told = told_first(&http, what, reply).await;
        for needle in needles {
            assert!(told.contains(needle), "{what}: `{needle}` is not in: {told}");
        }
    }
    goes_on(&http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end() {
    let server = Server::start();
    let http = server.http();
    let told = told_first(&http, "no end", Reply::stream(&[Reply::piece("and")], Then::Forever)).await;
    let needles = ["longer than 16777216 bytes; it was cut off", "does not keep to `max_tokens`"];
    assert!(needles.iter().all(|needle| told.contains(needle)), "{told}");
    goes_on(&http).await;
}

/// Begins a turn and returns when its provider has been asked; the session's id.
async fn asks(http: &Http, provider: &Provider) -> String {
    let body = json!({"model": provider.model(), "input": "hi", "background": true});
    let session = http.invoke(body).await["session_id"].as_str().expect("a session").to_owned();
    provider.asked(1).await;
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn others_work_while_a_provider_hangs_or_floods() {
    let server = Server::start();
    let http = server.http();
    let hanging = Provider::always(Reply::nothing(Then::Hang)).await;
    let waiting = asks(&http, &hanging).await;
    goes_on(&http).await;
    assert_eq!(http.status(&waiting).await, "running", "it hangs still");

    let flooding = Provider::always(Reply::stream(&[Reply::piece("and")], Then::Forever)).await;
    let flooded = asks(&http, &flooding).await;
    // Asked again, it has flooded until it was cut off: all that time others work.
    let others = async {
        while flooding.requests() < 2 {
            goes_on(&http).await;
        }
    };
    timeout(PATIENCE, others).await.expect("the flood is cut off");
    assert_ne!(http.status(&flooded).await, "idle");

    for session in [waiting, flooded] {
        let interrupt = json!({"events": [{"type": "user.interrupt"}]});
        http.post(&format!("/v1/sessions/{session}/events"), interrupt).await.ok();
        http.until_idle(&session).await;
    }
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
