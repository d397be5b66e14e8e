//! Who may call, what for, and the record of it: over a real store, without a socket.

mod support;

use axum::body::Body;
use axum::http::{Method, Request};
use loopd_domain::rate::Rate;
use loopd_server::{AuthConfig, WorkspaceLimits, openapi_document};
use loopd_store::StoreError;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use support::moody::Mood;
use support::{House, Reply};

const OPERATOR: &str = "the-operators-own-key";

async fn open() -> House {
    House::open(AuthConfig::with_keys([OPERATOR])).await
}

async fn call(house: &House, key: &str, method: &str, path: &str, body: Option<&Value>) -> Reply {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(path);
    if !key.is_empty() {
        request = request.header("x-api-key", key);
    }
    let body = match body {
        Some(body) => {
            request = request.header("content-type", "application/json");
            Body::from(body.to_string())
        }
        None => Body::empty(),
    };
    house.send(request.body(body).expect("a request")).await
}

/// A new key and its record.
async fn key(house: &House, by: &str, body: Value) -> (String, Value) {
    let made = call(house, by, "POST", "/v1/keys", Some(&body)).await;
    assert_eq!(made.status, 200, "{}", made.json);
    (made.json["key"].as_str().expect("told once").to_owned(), made.json)
}

async fn agent(house: &House, key: &str) -> String {
    let body = json!({"name": "a", "model": "builtin/shell"});
    let made = call(house, key, "POST", "/v1/agents", Some(&body)).await;
    assert_eq!(made.status, 200, "{}", made.json);
    made.json["id"].as_str().expect("an id").to_owned()
}

async fn log(house: &House, key: &str, query: &str) -> Vec<Value> {
    let read = call(house, key, "GET", &format!("/v1/audit?limit=999{query}"), None).await;
    assert_eq!(read.status, 200, "{}", read.json);
    read.json["data"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_key_is_told_once_and_works_until_it_is_revoked() {
    let house = open().await;
    let (secret, record) = key(&house, OPERATOR, json!({"name": "build"})).await;
    assert!(secret.starts_with("lpd_") && secret.starts_with(record["hint"].as_str().expect("a hint")));
    assert_eq!((&record["scopes"], &record["created_by"]), (&json!(["*"]), &json!("operator")));
    let listed = call(&house, &secret, "GET", "/v1/keys", None).await;
    assert_eq!(listed.status, 200);
    assert!(!listed.json.to_string().contains(&secret), "told again");
    assert_eq!(listed.json["data"][0]["last_used_at"], listed.json["data"][0]["created_at"], "the clock stands still");
    let bearer = Request::get("/v1/agents").header("authorization", format!("Bearer {secret}"));
    assert_eq!(house.send(bearer.body(Body::empty()).expect("a request")).await.status, 200);

    let path = format!("/v1/keys/{}/revoke", record["id"].as_str().expect("an id"));
    assert_eq!(call(&house, OPERATOR, "POST", &path, None).await.status, 200);
    let after = call(&house, &secret, "GET", "/v1/agents", None).await;
    assert_eq!(after.status, 401);
    assert!(after.message().contains("was revoked") && !after.message().contains(&secret), "{}", after.message());
    let listed = call(&house, OPERATOR, "GET", "/v1/keys", None).await;
    assert_eq!(listed.json["data"], json!([]));
    let listed = call(&house, OPERATOR, "GET", "/v1/keys?include_revoked=true", None).await;
    assert_eq!(listed.json["data"][0]["id"], record["id"]);
}

#[tokio::test]
async fn a_key_expires() {
    let house = open().await;
    let at = "2023-11-14T23:13:20Z";
    let (secret, _) = key(&house, OPERATOR, json!({"name": "short", "expires_at": at})).await;
    assert_eq!(call(&house, &secret, "GET", "/v1/agents", None).await.status, 200);
    house.clock.0.fetch_add(3_600_000_000, Ordering::Relaxed);
    let after = call(&house, &secret, "GET", "/v1/agents", None).await;
    assert_eq!(after.status, 401);
    assert!(after.message().contains("has expired"), "{}", after.message());
    let past = json!({"name": "late", "expires_at": at});
    let refused = call(&house, OPERATOR, "POST", "/v1/keys", Some(&past)).await;
    assert!(refused.status == 400 && refused.message().contains("expires_at"), "{}", refused.message());
}

#[tokio::test]
async fn a_scope_that_is_missing_is_named() {
    let house = open().await;
    let (reader, _) = key(&house, OPERATOR, json!({"name": "r", "scopes": ["agents:read", "sessions:write"]})).await;
    assert_eq!(call(&house, &reader, "GET", "/v1/agents", None).await.status, 200);
    let body = json!({"name": "a", "model": "builtin/shell"});
    let refused = call(&house, &reader, "POST", "/v1/agents", Some(&body)).await;
    assert_eq!((refused.status, refused.json["error"]["type"].as_str()), (403, Some("permission_error")));
    assert!(refused.message().contains("`agents:write`"), "{}", refused.message());
    assert_eq!(refused.json["error"]["details"]["error_code"], "missing_scope");
    for path in ["/v1/environments", "/v1/keys", "/v1/audit", "/v1/workspaces", "/v1/models"] {
        assert_eq!(call(&house, &reader, "GET", path, None).await.status, 403, "{path}");
    }
    assert_eq!(call(&house, &reader, "GET", "/v1/sessions", None).await.status, 200);
}

/// With a key that has no scope of use, every described route is a 403, before its handler looks at anything.
#[tokio::test]
async fn no_route_forgets_its_scope() {
    let house = open().await;
    let (audits, _) = key(&house, OPERATOR, json!({"name": "audits", "scopes": ["audit:read"]})).await;
    let (agents, _) = key(&house, OPERATOR, json!({"name": "agents", "scopes": ["agents:read"]})).await;
    let mut seen = 0;
    for (method, path) in routes() {
        let given = if path == "/v1/audit" { &agents } else { &audits };
        let reply = call(&house, given, &method, &path.replace(['{', '}'], ""), None).await;
        assert_eq!(reply.status, 403, "{method} {path}: {}", reply.json);
        let stranger = call(&house, "", &method, &path, None).await;
        assert_eq!(stranger.status, 401, "{method} {path}");
        seen += 1;
    }
    assert!(seen > 35, "{seen}");
}

fn routes() -> Vec<(String, String)> {
    let document = serde_json::to_value(openapi_document()).expect("serialises");
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("methods").keys() {
            routes.push((method.to_uppercase(), path.clone()));
        }
    }
    routes.retain(|(_, path)| path.starts_with("/v1/"));
    routes
}

/// Every route whose path names something, asked by a caller of another workspace.
#[tokio::test]
async fn what_belongs_to_another_workspace_is_not_there() {
    let house = open().await;
    let (own, record) = key(&house, OPERATOR, json!({"name": "own", "workspace": "team-a"})).await;
    let (other, _) = key(&house, OPERATOR, json!({"name": "other", "workspace": "team-b"})).await;
    let agent = agent(&house, &own).await;
    let made = |path: &'static str, body: Value| {
        let (house, own) = (&house, own.clone());
        async move {
            let made = call(house, &own, "POST", path, Some(&body)).await;
            assert_eq!(made.status, 200, "{path}: {}", made.json);
            made.json["id"].as_str().expect("an id").to_owned()
        }
    };
    let environment = made("/v1/environments", json!({"name": "e"})).await;
    let session = made("/v1/sessions", json!({"agent": agent})).await;
    let vault = made("/v1/vaults", json!({"display_name": "v"})).await;
    let thread = format!("sthr_{}", session.trim_start_matches("sesn_"));
    let ids = [
        ("{agent_id}", agent.as_str()),
        ("{environment_id}", &environment),
        ("{session_id}", &session),
        ("{thread_id}", &thread),
        ("{event_id}", "sevt_1"),
        ("{vault_id}", &vault),
        ("{credential_id}", "vcrd_1"),
        ("{key_id}", record["id"].as_str().expect("an id")),
    ];
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "hi"}]});
    let mut walked = 0;
    // Models are everybody's, and workspaces of whoever may reach beyond his own.
    let is_of_one = |path: &str| path.contains('{') && !path.contains("{model_id}") && !path.contains("{workspace_id}");
    for (method, path) in routes().into_iter().filter(|(_, path)| is_of_one(path)) {
        let filled = ids.iter().fold(path.clone(), |path, (name, id)| path.replace(name, id));
        assert!(!filled.contains('{'), "an id of another noun: give this test one for {path}");
        let body = match (method.as_str(), path.as_str()) {
            ("GET" | "DELETE", _) => None,
            (_, "/v1/agents/{agent_id}") => Some(json!({"version": 1, "name": "mine now"})),
            (_, "/v1/sessions/{session_id}/events") => Some(json!({"events": [message]})),
            _ => Some(json!({})),
        };
        let stolen = call(&house, &other, &method, &filled, body.as_ref()).await;
        assert_eq!(stolen.status, 404, "{method} {path}: {}", stolen.json);
        walked += 1;
    }
    assert!(walked > 30, "{walked}");
    for (path, body) in [
        ("/v1/sessions", json!({"agent": agent})),
        ("/v1/sessions", json!({"agent": {"type": "agent_with_overrides", "id": agent, "system": "x"}})),
        ("/v1/sessions", json!({"agent": agent, "vault_ids": [vault]})),
        ("/v1/invoke", json!({"agent": agent, "input": "hi"})),
        ("/v1/invoke", json!({"session": session, "input": "hi"})),
        ("/v1/invoke", json!({"model": "builtin/shell", "environment": environment, "input": "hi"})),
    ] {
        let stolen = call(&house, &other, "POST", path, Some(&body)).await;
        assert_eq!(stolen.status, 404, "{path} {body}: {}", stolen.json);
    }
    for path in ["/v1/agents", "/v1/environments", "/v1/sessions", "/v1/vaults"] {
        let listed = call(&house, &other, "GET", path, None).await;
        assert_eq!(listed.json["data"], json!([]), "{path}");
        let listed = call(&house, &own, "GET", path, None).await;
        assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1), "{path}");
    }
    // The other's log says nothing of it either.
    assert!(log(&house, &other, "").await.iter().all(|entry| entry["actor"]["id"] != record["id"]));
    assert_eq!(call(&house, &other, "GET", "/v1/audit?workspace=team-a", None).await.status, 403);
    assert_eq!(call(&house, &other, "GET", "/v1/keys?workspace=team-a", None).await.status, 403);
    assert_eq!(call(&house, &other, "GET", "/v1/keys?workspace=team-b", None).await.status, 200);
}

#[tokio::test]
async fn nobody_gives_what_he_does_not_have() {
    let house = open().await;
    let (tenant, _) = key(&house, OPERATOR, json!({"name": "t", "workspace": "team-a"})).await;
    let (maker, _) = key(&house, &tenant, json!({"name": "m", "scopes": ["keys:write", "agents:read"]})).await;
    for (by, scopes) in
        [(&maker, json!(["agents:write"])), (&maker, json!(["*"])), (&tenant, json!(["workspaces:read"]))]
    {
        let refused = call(&house, by, "POST", "/v1/keys", Some(&json!({"name": "x", "scopes": scopes}))).await;
        assert_eq!(refused.status, 403, "{scopes}: {}", refused.json);
    }
    let refused = call(&house, &maker, "POST", "/v1/keys", Some(&json!({"name": "x"}))).await;
    assert_eq!(refused.status, 403, "`*` is what a key gets when nothing is said");
    key(&house, &maker, json!({"name": "x", "scopes": ["agents:read"]})).await;
    for workspace in ["team-b", "default"] {
        let foreign = json!({"name": "x", "workspace": workspace, "scopes": ["agents:read"]});
        let refused = call(&house, &tenant, "POST", "/v1/keys", Some(&foreign)).await;
        assert_eq!(refused.status, 403, "{}", refused.json);
    }
    let there = call(&house, OPERATOR, "GET", "/v1/workspaces", None).await;
    let names: Vec<&str> =
        there.json["data"].as_array().expect("a list").iter().filter_map(|w| w["name"].as_str()).collect();
    assert_eq!(names, ["default", "team-a"], "a refused request makes no workspace");
}

#[tokio::test]
async fn a_workspace_that_requires_walls_refuses_weaker_environments() {
    let house = open().await;
    let workspace = |body: Value| call_workspaces(&house, "/v1/workspaces", body);
    let made = workspace(json!({"name": "team-a", "require_isolation": "microvm"})).await;
    assert_eq!((made.status, &made.json["require_isolation"]), (200, &json!("microvm")), "{}", made.json);
    let id = made.json["id"].as_str().expect("an id").to_owned();
    // What was asked for before is the answer, and nothing weaker is taken for it.
    assert_eq!(workspace(json!({"name": "team-a"})).await.json["require_isolation"], "microvm");
    let other = workspace(json!({"name": "team-a", "require_isolation": "namespaces"})).await;
    assert_eq!(other.status, 409);
    assert!(other.message().contains("requires `microvm`, not `namespaces`"), "{}", other.message());
    let unknown = workspace(json!({"name": "team-b", "require_isolation": "jail"})).await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.message().contains("`namespaces`, `microvm`"), "{}", unknown.message());

    let (tenant, _) = key(&house, OPERATOR, json!({"name": "t", "workspace": "team-a"})).await;
    let environment = |config: Value| json!({"name": "e", "config": config});
    let create =
        async |config: Value| call(&house, &tenant, "POST", "/v1/environments", Some(&environment(config))).await;
    for config in [json!({}), json!({"isolation": "namespaces"})] {
        let refused = create(config).await;
        assert_eq!(refused.status, 400);
        let told = "`config.isolation` is `namespaces`; accepted: `microvm`, as workspace `team-a` requires";
        assert_eq!(refused.message(), told);
    }
    let strong = create(json!({"isolation": "microvm", "hibernation": "memory"})).await;
    assert_eq!((strong.status, &strong.json["config"]["hibernation"]), (200, &json!("memory")));
    let path = format!("/v1/environments/{}", strong.json["id"].as_str().expect("an id"));
    let weaker = json!({"config": {"isolation": "namespaces", "hibernation": "workspace"}});
    let refused = call(&house, &tenant, "POST", &path, Some(&weaker)).await;
    assert!(refused.status == 400 && refused.message().contains("`team-a`"), "{}", refused.json);
    let body = json!({"model": "builtin/shell", "input": "hi"});
    let refused = call(&house, &tenant, "POST", "/v1/invoke", Some(&body)).await;
    assert!(refused.status == 400 && refused.message().contains("`environment.isolation`"), "{}", refused.json);

    // A tenant cannot lower it, the operator can, by name or id, and it is on record.
    let lower = json!({"require_isolation": "namespaces"});
    assert_eq!(call(&house, &tenant, "POST", &format!("/v1/workspaces/{id}"), Some(&lower)).await.status, 403);
    assert_eq!(call_workspaces(&house, "/v1/workspaces/team-x", lower.clone()).await.status, 404);
    let kept = call_workspaces(&house, "/v1/workspaces/team-a", json!({})).await;
    assert_eq!(kept.json["require_isolation"], "microvm");
    let lowered = call_workspaces(&house, "/v1/workspaces/team-a", lower).await;
    assert_eq!(lowered.json["require_isolation"], "namespaces");
    assert_eq!(create(json!({})).await.status, 200);
    let entries = log(&house, OPERATOR, &format!("&action=workspaces.update&resource={id}")).await;
    assert_eq!(entries.iter().filter(|entry| entry["result"]["type"] == "done").count(), 2, "{entries:?}");
}

async fn call_workspaces(house: &House, path: &str, body: Value) -> Reply {
    call(house, OPERATOR, "POST", path, Some(&body)).await
}

#[tokio::test]
async fn the_first_key_closes_the_door() {
    let house = House::open(AuthConfig::development()).await;
    let (secret, _) = key(&house, "", json!({"name": "first"})).await;
    assert_eq!(call(&house, "", "GET", "/v1/agents", None).await.status, 401);
    assert_eq!(call(&house, "wrong", "GET", "/v1/agents", None).await.status, 401);
    assert_eq!(call(&house, &secret, "GET", "/v1/agents", None).await.status, 200);
    assert_eq!(call(&house, "", "GET", "/healthz", None).await.status, 200);
}

#[tokio::test]
async fn every_change_is_on_record_and_says_who_what_and_what_came_of_it() {
    let house = open().await;
    let (secret, record) = key(&house, OPERATOR, json!({"name": "k"})).await;
    let agent = agent(&house, &secret).await;
    assert_eq!(call(&house, &secret, "GET", "/v1/agents", None).await.status, 200);
    let absent = call(&house, &secret, "POST", "/v1/agents/agent_gone/archive", None).await;
    assert_eq!(absent.status, 404);
    house.store.feels(Mood::Fails(StoreError::Unavailable("the disk is full".to_owned())));
    assert_eq!(call(&house, &secret, "POST", "/v1/environments", Some(&json!({"name": "e"}))).await.status, 503);
    house.store.feels(Mood::Well);
    let entries = log(&house, OPERATOR, "").await;
    let short: Vec<(&str, &str, &str, &str)> = entries
        .iter()
        .map(|e| {
            let text = |value: &Value| value.as_str().map(|t| &*t.to_owned().leak()).unwrap_or("");
            (text(&e["actor"]["type"]), text(&e["action"]), text(&e["resource"]), text(&e["result"]["type"]))
        })
        .collect();
    let key_id = record["id"].as_str().expect("an id");
    assert_eq!(
        short,
        [
            ("api_key", "environments.create", "", "failed"),
            ("api_key", "agents.archive", "agent_gone", "refused"),
            ("api_key", "agents.create", agent.as_str(), "done"),
            ("operator", "keys.create", key_id, "done"),
        ]
    );
    assert_eq!(entries[1]["result"]["reason"], "404 not_found_error");
    assert_eq!(entries[1]["request_id"], absent.header("request-id"));
    assert_eq!(log(&house, OPERATOR, &format!("&actor={key_id}&action=agents.create")).await.len(), 1);
    assert_eq!(log(&house, OPERATOR, &format!("&resource={agent}")).await.len(), 1);
    assert_eq!(log(&house, OPERATOR, "&created_at[gt]=2023-11-14T22:13:20Z").await.len(), 0);
    let page = call(&house, OPERATOR, "GET", "/v1/audit?limit=3", None).await;
    let next = page.json["next_page"].as_str().expect("a second page");
    let last = call(&house, OPERATOR, "GET", &format!("/v1/audit?limit=3&page={next}"), None).await;
    assert_eq!((last.json["data"][0]["action"].as_str(), &last.json["next_page"]), (Some("keys.create"), &Value::Null));
}

#[tokio::test]
async fn who_was_turned_away_is_on_record_and_a_flood_of_them_is_counted() {
    let house = open().await;
    let (reader, _) = key(&house, OPERATOR, json!({"name": "r", "scopes": ["agents:read"]})).await;
    call(&house, &reader, "GET", "/v1/sessions", None).await;
    for _ in 0..1_000 {
        assert_eq!(call(&house, "wrong", "DELETE", "/v1/sessions/sesn_1", None).await.status, 401);
    }
    let refused = log(&house, OPERATOR, "&action=sessions.list").await;
    assert_eq!(refused[0]["result"], json!({"type": "refused", "reason": "403 permission_error: sessions:read"}));
    let flood = log(&house, OPERATOR, "&actor=unknown").await;
    assert!((100..=200).contains(&flood.len()), "{}", flood.len());
    assert_eq!((&flood[0]["action"], &flood[0]["resource"]), (&json!("sessions.delete"), &json!("sesn_1")));
    house.clock.0.fetch_add(1_000_000, Ordering::Relaxed);
    call(&house, "wrong", "GET", "/v1/agents", None).await;
    let counted = log(&house, OPERATOR, "&action=audit.skipped").await;
    let missing: usize =
        counted.iter().filter_map(|e| e["result"]["reason"].as_str()?.split(' ').next()?.parse::<usize>().ok()).sum();
    assert_eq!(missing + flood.len(), 1_000, "{counted:?}");
}

/// Keys in headers, in paths, in bodies and in queries: none of them is in any file of the store.
#[tokio::test]
async fn no_secret_is_on_record() {
    let house = open().await;
    let (secret, _) = key(&house, OPERATOR, json!({"name": "k"})).await;
    let body = json!({"name": "a", "model": "builtin/shell", "nonsense": secret});
    call(&house, &secret, "POST", "/v1/agents", Some(&body)).await;
    let wrong = secret.replace("lpd_", "lpd_1");
    for path in [format!("/v1/keys/{secret}/revoke"), format!("/v1/agents/{secret}?x={secret}"), format!("/{secret}")] {
        call(&house, &secret, "POST", &path, Some(&json!({"reason": secret}))).await;
        call(&house, &wrong, "POST", &path, None).await;
    }
    assert!(log(&house, OPERATOR, "").await.len() >= 4);
    let random = secret.trim_start_matches("lpd_").as_bytes();
    for needle in [random, OPERATOR.as_bytes()] {
        for file in std::fs::read_dir(house.directory.path()).expect("listed") {
            let path = file.expect("a file").path();
            let bytes = if path.is_file() { std::fs::read(&path).expect("readable") } else { Vec::new() };
            assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let limits = WorkspaceLimits { requests: Rate { per_second: 1, burst: 5 }, streams: 1 };
    let house = House::open_with(AuthConfig::with_keys([OPERATOR]), limits).await;
    let (other, _) = key(&house, OPERATOR, json!({"name": "o", "workspace": "team-a"})).await;
    let mut last = 200;
    for _ in 0..5 {
        last = call(&house, OPERATOR, "GET", "/v1/agents", None).await.status;
    }
    assert_eq!(last, 429);
    let refused = call(&house, OPERATOR, "GET", "/v1/agents", None).await;
    assert_eq!(
        (refused.json["error"]["type"].as_str(), refused.header("retry-after")),
        (Some("rate_limit_error"), "1")
    );
    assert_eq!(call(&house, &other, "GET", "/v1/agents", None).await.status, 200, "another workspace's share");
    assert_eq!(call(&house, "", "GET", "/healthz", None).await.status, 200);
    house.clock.0.fetch_add(1_000_000, Ordering::Relaxed);
    assert_eq!(call(&house, OPERATOR, "GET", "/v1/agents", None).await.status, 200);
}

#[tokio::test]
async fn streams_of_a_workspace_are_counted_while_they_are_open() {
    let limits = WorkspaceLimits { streams: 1, ..WorkspaceLimits::default() };
    let house = House::open_with(AuthConfig::with_keys([OPERATOR]), limits).await;
    let agent = agent(&house, OPERATOR).await;
    let session = call(&house, OPERATOR, "POST", "/v1/sessions", Some(&json!({"agent": agent}))).await;
    let path = format!("/v1/sessions/{}/events/stream", session.json["id"].as_str().expect("an id"));
    let request = || Request::get(&path).header("x-api-key", OPERATOR).body(Body::empty()).expect("a request");
    let first = house.answer(request()).await;
    assert_eq!(first.status().as_u16(), 200);
    let second = house.answer(request()).await;
    assert_eq!(second.status().as_u16(), 429);
    assert_eq!(second.headers()["retry-after"], "1");
    let invoke = json!({"model": "builtin/shell", "input": "hi", "stream": true});
    assert_eq!(call(&house, OPERATOR, "POST", "/v1/invoke", Some(&invoke)).await.status, 429);
    let sessions = call(&house, OPERATOR, "GET", "/v1/sessions", None).await;
    assert_eq!(sessions.json["data"].as_array().map(Vec::len), Some(1), "what could not be read was not started");
    drop(first);
    let reopened = async {
        while house.answer(request()).await.status().as_u16() != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), reopened).await.expect("its place is free again");
}
