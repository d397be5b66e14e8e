//! MCP tools from an agent's definition to their events, across a `kill -9` of the server.

#[path = "../../crates/host-tools/tests/service/mcp.rs"]
mod service;

use loopd_tests::Server;
use loopd_tests::http::{Http, text};
use loopd_tests::script::{says, script};
use serde_json::{Value, json};
use service::{Deed, McpService, tool};

fn calls(names: &[&str]) -> Value {
    let tools: Vec<Value> =
        names.iter().map(|n| json!({"name": format!("mcp__shop__{n}"), "input": {"n": n}})).collect();
    json!({"tools": tools})
}

/// An agent of the shop's tools.
async fn agent(http: &Http, service: &McpService, steps: Vec<Value>, toolset: Value) -> Value {
    let mut tools = json!({"type": "mcp_toolset", "mcp_server_name": "shop"});
    tools.as_object_mut().expect("an object").extend(toolset.as_object().expect("an object").clone());
    let body = json!({"name": "shopper", "model": "builtin/script", "system": script(steps), "tools": [tools],
        "mcp_servers": [{"type": "url", "name": "shop", "url": service.url}]});
    http.post("/v1/agents", body).await.ok()
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["type"] == kind).collect()
}

#[tokio::test]
async fn asked_for_allowed_and_called() {
    let service = McpService::start(vec![tool("find", json!({"readOnlyHint": true})), tool("buy", json!({}))]).await;
    let server = Server::start();
    let http = server.http();
    let agent = agent(&http, &service, vec![calls(&["find", "buy"]), says("bought")], json!({})).await;
    let servers = json!([{"type": "url", "name": "shop", "url": service.url}]);
    assert_eq!(agent["mcp_servers"], servers);
    assert_eq!(agent["tools"][0]["default_config"]["permission_policy"]["type"], "always_ask");
    let answer = http.invoke(json!({"agent": agent["id"], "input": "go"})).await;
    assert_eq!(answer["status"], "requires_action");
    let pending = answer["pending_actions"].as_array().expect("a list");
    assert_eq!((pending.len(), &pending[0]["type"]), (2, &json!("tool_confirmation")));
    assert!(service.called().is_empty());
    let input: Vec<Value> = pending
        .iter()
        .map(|p| json!({"type": "tool_confirmation", "tool_use_id": p["tool_use_id"], "result": "allow"}))
        .collect();
    let session = answer["session_id"].as_str().expect("a session");
    let answer = http.invoke(json!({"session": session, "input": input})).await;
    assert_eq!((&answer["status"], text(&answer["output"])), (&json!("completed"), "bought".to_owned()));
    let events = http.events(session).await;
    let uses = of(&events, "agent.mcp_tool_use");
    let seen: Vec<_> = uses.iter().map(|u| (&u["mcp_server_name"], &u["name"], &u["effect"])).collect();
    let shop = json!("shop");
    assert_eq!(seen, [(&shop, &json!("find"), &json!("pure")), (&shop, &json!("buy"), &json!("once"))]);
    assert_eq!((uses[0]["evaluated_permission"].as_str(), uses[0].get("called_as")), (Some("ask"), None));
    for result in of(&events, "agent.mcp_tool_result") {
        assert!(uses.iter().any(|u| u["id"] == result["mcp_tool_use_id"]), "{result}");
        assert_eq!((text(&result["content"]), &result["is_error"]), ("done".to_owned(), &json!(false)));
    }
    assert!(of(&events, "loopd.mcp_tools_listed").is_empty(), "it is the journal's alone");
    assert_eq!(http.get(&format!("/v1/sessions/{session}")).await.ok()["agent"]["mcp_servers"], servers);
}

#[tokio::test]
async fn killed_with_calls_on_their_way() {
    let service = McpService::start(vec![
        tool("find", json!({"readOnlyHint": true})),
        tool("buy", json!({})),
        tool("pay", json!({})),
    ])
    .await;
    service.then([Deed::Stall, Deed::Stall, Deed::Stall]);
    let mut server = Server::start();
    let http = server.http();
    let toolset = json!({"default_config": {"permission_policy": {"type": "always_allow"}}, "configs": [{"name": "buy", "effect": "keyed"}]});
    let agent = agent(&http, &service, vec![calls(&["find", "buy", "pay"]), says("bought")], toolset).await;
    let accepted = http.post("/v1/invoke", json!({"agent": agent["id"], "input": "go", "background": true})).await.ok();
    let session = accepted["session_id"].as_str().expect("a session").to_owned();
    service.until_called(3).await;
    server.kill();
    server.start_again();
    let http = server.http();
    http.until_idle(&session).await;
    let events = http.events(&session).await;
    let outcome = |name: &str| {
        let call = events.iter().find(|e| e["type"] == "agent.mcp_tool_use" && e["name"] == name).expect("a call");
        let results = of(&events, "agent.mcp_tool_result");
        results.into_iter().find(|r| r["mcp_tool_use_id"] == call["id"]).expect("a result")["outcome"].clone()
    };
    assert_eq!(
        (outcome("find"), outcome("buy"), outcome("pay")),
        (json!("completed"), json!("completed"), json!("unknown"))
    );
    let keys = |name: &str| -> Vec<String> {
        let called = service.called().into_iter().filter(|c| c.name == name);
        called.map(|c| c.meta["loopd/idempotencyKey"].as_str().expect("a key").to_owned()).collect()
    };
    assert_eq!((keys("find").len(), keys("pay").len()), (2, 1), "an undeclared call is never repeated");
    assert!(keys("buy").len() == 2 && keys("buy")[0] == keys("buy")[1], "{:?}", keys("buy"));
    assert_eq!(service.listings(), 2, "two pages, once: what was listed is in the journal");
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_of_the_session_and_not_its_end() {
    let service = McpService::start(vec![tool("buy", json!({}))]).await;
    service.turns_away(Some(503));
    let server = Server::start();
    let http = server.http();
    let agent = agent(&http, &service, vec![says("without")], json!({})).await;
    let answer = http.invoke(json!({"agent": agent["id"], "input": "go"})).await;
    assert_eq!((&answer["status"], text(&answer["output"])), (&json!("completed"), "without".to_owned()));
    let events = http.events(answer["session_id"].as_str().expect("a session")).await;
    let error = &of(&events, "session.error")[0]["error"];
    assert_eq!((&error["type"], &error["mcp_server_name"]), (&json!("mcp_connection_failed_error"), &json!("shop")));
    assert_eq!(error["retry_status"]["type"], "exhausted");
}
