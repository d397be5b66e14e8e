//! Sessions through the resource API: agents, sessions, events, streams, threads.

#[path = "../../session/tests/support/mod.rs"]
mod below;
#[path = "support/live.rs"]
mod live;

use below::{Act, echo};
use live::{Live, kinds, text, types};
use serde_json::{Value, json};
use std::sync::Arc;

const TOOLSET: &str = "agent_toolset_20260401";

fn hello() -> Value {
    json!({"steps": [{"text": "hello there"}], "repeat": 50})
}

#[tokio::test]
async fn an_agent_has_versions() {
    let live = Live::open(echo()).await;
    let id = live.agent(hello(), json!([])).await;
    let path = format!("/v1/agents/{id}");
    let first = live.get(&path).await;
    assert_eq!((&first["version"], &first["type"]), (&json!(1), &json!("agent")));
    assert_eq!(live.post(&path, json!({"version": 1, "name": "player"})).await, first, "a change of nothing");
    let second = live.post(&path, json!({"version": 1, "description": "d", "tools": [{"type": TOOLSET}]})).await;
    assert_eq!((&second["version"], &second["description"]), (&json!(2), &json!("d")));
    let stale = live.try_post(&path, json!({"version": 1, "name": "x"}), &[]).await;
    assert_eq!((stale.status, &stale.json["error"]["type"]), (409, &json!("conflict_error")));
    assert_eq!(live.post(&path, json!({"description": null})).await["version"], 3);
    assert_eq!(live.get(&format!("{path}?version=2")).await, second);
    let page = live.get(&format!("{path}/versions?limit=2")).await;
    let numbers = |page: &Value| {
        page["data"].as_array().expect("a list").iter().map(|a| a["version"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&page), [json!(3), json!(2)]);
    let rest = live.get(&format!("{path}/versions?limit=2&page={}", text(&page["next_page"]))).await;
    assert_eq!((numbers(&rest), &rest["next_page"]), (vec![json!(1)], &Value::Null));
    let archived = live.post(&format!("{path}/archive"), json!({})).await;
    assert!(archived["archived_at"].is_string());
    assert_eq!(live.try_post(&path, json!({"name": "x"}), &[]).await.status, 400);
    assert_eq!(live.try_post("/v1/sessions", json!({"agent": id}), &[]).await.status, 400);
    assert_eq!(live.get("/v1/agents").await["data"], json!([]));
    assert_eq!(live.get("/v1/agents?include_archived=true").await["data"][0]["id"], id);
    let unknown = live.try_post("/v1/agents", json!({"name": "n", "model": "nobody/knows"}), &[]).await;
    assert!(unknown.status == 400 && unknown.json.to_string().contains("nobody"), "{unknown:?}");
}

#[tokio::test]
async fn a_turn_is_the_same_on_stream_and_list() {
    let live = Live::open(echo()).await;
    let script = json!({"steps": [{"text": "looking", "tools": [{"name": "bash", "input": {"command": "ls"}}]}, {"text": "done"}]});
    let agent = live.agent(script, json!([{"type": TOOLSET}])).await;
    let session = live.session(&agent).await;
    let mut stream = live.follow(&session, "", None).await;
    let sent = live.say(&session, "go").await;
    let frames = stream.until("session.status_idle").await;
    assert_eq!((frames[0].event.as_str(), &frames[0].data["id"]), ("user.message", &sent["id"]));
    let list = live.get(&format!("/v1/sessions/{session}/events")).await;
    let streamed: Vec<Value> = frames.iter().map(|f| f.data.clone()).collect();
    assert_eq!(list["data"], json!(streamed), "strictly consistent");
    let seqs: Vec<u64> = frames.iter().map(|f| f.id.expect("a seq")).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    for wanted in [
        "session.status_running",
        "session.thread_status_running",
        "span.model_request_start",
        "agent.tool_use",
        "agent.tool_result",
        "span.model_request_end",
        "session.thread_status_idle",
    ] {
        assert!(kinds(&frames).contains(&wanted), "{wanted} in {:?}", kinds(&frames));
    }
    assert_eq!(frames[frames.len() - 2].event, "session.usage");
    // Every frame is named as its data says, and says when it was processed.
    assert!(frames.iter().all(|f| f.data["type"] == f.event && f.data["processed_at"].is_string()));
    let found = live.get(&format!("/v1/sessions/{session}")).await;
    assert_eq!((&found["status"], &found["stop_reason"]["type"]), (&json!("idle"), &json!("end_turn")));
    assert!(found["usage"]["output_tokens"].as_u64().expect("tokens") > 0);
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_cut_and_may_come_late() {
    let live = Live::open(echo()).await;
    let session = live.session(&live.agent(hello(), json!([])).await).await;
    live.say(&session, "one").await;
    live.until_status(&session, "idle").await;
    // Opened after the turn: it is shown once, because nobody saw it.
    let late = live.follow(&session, "", None).await.until("session.status_idle").await;
    assert_eq!(late[0].event, "user.message");
    let cut = late[2].id.expect("a seq");
    let rest = live.follow(&session, "", Some(cut)).await.until("session.status_idle").await;
    assert_eq!(kinds(&rest), kinds(&late[3..]));
    let bad = axum::http::Request::get(format!("/v1/sessions/{session}/events/stream")).header("last-event-id", "x");
    assert_eq!(live.send(bad.body(axum::body::Body::empty()).expect("a request")).await.status, 400);
}

#[tokio::test]
async fn previews_come_before_what_they_preview() {
    let live = Live::open(echo()).await;
    let script = json!({"steps": [{"text": "one two three", "chunk_delay_ms": 5}]});
    let session = live.session(&live.agent(script, json!([])).await).await;
    let mut stream = live.follow(&session, "?event_deltas%5B%5D=agent.message", None).await;
    live.say(&session, "go").await;
    let frames = stream.until("agent.message").await;
    let start = frames.iter().position(|f| f.event == "event_start").expect("a start");
    let id = &frames[start].data["event"]["id"];
    let pieces: Vec<&live::Frame> = frames.iter().filter(|f| f.event == "event_delta").collect();
    assert!(pieces.iter().all(|f| &f.data["event_id"] == id && f.id.is_none()));
    let told: String = pieces.iter().map(|f| text(&f.data["delta"]["content"]["text"])).collect();
    let whole = frames.last().expect("the message");
    assert_eq!((&whole.data["id"], text(&whole.data["content"][0]["text"])), (id, "one two three".to_owned()));
    assert!(!told.is_empty() && "one two three".starts_with(&told), "{told}");
    let refused = live.send(
        axum::http::Request::get(format!("/v1/sessions/{session}/events/stream?event_deltas=x"))
            .body(axum::body::Body::empty())
            .expect("a request"),
    );
    assert_eq!(refused.await.status, 400);
}

#[tokio::test]
async fn a_session_takes_its_agent_in_three_shapes() {
    let live = Live::open(echo()).await;
    let id = live.agent(hello(), json!([{"type": TOOLSET}])).await;
    live.post(&format!("/v1/agents/{id}"), json!({"name": "renamed"})).await;
    let make = async |agent: Value| {
        live.post("/v1/sessions", json!({"agent": agent, "title": "t", "metadata": {"k": "v"}})).await
    };
    assert_eq!(make(json!(id)).await["agent"]["version"], 2);
    let first = make(json!({"type": "agent", "id": id, "version": 1})).await;
    assert_eq!(
        (&first["agent"]["name"], &first["title"], &first["metadata"]),
        (&json!("player"), &json!("t"), &json!({"k": "v"}))
    );
    let over = make(json!({"type": "agent_with_overrides", "id": id, "system": null, "tools": []})).await;
    assert_eq!(
        (&over["agent"]["system"], &over["agent"]["tools"], &over["agent"]["version"]),
        (&Value::Null, &json!([]), &json!(2))
    );
    assert_eq!(over["agent"]["model"]["id"], "builtin/script");
    let bad = live
        .try_post("/v1/sessions", json!({"agent": {"type": "agent_with_overrides", "id": id, "model": null}}), &[])
        .await;
    assert_eq!((bad.status, &bad.json["error"]["details"]["error_code"]), (400, &json!("agent_model_required")));
    for extra in [json!({"resources": [{}]}), json!({"budget": {"type": "limit"}})] {
        let mut body = json!({"agent": id});
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        let reply = live.try_post("/v1/sessions", body, &[]).await;
        assert!(reply.status == 400 && reply.json.to_string().contains("not available in this version"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_session_can_start_at_once_be_changed_and_end() {
    let live = Live::open(echo()).await;
    let agent = live.agent(hello(), json!([])).await;
    let environment = live.post("/v1/environments", json!({"name": "e"})).await;
    let initial = json!([{"type": "user.message", "content": [{"type": "text", "text": "hi"}]}]);
    let made = live
        .post("/v1/sessions", json!({"agent": agent, "environment_id": environment["id"], "initial_events": initial}))
        .await;
    assert_eq!((&made["status"], &made["environment_id"]), (&json!("running"), &environment["id"]));
    let session = text(&made["id"]);
    let path = format!("/v1/sessions/{session}");
    live.until_status(&session, "idle").await;
    let mut stream = live.follow(&session, "", Some(1_000)).await;
    let changed = live
        .post(&path, json!({"title": "new", "metadata": {"a": "b"}, "agent": {"tools": [{"type": TOOLSET}]}}))
        .await;
    assert_eq!(
        (&changed["title"], &changed["agent"]["tools"][0]["configs"][0]["name"]),
        (&json!("new"), &json!("bash"))
    );
    drop(stream);
    let updated = live.get(&format!("{path}/events?types[]=session.updated")).await;
    assert_eq!(types(&updated), ["session.updated"]);
    assert_eq!(updated["data"][0]["agent"]["tools"][0]["configs"].as_array().map(Vec::len), Some(8));
    let threads = live.get(&format!("{path}/threads")).await;
    let thread = text(&threads["data"][0]["id"]);
    assert_eq!(live.get(&format!("{path}/threads/{thread}")).await["parent_thread_id"], Value::Null);
    let theirs = live.get(&format!("{path}/threads/{thread}/events")).await;
    assert_eq!(theirs["data"], live.get(&format!("{path}/events")).await["data"]);
    let archived = live.post(&format!("{path}/archive"), json!({})).await;
    assert_eq!(archived["status"], "terminated");
    let message = json!({"events": [{"type": "user.message", "content": [{"type": "text", "text": "x"}]}]});
    assert_eq!(live.try_post(&format!("{path}/events"), message, &[]).await.status, 400);
    stream = live.follow(&session, "", Some(1_000)).await;
    let deleted = live.delete(&path).await;
    assert_eq!(deleted.json, json!({"id": session, "type": "session_deleted"}));
    let frames = stream.until("session.deleted").await;
    assert_eq!(frames.len(), 1);
    assert!(stream.next().await.is_none(), "the stream ends with its session");
    assert_eq!(live.delete(&path).await.status, 404);
}

#[tokio::test]
async fn a_custom_tool_waits_for_the_client_and_inputs_wait_behind_it() {
    let live = Live::open(echo()).await;
    let script =
        json!({"steps": [{"tools": [{"name": "ask", "input": {"q": 1}}]}, {"text": "thanks"}, {"text": "and again"}]});
    let custom = json!([{"type": "custom", "name": "ask", "description": "d", "input_schema": {"type": "object"}}]);
    let session = live.session(&live.agent(script, custom).await).await;
    let path = format!("/v1/sessions/{session}/events");
    let mut stream = live.follow(&session, "", None).await;
    live.say(&session, "go").await;
    let frames = stream.until("session.status_idle").await;
    let call = frames.iter().find(|f| f.event == "agent.custom_tool_use").expect("a call");
    let idle = &frames.last().expect("idle").data;
    assert_eq!(idle["stop_reason"], json!({"type": "requires_action", "event_ids": [call.data["id"]]}));
    let queued = live.say(&session, "meanwhile").await;
    assert_eq!(queued["processed_at"], Value::Null);
    let list = live.get(&path).await;
    let last = list["data"].as_array().and_then(|l| l.last()).expect("events");
    assert_eq!(last, &queued, "waits at the end of the list");
    let newest = live.get(&format!("{path}?order=desc&limit=5")).await;
    assert_eq!(newest["data"][0], queued);
    let answer = json!({"type": "user.custom_tool_result", "custom_tool_use_id": call.data["id"], "content": [{"type": "text", "text": "42"}]});
    let sent = live.post(&path, json!({"events": [answer]})).await;
    assert!(sent["data"][0]["processed_at"].is_string());
    let twice = live.try_post(&path, json!({"events": [answer]}), &[]).await;
    assert_eq!(twice.status, 400, "{twice:?}");
    let frames = stream.until("session.status_idle").await;
    assert_eq!(frames.last().expect("idle").data["stop_reason"]["type"], "end_turn");
    let taken = frames.iter().filter(|f| f.data["id"] == queued["id"]).count();
    assert_eq!(taken, 1, "{:?}", kinds(&frames));
}

#[tokio::test]
async fn an_interrupt_ends_the_turn_and_a_running_session_is_not_removed() {
    let live = Live::open(Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {"command": "sleep"}}]}, {"text": "x"}]});
    let session = live.session(&live.agent(script, json!([{"type": TOOLSET}])).await).await;
    let mut stream = live.follow(&session, "", None).await;
    live.say(&session, "go").await;
    stream.until("agent.tool_use").await;
    assert_eq!(live.delete(&format!("/v1/sessions/{session}")).await.status, 400);
    assert_eq!(live.try_post(&format!("/v1/sessions/{session}/archive"), json!({}), &[]).await.status, 400);
    live.post(&format!("/v1/sessions/{session}/events"), json!({"events": [{"type": "user.interrupt"}]})).await;
    let frames = stream.until("session.status_idle").await;
    assert_eq!(frames.last().expect("idle").data["stop_reason"], json!({"type": "end_turn"}));
}

#[tokio::test]
async fn lists_filter_and_lead_both_ways() {
    let live = Live::open(echo()).await;
    let agent = live.agent(hello(), json!([])).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(live.session(&agent).await);
    }
    made.reverse();
    let ids =
        |page: &Value| page["data"].as_array().expect("a list").iter().map(|s| text(&s["id"])).collect::<Vec<_>>();
    let first = live.get("/v1/sessions?limit=2").await;
    assert_eq!((ids(&first), &first["prev_page"]), (made[..2].to_vec(), &Value::Null));
    let second = live.get(&format!("/v1/sessions?limit=2&page={}", text(&first["next_page"]))).await;
    assert_eq!(ids(&second), made[2..4]);
    let back = live.get(&format!("/v1/sessions?limit=2&page={}", text(&second["prev_page"]))).await;
    assert_eq!((ids(&back), &back["prev_page"]), (made[..2].to_vec(), &Value::Null));
    let wrong = format!("/v1/sessions?order=asc&page={}", text(&first["next_page"]));
    assert_eq!(
        live.send(axum::http::Request::get(wrong).body(axum::body::Body::empty()).expect("a request")).await.status,
        400
    );
    assert_eq!(ids(&live.get("/v1/sessions?order=asc&limit=1").await), made[4..]);
    assert_eq!(ids(&live.get("/v1/sessions?statuses%5B%5D=running&statuses%5B%5D=terminated").await).len(), 0);
    assert_eq!(
        ids(&live.get(&format!("/v1/sessions?statuses[]=idle&agent_id={agent}&agent_version=1")).await).len(),
        5
    );
    assert_eq!(ids(&live.get("/v1/sessions?created_at[gt]=2100-01-01T00:00:00Z").await).len(), 0);
    live.say(&made[0], "hi").await;
    live.until_status(&made[0], "idle").await;
    let path = format!("/v1/sessions/{}/events", made[0]);
    let page = live.get(&format!("{path}?limit=3")).await;
    let rest = live.get(&format!("{path}?page={}", text(&page["next_page"]))).await;
    let all = live.get(&path).await;
    assert_eq!([types(&page), types(&rest)].concat(), types(&all));
    let some = live.get(&format!("{path}?types[]=user.message&types[]=agent.message&order=desc")).await;
    assert_eq!(types(&some), ["agent.message", "user.message"]);
}

#[tokio::test]
async fn models_are_listed_in_both_shapes() {
    let live = Live::open(echo()).await;
    let page = live.get("/v1/models?limit=1").await;
    assert_eq!(
        (&page["has_more"], &page["first_id"], &page["data"][0]["type"]),
        (&json!(true), &page["last_id"], &json!("model"))
    );
    let next = live.get(&format!("/v1/models?limit=1&after_id={}", text(&page["last_id"]))).await;
    assert_ne!(next["data"][0]["id"], page["data"][0]["id"]);
    for path in ["/v1/models/builtin/shell", "/v1/models/builtin%2Fshell"] {
        assert_eq!(live.get(path).await["id"], "builtin/shell");
    }
}
