//! The interface over living sessions: real store, real loop, scripted models, a room without walls.

#![allow(dead_code, reason = "each test file uses its part")]

use crate::below::{House, TestClock, Tools};
use axum::Router;
use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::Request;
use futures_util::StreamExt;
use loopd_broker::Vaults;
use loopd_broker::vault::{LocalKms, MasterKey};
use loopd_domain::{Clock, IdSource};
use loopd_models::{ModelsConfig, Registry};
use loopd_server::{AuthConfig, ServerState, router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tower::ServiceExt;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(15);

struct Ids(AtomicU64);

impl IdSource for Ids {
    fn ulid(&self) -> u128 {
        (TestClock.now().millis() as u128) << 80 | 1 << 79 | u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub struct Live {
    router: Router,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub json: Value,
}

/// One frame of a stream.
#[derive(Debug, Clone)]
pub struct Frame {
    pub event: String,
    pub id: Option<u64>,
    pub data: Value,
}

pub struct Stream {
    body: BodyDataStream,
    buffer: String,
}

impl Live {
    pub async fn open(tools: Tools) -> Live {
        let house = House::open(tools).await;
        let clock = Arc::new(TestClock);
        let models = Registry::from_config(ModelsConfig::default(), &|_| None, clock.clone()).expect("models");
        let kms = LocalKms::new(MasterKey::random().expect("random"), Vec::new());
        let vaults = Vaults::open(house.store.clone(), Arc::new(kms), clock.clone()).await.expect("a new store");
        let vaults = Arc::new(vaults);
        let state = ServerState {
            sessions: house.service.clone(),
            store: house.store.clone(),
            models: Arc::new(models),
            vaults,
            clock,
            ids: Arc::new(Ids(AtomicU64::new(1))),
            auth: Arc::new(AuthConfig::development()),
        };
        Live { router: router(state) }
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.expect("a router always answers");
        let status = response.status().as_u16();
        let body = tokio::time::timeout(PATIENCE, to_bytes(response.into_body(), 64 << 20)).await.expect("in time");
        let json = serde_json::from_slice(&body.expect("a body")).unwrap_or(Value::Null);
        Reply { status, json }
    }

    pub async fn get(&self, path: &str) -> Value {
        let reply = self.send(Request::get(path).body(Body::empty()).expect("a request")).await;
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.json);
        reply.json
    }

    pub async fn try_post(&self, path: &str, body: Value, headers: &[(&str, &str)]) -> Reply {
        self.send(post(path, body, headers)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let reply = self.try_post(path, body, &[]).await;
        assert!(reply.status < 300, "POST {path}: {}", reply.json);
        reply.json
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Request::delete(path).body(Body::empty()).expect("a request")).await
    }

    /// Opens a stream; what it carries is read afterwards.
    pub async fn stream(&self, request: Request<Body>) -> Stream {
        let response = self.router.clone().oneshot(request).await.expect("a router always answers");
        assert_eq!(response.status().as_u16(), 200);
        assert!(response.headers()["content-type"].to_str().expect("ASCII").starts_with("text/event-stream"));
        Stream { body: response.into_body().into_data_stream(), buffer: String::new() }
    }

    pub async fn follow(&self, session: &str, query: &str, last: Option<u64>) -> Stream {
        // As the official clients ask.
        let mut request =
            Request::get(format!("/v1/sessions/{session}/events/stream{query}")).header("accept", "application/json");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        self.stream(request.body(Body::empty()).expect("a request")).await
    }

    /// An agent that plays a script.
    pub async fn agent(&self, script: Value, tools: Value) -> String {
        let body = json!({"name": "player", "model": "builtin/script", "system": script.to_string(), "tools": tools});
        text(&self.post("/v1/agents", body).await["id"])
    }

    pub async fn session(&self, agent: &str) -> String {
        text(&self.post("/v1/sessions", json!({"agent": agent})).await["id"])
    }

    pub async fn say(&self, session: &str, what: &str) -> Value {
        let message = json!({"type": "user.message", "content": [{"type": "text", "text": what}]});
        self.post(&format!("/v1/sessions/{session}/events"), json!({"events": [message]})).await["data"][0].clone()
    }

    pub async fn until_status(&self, session: &str, status: &str) -> Value {
        let wait = async {
            loop {
                let found = self.get(&format!("/v1/sessions/{session}")).await;
                if found["status"] == status {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("in time")
    }
}

impl Stream {
    /// `None` at the end of the stream. Pings are skipped.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            while let Some(end) = self.buffer.find("\n\n") {
                let text: String = self.buffer.drain(..end + 2).collect();
                let frame = parse(&text);
                if frame.event != "ping" {
                    return Some(frame);
                }
            }
            let bytes = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("in time")?.expect("bytes");
            self.buffer.push_str(std::str::from_utf8(&bytes).expect("frames are whole"));
        }
    }

    /// Frames up to and with the first of this kind.
    pub async fn until(&mut self, event: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("the stream ended before `{event}`: {frames:#?}"));
            let done = frame.event == event;
            frames.push(frame);
            if done {
                return frames;
            }
        }
    }
}

fn parse(text: &str) -> Frame {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let data = serde_json::from_str(field("data: ").expect("data")).expect("JSON");
    Frame {
        event: field("event: ").expect("a name").to_owned(),
        id: field("id: ").map(|id| id.parse().expect("a seq")),
        data,
    }
}

pub fn post(path: &str, body: Value, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_string())).expect("a request")
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

pub fn kinds(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|f| f.event.as_str()).collect()
}

pub fn types(list: &Value) -> Vec<&str> {
    list["data"].as_array().expect("a list").iter().map(|e| e["type"].as_str().expect("a type")).collect()
}
