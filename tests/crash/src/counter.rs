//! The effect counter: the outside world. A service that remembers every call that reached it, by nonce and key.
//!
//! `POST /effect/{tool}` with `{"nonce", "delay_ms", "fault"}`. The fault strikes at the first send of a nonce: the connection
//! is dropped before or after counting, or the answer is a 500 although it counted. Raw sockets, so that a dropped connection
//! is one.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    pub tool: String,
    pub key: Option<String>,
    /// It had its effect (for a keyed tool: the first send of its key has).
    pub counted: bool,
}

#[derive(Debug, Clone)]
pub struct Counter {
    url: String,
    sends: Arc<Mutex<HashMap<String, Vec<Send>>>>,
}

impl Counter {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the effect counter cannot listen")?;
        let url = format!("http://{}", listener.local_addr()?);
        let counter = Counter { url, sends: Arc::default() };
        let serving = counter.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counter = serving.clone();
                // A caller that hangs up in mid-request is one of the things that are tried.
                tokio::spawn(async move { drop(counter.serve(stream).await) });
            }
        });
        Ok(counter)
    }

    pub fn url(&self, tool: &str) -> String {
        format!("{}/effect/{tool}", self.url)
    }

    /// Every send of a nonce, oldest first.
    pub fn sends(&self, nonce: &str) -> Vec<Send> {
        let sends = self.sends.lock().unwrap_or_else(PoisonError::into_inner);
        sends.get(nonce).cloned().unwrap_or_default()
    }

    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let Some(request) = read(&mut stream).await? else { return Ok(()) };
        let delay = Duration::from_millis(request.body["delay_ms"].as_u64().unwrap_or(0));
        let nonce = request.body["nonce"].as_str().unwrap_or("").to_owned();
        tokio::time::sleep(delay / 2).await;
        let (is_first, fault) = self.arrive(&request, &nonce);
        let fault = fault.filter(|_| is_first);
        tokio::time::sleep(delay / 2).await;
        let (status, body) = match fault.as_deref() {
            Some("drop_before" | "drop_after") => return Ok(()),
            Some("error_after") => ("500 Internal Server Error", json!({"error": "after counting"})),
            _ => ("200 OK", json!({"done": nonce})),
        };
        let body = body.to_string();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
        stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await?;
        Ok(())
    }

    fn arrive(&self, request: &Request, nonce: &str) -> (bool, Option<String>) {
        let mut sends = self.sends.lock().unwrap_or_else(PoisonError::into_inner);
        let of_call = sends.entry(nonce.to_owned()).or_default();
        let is_first = of_call.is_empty();
        let fault = request.body["fault"].as_str().map(str::to_owned);
        let is_repeat = request.key.is_some() && of_call.iter().any(|s| s.counted && s.key == request.key);
        let is_lost = is_first && fault.as_deref() == Some("drop_before");
        let counted = !is_lost && !is_repeat;
        of_call.push(Send { tool: request.tool.clone(), key: request.key.clone(), counted });
        (is_first, fault)
    }
}

struct Request {
    tool: String,
    key: Option<String>,
    body: Value,
}

/// `None` when the caller hung up before it had said all.
async fn read(stream: &mut TcpStream) -> Result<Option<Request>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = field("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        if bytes.len() < head + 4 + length {
            continue;
        }
        let path = text.split(' ').nth(1).unwrap_or("");
        let tool = path.trim_start_matches("/effect/").to_owned();
        let body = serde_json::from_slice(&bytes[head + 4..head + 4 + length]).unwrap_or(Value::Null);
        return Ok(Some(Request { tool, key: field("idempotency-key"), body }));
    }
}
