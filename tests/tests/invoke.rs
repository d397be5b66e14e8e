//! `POST /v1/invoke` from outside: plain, streamed, in the background, continued, repeated, limited, checked.

use loopd_tests::http::{fenced, text, tool_results};
use loopd_tests::script::{calls, invocation, runs, says, script};
use loopd_tests::{Http, Server};
use serde_json::{Value, json};

#[tokio::test]
async fn one_request_runs_the_whole_loop() {
    let server = Server::start();
    let http = server.http();
    let answer = http.shell("echo $((6 * 7))").await;
    assert_eq!((answer["status"].as_str(), answer["steps"].as_u64()), (Some("completed"), Some(2)), "{answer}");
    assert_eq!(answer["stop_reason"], json!({"type": "end_turn"}));
    assert!(text(&answer["output"]).contains("42"), "{answer}");
    assert!(answer["usage"]["input_tokens"].as_u64() > Some(0), "{answer}");
    assert_eq!(answer["cost"], 0.0);
    assert_eq!(answer["trace_id"].as_str().map(str::len), Some(32));

    let kinds: Vec<String> = kinds(&http, session(&answer)).await;
    let order = ["user.message", "agent.tool_use", "agent.tool_result", "agent.message", "session.status_idle"];
    let places: Vec<usize> = order.iter().map(|k| kinds.iter().position(|have| have == k).expect(k)).collect();
    // The first message announces the command; the answer is the last.
    assert!(places[0] < places[1] && places[1] < places[2] && places[2] < places[4], "{kinds:?}");
    assert_eq!(kinds.last().map(String::as_str), Some("session.status_idle"));
}

#[tokio::test]
async fn a_session_goes_on_where_it_was() {
    let server = Server::start();
    let http = server.http();
    let first = http.shell("cd /tmp; export GREETING=hello; echo kept > /workspace/note").await;
    let second = json!({"session": session(&first), "input": fenced("pwd; echo $GREETING; cat /workspace/note")});
    let second = http.invoke(second).await;
    assert_eq!(second["session_id"], first["session_id"]);
    let said = text(&second["output"]);
    assert!(said.contains("/tmp") && said.contains("hello") && said.contains("kept"), "{said}");
    assert_eq!(second["steps"], 2, "figures are of this turn only");
}

#[tokio::test]
async fn a_stream_shows_every_event_and_ends_with_the_answer() {
    let server = Server::start();
    let http = server.http();
    let mut stream = http.invoke_stream(json!({"model": "builtin/shell", "input": fenced("echo streamed")})).await;
    let frames = stream.until(|frame| frame.event == "loopd.invoke_result").await;
    assert!(stream.next().await.is_none(), "nothing follows the result");
    assert_eq!(frames[0].event, "loopd.invoke_started");
    let result = &frames.last().expect("a result").data;
    assert_eq!(result["session_id"], frames[0].data["session_id"]);

    let streamed: Vec<&str> = frames.iter().filter_map(|f| f.seq.and(f.data["id"].as_str())).collect();
    let listed = http.events(session(result)).await;
    let listed: Vec<&str> = listed.iter().filter_map(|event| event["id"].as_str()).collect();
    assert_eq!(streamed, listed, "stream and list agree");
    let seqs: Vec<u64> = frames.iter().filter_map(|f| f.seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    let previews: String = frames.iter().filter_map(|f| f.data["delta"]["content"]["text"].as_str()).collect();
    assert!(previews.contains(&text(&result["output"])), "{previews}");
}

#[tokio::test]
async fn a_stream_that_was_cut_is_resumed_after_the_last_event_seen() {
    let server = Server::start();
    let http = server.http();
    let body = json!({"model": "builtin/script", "input": "go",
                      "system": script(vec![runs("sleep 0.5; echo late"), says("{{last_result}}")])});
    let mut stream = http.invoke_stream(body).await;
    let seen = stream.until(|frame| frame.event == "agent.tool_use").await;
    let id = session(&seen[0].data).to_owned();
    let last = seen.iter().filter_map(|f| f.seq).max().expect("events have seqs");
    drop(stream);
    let rest = http.follow(&id, last).await.until(|frame| frame.event == "session.status_idle").await;
    let ids = |frames: &[loopd_tests::http::Frame]| -> Vec<String> {
        frames.iter().filter_map(|f| f.seq.and(f.data["id"].as_str().map(str::to_owned))).collect()
    };
    let all: Vec<String> = http.events(&id).await.iter().map(|e| e["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!([ids(&seen), ids(&rest)].concat(), all, "every event once, in order");
}

#[tokio::test]
async fn in_the_background_the_ids_come_at_once() {
    let server = Server::start();
    let http = server.http();
    let mut body = invocation(vec![runs("sleep 0.3; echo done"), says("later")]);
    body["background"] = json!(true);
    let answer = http.post("/v1/invoke", body).await;
    assert_eq!(answer.status, 202);
    let answer = answer.ok();
    assert_eq!((answer["status"].as_str(), &answer["output"]), (Some("running"), &json!([])));
    http.until_idle(session(&answer)).await;
    assert!(kinds(&http, session(&answer)).await.contains(&"agent.tool_result".to_owned()));
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let server = Server::start();
    let http = server.http();
    let body = json!({"model": "builtin/shell", "input": fenced("date +%N >> /workspace/runs; cat /workspace/runs")});
    let key = [("idempotency-key", "once-1")];
    let first = http.post_with("/v1/invoke", &key, body.clone()).await.ok();
    let again = http.post_with("/v1/invoke", &key, body).await.ok();
    assert_eq!(first, again);
    assert_eq!(tool_results(&http.events(session(&first)).await).len(), 1);
    let other = http.post_with("/v1/invoke", &key, json!({"model": "builtin/shell", "input": "other"})).await;
    assert!(other.status == 409 || other.status == 400, "{}", other.text);
    assert!(other.body["error"]["message"].as_str().expect("a message").contains("once-1"), "{}", other.text);
}

#[tokio::test]
async fn an_answer_of_a_schema_is_checked_and_mended() {
    let server = Server::start();
    let mut body = invocation(vec![says("no JSON at all"), says("```json\n{\"total\": 42}\n```")]);
    body["output_schema"] =
        json!({"type": "object", "required": ["total"], "properties": {"total": {"type": "integer"}}});
    let answer = server.http().invoke(body).await;
    assert_eq!(
        (answer["status"].as_str(), &answer["output_json"]),
        (Some("completed"), &json!({"total": 42})),
        "{answer}"
    );
    assert_eq!(answer["steps"], 2);
}

#[tokio::test]
async fn an_answer_that_never_fits_is_a_stop_reason() {
    let server = Server::start();
    let mut body = invocation(vec![says("no"), says("no"), says("no"), says("no"), says("no")]);
    body["output_schema"] = json!({"type": "object"});
    let answer = server.http().invoke(body).await;
    assert_eq!(answer["stop_reason"], json!({"type": "limit_reached", "limit": "output_schema"}), "{answer}");
    assert_eq!((answer["status"].as_str(), answer.get("output_json")), (Some("incomplete"), None));
}

#[tokio::test]
async fn every_limit_is_a_stop_reason() {
    let server = Server::start();
    let http = server.http();
    let endless = json!({"steps": [runs("true")], "repeat": 1000}).to_string();
    let slow = script(vec![runs("sleep 30"), says("never")]);
    let cases = [
        (endless.clone(), json!({"steps": 2}), "steps"),
        (endless, json!({"output_tokens": 1}), "output_tokens"),
        (slow, json!({"seconds": 1}), "seconds"),
    ];
    for (system, limits, name) in cases {
        let body = json!({"model": "builtin/script", "system": system, "input": "go", "limits": limits});
        let answer = http.invoke(body).await;
        assert_eq!(answer["stop_reason"], json!({"type": "limit_reached", "limit": name}), "{answer}");
        assert_eq!(http.status(session(&answer)).await, "idle");
    }
}

#[tokio::test]
async fn tools_run_side_by_side_and_answer_in_the_order_of_the_calls() {
    let server = Server::start();
    let http = server.http();
    let step = json!({"tools": [
        {"name": "write", "input": {"file_path": "/workspace/a", "content": "from write"}},
        {"name": "bash", "input": {"command": "sleep 0.2; echo from bash"}},
        {"name": "glob", "input": {"pattern": "/usr/bin/env"}},
    ]});
    let answer = http.invoke(invocation(vec![
        step,
        calls("read", json!({"file_path": "/workspace/a"})),
        says("{{last_result}}"),
    ]));
    let answer = answer.await;
    assert!(text(&answer["output"]).contains("from write"), "{answer}");
    let events = http.events(session(&answer)).await;
    let uses: Vec<&Value> = events.iter().filter(|e| e["type"] == "agent.tool_use").collect();
    assert_eq!(uses.len(), 4);
    for used in uses {
        let result = events.iter().find(|e| e["tool_use_id"] == used["id"]).expect("each call has its result");
        assert_eq!(result["is_error"], false, "{result}");
    }
}

#[tokio::test]
async fn a_tool_of_the_callers_is_brought_by_the_next_request() {
    let server = Server::start();
    let http = server.http();
    let tool = json!({"type": "custom", "name": "lookup", "description": "Looks an order up.",
                      "input_schema": {"type": "object", "properties": {"order": {"type": "string"}}}});
    let mut body = invocation(vec![calls("lookup", json!({"order": "7"})), says("It is {{last_result}}.")]);
    body["tools"] = json!([tool]);
    let waits = http.invoke(body).await;
    assert_eq!(waits["status"], "requires_action", "{waits}");
    let action = &waits["pending_actions"][0];
    assert_eq!((action["name"].as_str(), &action["input"]), (Some("lookup"), &json!({"order": "7"})));
    let brought = json!([{"type": "tool_result", "tool_use_id": action["tool_use_id"], "content": "on its way"}]);
    let answer = http.invoke(json!({"session": session(&waits), "input": brought})).await;
    assert_eq!(text(&answer["output"]), "It is on its way.", "{answer}");
}

#[tokio::test]
async fn a_trace_tells_turn_step_and_call() {
    let server = Server::start();
    let http = server.http();
    let answer = http.shell("echo traced").await;
    let trace = http.get(&format!("/v1/sessions/{}/trace", session(&answer))).await.ok();
    assert_eq!(trace["trace_id"], answer["trace_id"]);
    let shown = trace.to_string();
    for attribute in ["gen_ai.operation.name", "gen_ai.request.model", "gen_ai.usage.output_tokens", "gen_ai.tool.name"]
    {
        assert!(shown.contains(attribute), "{attribute}: {shown}");
    }
    assert!(!shown.contains("echo traced"), "a trace carries no content");
}

#[tokio::test]
async fn keys_are_asked_for_where_they_are_set() {
    let server = Server::with(loopd_tests::server::Options::default().env("LOOPD_API_KEY", "sk-right"));
    assert!(server.http().get("/v1/agents").await.status == 200);
    for key in [None, Some("sk-wrong".to_owned())] {
        let refused = Http::new(server.url(), key).get("/v1/agents").await;
        assert!(!refused.refused(401, "authentication_error").is_empty());
    }
}

fn session(answer: &Value) -> &str {
    answer["session_id"].as_str().expect("a session")
}

async fn kinds(http: &Http, session: &str) -> Vec<String> {
    http.events(session).await.iter().map(|e| e["type"].as_str().expect("a type").to_owned()).collect()
}
