//! Effect classes, as a service outside sees them: `kill -9` of the server while calls are on their way, and a restart.

use loopd_tests::Server;
use loopd_tests::effects::EffectCounter;
use loopd_tests::http::{text, tool_results};
use loopd_tests::script::{says, script};
use loopd_tests::server::Options;
use serde_json::{Value, json};

const CLASSES: [(&str, Option<&str>); 3] = [("look", Some("pure")), ("book", Some("keyed")), ("mail", None)];

/// One answer that asks for a call of every class, then a last word.
fn turn(counter: &EffectCounter) -> Value {
    let tool = |(name, effect): (&str, Option<&str>)| {
        let mut tool = json!({"type": "http", "name": name, "description": "for tests",
            "input_schema": {"type": "object"}, "url": format!("{}/{name}", counter.url)});
        if let Some(effect) = effect {
            tool["effect"] = json!(effect);
        }
        tool
    };
    let calls: Vec<Value> = CLASSES.iter().map(|(name, _)| json!({"name": name, "input": {"seat": 7}})).collect();
    let steps = vec![json!({"tools": calls}), says("all said")];
    json!({"model": "builtin/script", "system": script(steps), "input": "go", "background": true,
           "tools": CLASSES.map(tool)})
}

/// The result of one tool's call.
fn result<'a>(events: &'a [Value], tool: &str) -> &'a Value {
    let call = events.iter().find(|e| e["type"] == "agent.tool_use" && e["name"] == tool).expect("a call");
    tool_results(events).into_iter().find(|r| r["tool_use_id"] == call["id"]).expect("a result")
}

/// Every tool call of a trace.
fn tool_spans(span: &Value, found: &mut Vec<Value>) {
    if span["kind"] == "tool_call" {
        found.push(span.clone());
    }
    span["children"].as_array().into_iter().flatten().for_each(|child| tool_spans(child, found));
}

#[tokio::test]
async fn killed_with_calls_on_their_way() {
    let counter = EffectCounter::start().await;
    counter.hold();
    let mut server = Server::start();
    let accepted = server.http().post("/v1/invoke", turn(&counter)).await.ok();
    let session = accepted["session_id"].as_str().expect("a session").to_owned();
    counter.until(3).await;
    server.kill();
    counter.release();
    server.start_again();
    let http = server.http();
    http.until_idle(&session).await;
    let events = http.events(&session).await;

    let mail = result(&events, "mail");
    assert_eq!((&mail["outcome"], &mail["is_error"]), (&json!("unknown"), &json!(true)));
    assert!(text(&mail["content"]).starts_with("outcome_unknown: `mail`"), "{mail}");
    assert_eq!(counter.keys("mail").len(), 1, "an undeclared call is never repeated");
    for tool in ["look", "book"] {
        let result = result(&events, tool);
        assert_eq!((&result["outcome"], text(&result["content"])), (&json!("completed"), format!("done {tool}")));
        assert_eq!(counter.keys(tool).len(), 2, "{tool} was sent again");
    }
    let keys = counter.keys("book");
    assert!(keys[0] == keys[1] && keys[0].starts_with("loopd_"), "{keys:?}");
    assert_ne!(keys[0], counter.keys("mail")[0]);

    for (name, effect) in CLASSES {
        let call = events.iter().find(|e| e["name"] == name).expect("a call");
        assert_eq!(call["effect"], effect.unwrap_or("once"));
        assert_eq!(call["arguments_digest"].as_str().map(str::len), Some(64));
    }
    let mut spans = Vec::new();
    let trace = http.get(&format!("/v1/sessions/{session}/trace")).await.ok();
    tool_spans(&trace["root"], &mut spans);
    let mail = spans.iter().find(|s| s["attributes"]["gen_ai.tool.name"] == "mail").expect("a span");
    assert_eq!(mail["attributes"]["loopd.call.effect"], "once");
    assert_eq!(mail["attributes"]["loopd.call.outcome"], "unknown");
    assert_eq!(mail["attributes"]["loopd.call.idempotency_key_digest"].as_str().map(str::len), Some(64));
}

#[tokio::test]
async fn killed_after_the_results_were_recorded() {
    let counter = EffectCounter::start().await;
    let mut server = Server::start();
    let mut body = turn(&counter);
    body["background"] = json!(false);
    let mut stream = server.http().invoke_stream(body).await;
    let mut results = 0;
    let session = loop {
        let frame = stream.next().await.expect("more");
        results += usize::from(frame.event == "agent.tool_result");
        if results == 3 {
            break server.http().get("/v1/sessions").await.ok()["data"][0]["id"].as_str().expect("an id").to_owned();
        }
    };
    server.kill();
    server.start_again();
    let http = server.http();
    http.until_idle(&session).await;
    let events = http.events(&session).await;
    assert!(tool_results(&events).iter().all(|r| r["outcome"] == "completed"));
    assert_eq!((tool_results(&events).len(), counter.effects().len()), (3, 3), "what was recorded is not repeated");
}

#[tokio::test]
async fn an_interrupt_does_not_hide_what_may_have_happened() {
    let counter = EffectCounter::start().await;
    counter.hold();
    let server = Server::start();
    let http = server.http();
    let accepted = http.post("/v1/invoke", turn(&counter)).await.ok();
    let session = accepted["session_id"].as_str().expect("a session").to_owned();
    counter.until(3).await;
    let interrupt = json!({"events": [{"type": "user.interrupt"}]});
    http.post(&format!("/v1/sessions/{session}/events"), interrupt).await.ok();
    http.until_idle(&session).await;
    let events = http.events(&session).await;
    for (tool, outcome) in [("look", "interrupted"), ("book", "unknown"), ("mail", "unknown")] {
        assert_eq!(result(&events, tool)["outcome"], outcome, "{tool}");
    }
}

#[tokio::test]
async fn the_operator_says_where_tools_may_go() {
    let counter = EffectCounter::start().await;
    let server = Server::with(Options::default().config("[host_tools]\nallow_hosts = [\"example.com\"]\n"));
    let mut body = turn(&counter);
    body["background"] = json!(false);
    let answer = server.http().invoke(body).await;
    let events = server.http().events(answer["session_id"].as_str().expect("a session")).await;
    for result in tool_results(&events) {
        assert_eq!(result["outcome"], "not_run");
        assert!(text(&result["content"]).contains("host `127.0.0.1` is not among those"), "{result}");
    }
    assert!(counter.effects().is_empty());
}
