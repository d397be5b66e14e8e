//! `POST /v1/invoke` over living sessions.

#[path = "../../session/tests/support/mod.rs"]
mod below;
#[path = "support/live.rs"]
mod live;

use below::{Act, echo};
use live::{Live, kinds, post, text, types};
use serde_json::{Value, json};
use std::sync::Arc;

const ASK: &str = "ask";

/// An invocation that plays a script.
fn play(script: Value) -> Value {
    json!({"input": "go", "model": "builtin/script", "system": script.to_string()})
}

fn with(mut body: Value, extra: Value) -> Value {
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

fn two_steps() -> Value {
    json!({"steps": [{"text": "looking", "tools": [{"name": "bash", "input": {"command": "ls"}}]}, {"text": "done"}]})
}

#[tokio::test]
async fn one_call_runs_the_whole_loop() {
    let live = Live::open(echo()).await;
    let answer = live.post("/v1/invoke", with(play(two_steps()), json!({"metadata": {"k": "v"}, "user": "u1"}))).await;
    assert_eq!((&answer["status"], &answer["stop_reason"]), (&json!("completed"), &json!({"type": "end_turn"})));
    assert_eq!((&answer["output"], &answer["steps"]), (&json!([{"type": "text", "text": "done"}]), &json!(2)));
    assert_eq!((&answer["pending_actions"], &answer["cost"]), (&json!([]), &json!(0.0)));
    assert_eq!(answer["trace_id"].as_str().map(str::len), Some(32));
    let session = live.get(&format!("/v1/sessions/{}", text(&answer["session_id"]))).await;
    assert_eq!((&session["status"], &session["metadata"]), (&json!("idle"), &json!({"k": "v", "user": "u1"})));
    assert_eq!(session["usage"]["output_tokens"], answer["usage"]["output_tokens"]);
    let trace = live.get(&format!("/v1/sessions/{}/trace", text(&answer["session_id"]))).await;
    assert_eq!((&trace["trace_id"], &trace["truncated"]), (&answer["trace_id"], &json!(false)));
    assert_eq!(trace["root"]["children"][0]["children"].as_array().map(Vec::len), Some(2), "a turn of two steps");
    let again = live.post("/v1/invoke", json!({"input": "more", "session": answer["session_id"]})).await;
    assert_eq!((&again["session_id"], &again["steps"]), (&answer["session_id"], &json!(1)));
    assert_ne!(again["id"], answer["id"]);
}

#[tokio::test]
async fn a_stream_tells_it_as_it_happens_and_ends_with_the_answer() {
    let live = Live::open(echo()).await;
    let traced = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    let request = post("/v1/invoke", with(play(two_steps()), json!({"stream": true})), &traced);
    let mut stream = live.stream(request).await;
    let frames = stream.until("loopd.invoke_result").await;
    assert!(stream.next().await.is_none());
    let names = kinds(&frames);
    assert_eq!((names[0], names[1]), ("loopd.invoke_started", "user.message"));
    assert_eq!(frames[0].data["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert!(names.contains(&"event_delta") && names.contains(&"agent.tool_result"), "{names:?}");
    let answer = &frames.last().expect("the answer").data;
    assert_eq!((&answer["status"], &answer["id"]), (&json!("completed"), &frames[1].data["id"]));
    let list = live.get(&format!("/v1/sessions/{}/events", text(&answer["session_id"]))).await;
    let streamed: Vec<&str> =
        names.iter().copied().filter(|n| !n.starts_with("event_") && !n.starts_with("loopd.")).collect();
    assert_eq!(types(&list), streamed);
}

#[tokio::test]
async fn a_dropped_connection_stops_nothing_and_the_key_brings_the_rest() {
    let live = Live::open(echo()).await;
    let script = json!({"steps": [{"text": "a b c d", "chunk_delay_ms": 20}, {"text": "never"}]});
    let body = with(play(script), json!({"stream": true}));
    let key = [("idempotency-key", "k1")];
    let mut stream = live.stream(post("/v1/invoke", body.clone(), &key)).await;
    let seen = stream.until("session.status_running").await;
    drop(stream);
    let last = seen.last().and_then(|f| f.id).expect("a seq").to_string();
    let mut again = live.stream(post("/v1/invoke", body, &[key[0], ("last-event-id", &last)])).await;
    let rest = again.until("loopd.invoke_result").await;
    assert_eq!(rest[0].data, seen[0].data, "the same invocation");
    assert!(!kinds(&rest).contains(&"user.message"), "{:?}", kinds(&rest));
    assert_eq!(rest.last().expect("the answer").data["output"], json!([{"type": "text", "text": "a b c d"}]));
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer() {
    let live = Live::open(echo()).await;
    let key = [("idempotency-key", "k1")];
    let first = live.try_post("/v1/invoke", play(two_steps()), &key).await;
    let second = live.try_post("/v1/invoke", play(two_steps()), &key).await;
    assert_eq!((second.status, &second.json), (200, &first.json));
    assert_eq!(live.try_post("/v1/invoke", with(play(two_steps()), json!({"title": "x"})), &key).await.status, 409);
    let session = json!({"input": "more", "session": first.json["session_id"]});
    let third = live.try_post("/v1/invoke", session.clone(), &[("idempotency-key", "k2")]).await;
    let fourth = live.try_post("/v1/invoke", session, &[("idempotency-key", "k2")]).await;
    assert_eq!(third.json, fourth.json);
    let list = live.get(&format!("/v1/sessions/{}/events?types[]=user.message", text(&first.json["session_id"]))).await;
    assert_eq!(types(&list).len(), 2);
}

#[tokio::test]
async fn in_the_background_only_the_ids_come_at_once() {
    let live = Live::open(echo()).await;
    let reply = live.try_post("/v1/invoke", with(play(two_steps()), json!({"background": true})), &[]).await;
    assert_eq!((reply.status, &reply.json["status"], &reply.json["output"]), (202, &json!("running"), &json!([])));
    let session = text(&reply.json["session_id"]);
    live.follow(&session, "", None).await.until("session.status_idle").await;
    let first = live.get(&format!("/v1/sessions/{session}/events?limit=1")).await;
    assert_eq!(first["data"][0]["id"], reply.json["id"]);
}

#[tokio::test]
async fn what_needs_the_caller_is_brought_by_the_next_invocation() {
    let live = Live::open(echo()).await;
    let script = json!({"steps": [{"tools": [{"name": ASK, "input": {"q": 1}}, {"name": ASK, "input": {"q": 2}}]}, {"text": "{{last_result}}"}]});
    let custom = json!({"type": "custom", "name": ASK, "description": "d", "input_schema": {"type": "object"}});
    let waits = live.post("/v1/invoke", with(play(script), json!({"tools": [custom]}))).await;
    assert_eq!(waits["status"], "requires_action");
    let pending = waits["pending_actions"].as_array().expect("a list");
    assert_eq!(
        (pending.len(), &pending[0]["type"], &pending[1]["input"]),
        (2, &json!("tool_result"), &json!({"q": 2}))
    );
    let session = &waits["session_id"];
    let alone = live.try_post("/v1/invoke", json!({"session": session, "input": "hello?"}), &[]).await;
    assert!(
        alone.status == 400 && alone.json.to_string().contains(pending[0]["tool_use_id"].as_str().expect("an id")),
        "{alone:?}"
    );
    let answer = |i: usize, text: &str| json!({"type": "tool_result", "tool_use_id": pending[i]["tool_use_id"], "content": text});
    let still = live.post("/v1/invoke", json!({"session": session, "input": [answer(0, "41")]})).await;
    assert_eq!((&still["status"], &still["pending_actions"]), (&json!("requires_action"), &json!([pending[1]])));
    let done = live.post("/v1/invoke", json!({"session": session, "input": [answer(1, "42")]})).await;
    assert_eq!((&done["status"], &done["output"]), (&json!("completed"), &json!([{"type": "text", "text": "42"}])));
}

#[tokio::test]
async fn a_message_to_a_running_session_joins_it_or_is_refused() {
    let live = Live::open(Arc::new(|call| Act::Say(call.name.clone()))).await;
    let script = json!({"steps": [{"text": "slow", "chunk_delay_ms": 200, "tools": [{"name": "bash", "input": {"command": "x"}}]}, {"text": "both"}]});
    let running = live.post("/v1/invoke", with(play(script), json!({"background": true}))).await;
    let more = json!({"session": running["session_id"], "input": "and this"});
    let refused = live.try_post("/v1/invoke", with(more.clone(), json!({"if_running": "reject"})), &[]).await;
    assert_eq!(refused.status, 409);
    let joined = live.post("/v1/invoke", more).await;
    assert_eq!(
        (&joined["output"], &joined["status"]),
        (&json!([{"type": "text", "text": "both"}]), &json!("completed"))
    );
    assert_eq!(live.get(&format!("/v1/sessions/{}", text(&running["session_id"]))).await["status"], "idle");
}

#[tokio::test]
async fn limits_and_schemas_bound_a_turn() {
    let live = Live::open(echo()).await;
    let endless = json!({"steps": [{"tools": [{"name": "bash", "input": {"command": "x"}}]}], "repeat": 100});
    let stopped = live.post("/v1/invoke", with(play(endless), json!({"limits": {"steps": 3}}))).await;
    assert_eq!((&stopped["status"], &stopped["steps"]), (&json!("incomplete"), &json!(3)));
    assert_eq!(stopped["stop_reason"], json!({"type": "limit_reached", "limit": "steps"}));
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let mends = json!({"steps": [{"text": "four"}, {"text": "{\"n\": 4}"}]});
    let mended = live.post("/v1/invoke", with(play(mends), json!({"output_schema": schema}))).await;
    assert_eq!((&mended["status"], &mended["output_json"]), (&json!("completed"), &json!({"n": 4})), "{mended}");
    let free = live.post("/v1/invoke", with(play(two_steps()), json!({"limits": {"cost_usd": 0.5}}))).await;
    assert_eq!(free["status"], "completed");
    let failing = json!({"steps": [{"fault": {"class": "authentication", "status": 401, "message": "bad key"}}]});
    let failed = live.post("/v1/invoke", play(failing)).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(failed["error"]["message"].is_string(), "{failed}");
}

#[tokio::test]
async fn an_agent_and_its_overrides_make_a_session() {
    let live = Live::open(echo()).await;
    let agent = live.agent(two_steps(), json!([{"type": "agent_toolset_20260401"}])).await;
    let answer =
        live.post("/v1/invoke", json!({"input": "go", "agent": agent, "environment": {"limits": {"pids": 64}}})).await;
    assert_eq!(answer["status"], "completed");
    let session = live.get(&format!("/v1/sessions/{}", text(&answer["session_id"]))).await;
    assert_eq!((&session["agent"]["id"], &session["environment_id"]), (&json!(agent), &Value::Null));
    let other = json!({"steps": [{"text": "overridden"}]}).to_string();
    let over =
        live.post("/v1/invoke", json!({"input": "go", "agent": {"id": agent, "version": 1}, "system": other})).await;
    assert_eq!(over["output"][0]["text"], "overridden");
}
