//! The outermost layers: ids, envelopes, keys, bounds, panics, repeated requests. No session is needed for these.

mod support;

use axum::body::Body;
use axum::http::Request;
use loopd_domain::limits::BODY_BYTES_MAX;
use loopd_server::AuthConfig;
use loopd_store::StoreError;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use support::moody::Mood;
use support::{House, Reply};

async fn house() -> House {
    House::open(AuthConfig::development()).await
}

fn assert_envelope(reply: &Reply, status: u16, kind: &str) {
    assert_eq!((reply.status, reply.json["error"]["type"].as_str()), (status, Some(kind)), "{reply:?}");
    assert_eq!(reply.json["type"], "error");
    assert!(!reply.message().is_empty());
    let id = reply.json["request_id"].as_str().expect("a request id");
    assert!(id.starts_with("req_") && reply.header("request-id") == id, "{reply:?}");
}

#[tokio::test]
async fn every_answer_has_an_id_and_every_error_the_envelope() {
    let house = house().await;
    let health = house.get("/healthz").await;
    assert_eq!((health.status, health.json["status"].as_str()), (200, Some("ok")));
    assert!(health.header("request-id").starts_with("req_"));
    assert_envelope(&house.get("/v1/nothing").await, 404, "not_found_error");
    let wrong_method = house.send(Request::put("/v1/agents").body(Body::empty()).expect("a request")).await;
    assert_envelope(&wrong_method, 405, "invalid_request_error");
    assert_eq!(wrong_method.header("allow").split(',').count(), 3, "{wrong_method:?}");
}

#[tokio::test]
async fn ids_of_nothing_are_404() {
    let house = house().await;
    for path in [
        "/v1/agents/agent_1",
        "/v1/agents/nonsense",
        "/v1/agents/agent_1/versions",
        "/v1/environments/env_1",
        "/v1/environments/..%2F..%2Fetc",
        "/v1/sessions/sesn_1",
        "/v1/sessions/%00",
        "/v1/sessions/sesn_1/events",
        "/v1/sessions/sesn_1/events/stream",
        "/v1/sessions/sesn_1/threads",
        "/v1/sessions/sesn_1/threads/sthr_1",
        "/v1/sessions/sesn_1/threads/sthr_2",
        "/v1/models/no/such",
    ] {
        assert_envelope(&house.get(path).await, 404, "not_found_error");
    }
    assert_envelope(&house.get("/v1/sessions/%FF").await, 400, "invalid_request_error");
    let environment = house.get("/v1/environments/env_1").await;
    assert_eq!(environment.json["error"]["details"]["error_code"], "environment_not_found");
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let house = house().await;
    let raw = async |kind: &str, body: &'static [u8]| {
        let request = Request::post("/v1/environments").header("content-type", kind).body(Body::from(body));
        house.send(request.expect("a request")).await
    };
    let cases: [(&'static [u8], &str); 7] = [
        (b"{\"name\": \"a\", \"name\": \"b\"}", "`name` is given twice"),
        (b"{\"name\": \"\xff\"}", "not UTF-8 at byte 10"),
        (b"{\"name\": ", "not acceptable JSON"),
        (b"[]", "`body` is `a list of 0`; accepted: an object"),
        (b"{\"name\": 7}", "`name` is `7`"),
        (b"{\"nmae\": \"x\"}", "did you mean `name`?"),
        (b"", "`name` is missing"),
    ];
    for (body, expected) in cases {
        let reply = raw("application/json", body).await;
        assert_envelope(&reply, 400, "invalid_request_error");
        assert!(reply.message().contains(expected), "{}", reply.message());
    }
    let deep: &'static [u8] = format!("{{\"name\": {}{}}}", "[".repeat(100), "]".repeat(100)).leak().as_bytes();
    assert!(raw("application/json", deep).await.message().contains("64 levels"));
    for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"] {
        assert_envelope(&raw(kind, b"{\"name\": \"x\"}").await, 415, "invalid_request_error");
    }
    assert_eq!(raw("application/json; charset=utf-8", b"{\"name\": \"x\"}").await.status, 200);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let house = house().await;
    let announced = Request::post("/v1/environments")
        .header("content-type", "application/json")
        .header("content-length", BODY_BYTES_MAX + 1)
        .body(Body::empty());
    assert_envelope(&house.send(announced.expect("a request")).await, 413, "request_too_large");
    // A body that does not say how long it is.
    let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]));
    let endless =
        Request::post("/v1/environments").header("content-type", "application/json").body(Body::from_stream(chunks));
    assert_envelope(&house.send(endless.expect("a request")).await, 413, "request_too_large");
    let headers = Request::get("/v1/agents").header("x-long", "x".repeat(70_000)).body(Body::empty());
    assert_envelope(&house.send(headers.expect("a request")).await, 431, "request_too_large");
}

#[tokio::test]
async fn keys_are_asked_for_where_there_are_keys() {
    let house = House::open(AuthConfig::with_keys(["good"])).await;
    assert_envelope(&house.get("/v1/environments").await, 401, "authentication_error");
    assert_envelope(&house.get("/v1/nothing").await, 401, "authentication_error");
    for (name, value) in [("authorization", "Bearer good"), ("x-api-key", "good")] {
        let request = Request::get("/v1/environments").header(name, value).body(Body::empty());
        assert_eq!(house.send(request.expect("a request")).await.status, 200, "{name}");
    }
    let bad = Request::get("/v1/environments").header("x-api-key", "bad").body(Body::empty());
    assert_envelope(&house.send(bad.expect("a request")).await, 401, "authentication_error");
    assert_eq!(house.get("/healthz").await.status, 200);
    assert_eq!(house.get("/openapi.json").await.status, 200);
}

#[tokio::test]
async fn a_store_that_fails_is_503_or_500_and_tells_nothing() {
    let house = house().await;
    let mood = |mood: Mood| house.store.feels(mood);
    mood(Mood::Fails(StoreError::Unavailable("/secret/path is full".into())));
    let away = house.get("/v1/environments").await;
    assert_envelope(&away, 503, "api_error");
    assert_eq!(away.header("retry-after"), "1");
    mood(Mood::Fails(StoreError::Damaged("row 7 of /secret/path".into())));
    let damaged = house.get("/v1/environments").await;
    assert_envelope(&damaged, 500, "api_error");
    mood(Mood::Panics);
    let panicked = house.get("/v1/environments").await;
    assert_envelope(&panicked, 500, "api_error");
    for reply in [&away, &damaged, &panicked] {
        assert!(!reply.json.to_string().contains("secret"), "{reply:?}");
    }
    mood(Mood::Well);
    assert_eq!(house.get("/v1/environments").await.status, 200);
}

#[tokio::test]
async fn an_environment_lives() {
    let house = house().await;
    let made = house.post("/v1/environments?beta=true", &json!({"name": "e", "metadata": {"a": "1"}})).await;
    assert_eq!(made.status, 200, "{made:?}");
    let id = made.json["id"].as_str().expect("an id");
    assert_eq!(made.json["config"]["networking"], json!({"type": "unrestricted", "ports": [80, 443]}));
    let path = format!("/v1/environments/{id}");
    assert_eq!(house.get(&path).await.json, made.json);
    house.clock.0.fetch_add(1_000_000, Ordering::Relaxed);
    let same = house.post(&path, &json!({"name": "e"})).await;
    assert_eq!(same.json, made.json, "a change of nothing changes nothing");
    let changed = house.post(&path, &json!({"description": "d", "metadata": {"a": "", "b": "2"}})).await;
    assert_eq!((&changed.json["description"], &changed.json["metadata"]), (&json!("d"), &json!({"b": "2"})));
    assert_ne!(changed.json["updated_at"], made.json["updated_at"]);
    let kind = house.post(&path, &json!({"config": {"type": "self_hosted"}})).await;
    assert_eq!(kind.json["error"]["details"]["error_code"], "invalid_config_type_change");
    // Clients send an empty body with a content type.
    let empty =
        Request::post(format!("{path}/archive")).header("content-type", "application/json").header("content-length", 0);
    let archived = house.send(empty.body(Body::empty()).expect("a request")).await;
    assert!(archived.json["archived_at"].is_string(), "{archived:?}");
    house.clock.0.fetch_add(1_000_000, Ordering::Relaxed);
    assert_eq!(house.post(&format!("{path}/archive"), &json!({})).await.json, archived.json, "archived once");
    let refused = house.post(&path, &json!({"name": "f"})).await;
    assert_eq!(refused.json["error"]["details"]["error_code"], "environment_archived");
    assert_eq!(house.get("/v1/environments").await.json["data"], json!([]));
    assert_eq!(house.get("/v1/environments?include_archived=true").await.json["data"][0]["id"], id);
    let deleted = house.send(Request::delete(&path).body(Body::empty()).expect("a request")).await;
    assert_eq!(deleted.json, json!({"id": id, "type": "environment_deleted"}));
    assert_envelope(&house.get(&path).await, 404, "not_found_error");
}

#[tokio::test]
async fn pages_cover_everything_once() {
    let house = house().await;
    for i in 0..7 {
        house.clock.0.fetch_add(i64::from(i % 2), Ordering::Relaxed);
        house.post("/v1/environments", &json!({"name": format!("e{i}")})).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/environments?limit=3".to_owned();
    loop {
        let page = house.get(&path).await.json;
        let rows = page["data"].as_array().expect("a list");
        seen.extend(rows.iter().map(|e| e["name"].as_str().expect("a name").to_owned()));
        let Some(next) = page["next_page"].as_str() else { break };
        path = format!("/v1/environments?limit=3&page={next}");
    }
    assert_eq!(seen, ["e6", "e5", "e4", "e3", "e2", "e1", "e0"]);
    assert_envelope(&house.get("/v1/environments?page=page_xyz").await, 400, "invalid_request_error");
    assert!(house.get("/v1/environments?limt=1").await.message().contains("did you mean `limit`"));
}

#[tokio::test]
async fn a_key_makes_a_request_have_one_effect() {
    let house = house().await;
    let send = async |key: &str, name: &str| {
        house.post_with("/v1/environments", &json!({"name": name}), &[("idempotency-key", key)]).await
    };
    let first = send("k1", "a").await;
    assert_eq!(send("k1", "a").await.json, first.json);
    assert_ne!(send("k2", "a").await.json["id"], first.json["id"]);
    let other = send("k1", "b").await;
    assert_envelope(&other, 409, "conflict_error");
    assert_eq!(other.header("x-should-retry"), "false");
    assert!(other.message().contains("`k1`"));
    assert_envelope(&send("", "a").await, 400, "invalid_request_error");
    assert_envelope(&send(&"k".repeat(256), "a").await, 400, "invalid_request_error");
    assert_eq!(house.get("/v1/environments").await.json["data"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn an_official_clients_retry_is_told_from_a_second_request() {
    let house = house().await;
    let send = async |count: &str| {
        let headers = [("x-stainless-retry-count", count)];
        let reply = house.post_with("/v1/environments", &json!({"name": "same"}), &headers).await;
        reply.json["id"].as_str().expect("an id").to_owned()
    };
    let mut ids: Vec<Value> = Vec::new();
    // Five equal requests on purpose: five environments. A retry after each: the same one.
    for _ in 0..5 {
        let id = send("0").await;
        assert_eq!((send("1").await, send("2").await), (id.clone(), id.clone()));
        assert!(!ids.contains(&json!(id)));
        ids.push(json!(id));
        house.clock.0.fetch_add(7_000_000, Ordering::Relaxed);
    }
    // A retry across the border of two stretches of time still finds its first attempt.
    house.clock.0.fetch_add(30 * 60_000_000, Ordering::Relaxed);
    assert_eq!(json!(send("1").await), ids[4]);
    // Much later it is a request of its own.
    house.clock.0.fetch_add(3 * 60 * 60_000_000, Ordering::Relaxed);
    assert!(!ids.contains(&json!(send("1").await)));
    // Without the client's counter every request stands for itself.
    let plain = house.post("/v1/environments", &json!({"name": "same"})).await;
    assert!(!ids.contains(&plain.json["id"]));
}

#[tokio::test]
async fn invocations_are_checked_before_anything_happens() {
    let house = house().await;
    let cases = [
        (json!({}), "`input` is missing"),
        (json!({"input": "hi"}), "`model`, `agent` or `session`"),
        (json!({"input": "hi", "agent": "agent_1"}), "no agent `agent_1`"),
        (json!({"input": "hi", "session": "sesn_1"}), "no session `sesn_1`"),
        (json!({"input": "hi", "model": "a/b", "environment": "env_1"}), "no environment `env_1`"),
        (json!({"input": "hi", "model": "a/b", "tools": ["bahs"]}), "did you mean `bash`"),
        (json!({"input": "hi", "modle": "a/b"}), "did you mean `model`"),
        (
            json!({"input": [{"type": "tool_result", "tool_use_id": "sevt_1"}], "model": "a/b"}),
            "tool answers need `session`",
        ),
        (json!({"input": "hi", "model": "no-such-model-anywhere"}), "no-such-model-anywhere"),
    ];
    for (body, expected) in cases {
        let reply = house.post("/v1/invoke", &body).await;
        assert!(reply.status == 400 || reply.status == 404, "{reply:?}");
        assert!(reply.message().contains(expected), "{body}: {}", reply.message());
    }
}
