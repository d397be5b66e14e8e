//! A small MCP server over streamable HTTP, by hand: it lists what a test wants, notes what it is called with, and answers,
//! fails or hangs up.
#![allow(dead_code, reason = "each test program uses its part")]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// What the server does with a call.
#[derive(Debug, Clone)]
pub enum Deed {
    /// `{"content": …}` or any other result.
    Answer(Value),
    RpcError(i64, &'static str),
    Status(u16),
    /// The answer begins, and its connection breaks.
    HangUp,
    /// Nothing comes for a long time.
    Stall,
    /// An event stream that ends before its answer.
    EmptyStream,
}

/// A `tools/call` that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    pub name: String,
    pub arguments: Value,
    pub meta: Value,
}

#[derive(Clone)]
pub struct McpService {
    pub url: String,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    tools: Vec<Value>,
    deeds: VecDeque<Deed>,
    called: Vec<Called>,
    connections: usize,
    listings: usize,
    turned_away: Option<u16>,
    /// Of each request that came in.
    shown: Vec<Option<String>>,
}

impl McpService {
    pub async fn start(tools: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        let notes = Arc::new(Mutex::new(Notes { tools, ..Notes::default() }));
        let service = McpService { url, notes };
        let router = Router::new().route("/mcp", any(take)).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        service
    }

    /// What becomes of the next calls, in turn; afterwards each is answered with `done`.
    pub fn then(&self, deeds: impl IntoIterator<Item = Deed>) {
        self.notes().deeds = deeds.into_iter().collect();
    }

    pub fn lists(&self, tools: Vec<Value>) {
        self.notes().tools = tools;
    }

    /// Answers everything with this status from now on.
    pub fn turns_away(&self, status: Option<u16>) {
        self.notes().turned_away = status;
    }

    pub fn called(&self) -> Vec<Called> {
        self.notes().called.clone()
    }

    /// Returns when there were that many calls.
    pub async fn until_called(&self, n: usize) {
        let wait = async {
            while self.called().len() < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(in_time.is_ok(), "{:?} and no more", self.called());
    }

    /// The keys that calls carried, in order.
    pub fn keys(&self) -> Vec<String> {
        let key = |c: &Called| c.meta["loopd/idempotencyKey"].as_str().unwrap_or("").to_owned();
        self.notes().called.iter().map(key).collect()
    }

    /// What each request had in `authorization`.
    pub fn shown(&self) -> Vec<Option<String>> {
        self.notes().shown.clone()
    }

    pub fn connections(&self) -> usize {
        self.notes().connections
    }

    pub fn listings(&self) -> usize {
        self.notes().listings
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().expect("nobody panics with it")
    }

    fn answer(&self, method: &str, params: &Value) -> Result<Value, Deed> {
        let mut notes = self.notes();
        match method {
            "initialize" => {
                notes.connections += 1;
                let server = json!({"name": "by hand", "version": "1"});
                Ok(json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server}))
            }
            "tools/list" => {
                notes.listings += 1;
                // Two on a page.
                let from: usize = params["cursor"].as_str().map_or(0, |c| c.parse().expect("our own"));
                let page: Vec<Value> = notes.tools.iter().skip(from).take(2).cloned().collect();
                let mut result = json!({"tools": page});
                if from + 2 < notes.tools.len() {
                    result["nextCursor"] = json!((from + 2).to_string());
                }
                Ok(result)
            }
            "tools/call" => {
                let (name, arguments) = (params["name"].as_str().unwrap_or("").to_owned(), params["arguments"].clone());
                notes.called.push(Called { name, arguments, meta: params["_meta"].clone() });
                match notes.deeds.pop_front() {
                    None => Ok(json!({"content": [{"type": "text", "text": "done"}]})),
                    Some(Deed::Answer(result)) => Ok(result),
                    Some(deed) => Err(deed),
                }
            }
            _ => Err(Deed::RpcError(-32601, "no such method")),
        }
    }
}

async fn take(
    State(service): State<McpService>,
    method: axum::http::Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let shown = headers.get("authorization").map(|value| value.to_str().expect("ASCII").to_owned());
    service.notes().shown.push(shown);
    let turned_away = service.notes().turned_away;
    if let Some(status) = turned_away {
        return (StatusCode::from_u16(status).expect("a status"), [("www-authenticate", "Bearer")]).into_response();
    }
    if method != axum::http::Method::POST {
        // No stream of its own, and nothing to end.
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    assert!(headers.get("accept").is_some_and(|a| a.to_str().is_ok_and(|a| a.contains("application/json"))));
    let message: Value = serde_json::from_slice(&body).expect("JSON");
    let Some(id) = message.get("id").cloned() else { return StatusCode::ACCEPTED.into_response() };
    let reply = match service.answer(message["method"].as_str().unwrap_or(""), &message["params"]) {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(Deed::RpcError(code, text)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}})
        }
        Err(Deed::Status(status)) => return StatusCode::from_u16(status).expect("a status").into_response(),
        Err(Deed::Stall) => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            return StatusCode::GATEWAY_TIMEOUT.into_response();
        }
        Err(Deed::EmptyStream) => {
            return ([("content-type", "text/event-stream")], ": nothing more comes\n\n").into_response();
        }
        Err(_) => {
            let broken = std::io::Error::other("the test wants it so");
            let pieces = futures_util::stream::iter([Ok(Bytes::from_static(b"{\"jsonrpc\"")), Err(broken)]);
            return ([("content-type", "application/json")], Body::from_stream(pieces)).into_response();
        }
    };
    ([("content-type", "application/json"), ("mcp-session-id", "s1")], reply.to_string()).into_response()
}

/// A tool as `tools/list` shows it.
pub fn tool(name: &str, annotations: Value) -> Value {
    json!({"name": name, "description": format!("to {name}"), "inputSchema": {"type": "object"}, "annotations": annotations})
}
