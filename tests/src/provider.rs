//! A model provider that misbehaves as told: raw bytes on a socket, so that nothing mends what is meant to be broken.

use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// What a request is answered with.
#[derive(Debug, Clone)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub then: Then,
    /// Before the first byte.
    pub delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Close,
    /// Keeps the connection and says nothing more.
    Hang,
    /// Sends the last part again and again.
    Forever,
    /// Ends the connection as a peer that crashed does: with a reset.
    Reset,
}

impl Reply {
    /// A whole answer of any kind.
    pub fn status(status: u16, content_type: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nretry-after-ms: 1\r\n\
             connection: close\r\n\r\n"
        );
        Reply { bytes: [head.as_bytes(), body.as_bytes()].concat(), then: Then::Close, delay: Duration::ZERO }
    }

    /// A refusal that says when to come back.
    pub fn limited(status: u16, seconds: u64) -> Self {
        let body = json!({"error": {"message": "come back later"}}).to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: {seconds}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        Reply { bytes: [head.as_bytes(), body.as_bytes()].concat(), then: Then::Close, delay: Duration::ZERO }
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub fn error(status: u16, message: &str) -> Self {
        Self::status(status, "application/json", &json!({"error": {"message": message}}).to_string())
    }

    /// The beginning of a stream, and what follows it.
    pub fn stream(chunks: &[Value], then: Then) -> Self {
        let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_vec();
        for chunk in chunks {
            bytes.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
        }
        Reply { bytes, then, delay: Duration::ZERO }
    }

    /// A chunk of a chat completion that says something.
    pub fn piece(text: &str) -> Value {
        json!({"id": "c", "object": "chat.completion.chunk", "model": "m",
               "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": null}]})
    }

    /// A chunk that begins a call of `bash`; `arguments` may be cut anywhere.
    pub fn call_piece(arguments: &str) -> Value {
        let function = json!({"name": "bash", "arguments": arguments});
        let calls = json!([{"index": 0, "id": "call_1", "type": "function", "function": function}]);
        json!({"id": "c", "object": "chat.completion.chunk", "model": "m",
               "choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": calls}, "finish_reason": null}]})
    }

    /// Asks for one shell command.
    pub fn runs(command: &str) -> Self {
        let end = json!({"id": "c", "object": "chat.completion.chunk", "model": "m",
                         "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]});
        let call = Self::call_piece(&json!({"command": command}).to_string());
        let mut reply = Self::stream(&[call, end], Then::Close);
        reply.bytes.extend_from_slice(b"data: [DONE]\n\n");
        reply
    }

    /// A proper answer.
    pub fn answer(text: &str) -> Self {
        let end = json!({"id": "c", "object": "chat.completion.chunk", "model": "m",
                         "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
        let mut reply = Self::stream(&[Self::piece(text), end], Then::Close);
        reply.bytes.extend_from_slice(b"data: [DONE]\n\n");
        reply
    }

    pub fn nothing(then: Then) -> Self {
        Reply { bytes: Vec::new(), then, delay: Duration::ZERO }
    }
}

pub struct Provider {
    url: String,
    requests: Arc<AtomicUsize>,
    arrivals: Arc<Mutex<Vec<Instant>>>,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Provider {
    /// Answers the n-th request with `reply(n)`, from 0.
    pub async fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, reply) = (requests.clone(), Arc::new(reply));
        let arrivals: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (times, words) = (arrivals.clone(), heard.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, reply, times, words) = (count.clone(), reply.clone(), times.clone(), words.clone());
                let answer = move |request: String| {
                    times.lock().expect("nobody panics with it").push(Instant::now());
                    words.lock().expect("nobody panics with it").push(request);
                    reply(count.fetch_add(1, Ordering::SeqCst))
                };
                tokio::spawn(async move { serve(stream, answer).await });
            }
        });
        Provider { url, requests, arrivals, heard, task }
    }

    pub async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    /// The base URL of the OpenAI wire.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A model reference of the OpenAI wire that leads here.
    pub fn model(&self) -> Value {
        json!({"id": "openai/m", "base_url": self.url})
    }

    /// When each request came.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.arrivals.lock().expect("nobody panics with it").clone()
    }

    /// Each request as it came, head and body.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("nobody panics with it").clone()
    }

    /// Returns when so many requests have come.
    pub async fn asked(&self, times: usize) {
        let deadline = Instant::now() + crate::PATIENCE;
        while self.requests() < times {
            assert!(Instant::now() < deadline, "asked {} times, not {times}", self.requests());
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request, one reply. Whatever the caller does with its end is its own business.
async fn serve(mut stream: TcpStream, reply: impl FnOnce(String) -> Reply) {
    let Some(request) = read_request(&mut stream).await else { return };
    let reply = reply(request);
    sleep(reply.delay).await;
    if stream.write_all(&reply.bytes).await.is_err() {
        return;
    }
    match reply.then {
        Then::Close => {}
        // Unread bytes of the peer, or this option, make the kernel send a reset instead of an end.
        Then::Reset => drop(rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))),
        Then::Hang => std::future::pending().await,
        Then::Forever => {
            let again = format!("data: {}\n\n", Reply::piece(&"on and on ".repeat(1_000)));
            while stream.write_all(again.as_bytes()).await.is_ok() {}
        }
    }
}

/// Reads head and body; `None` when the caller hung up.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if bytes.len() >= head + 4 + length.unwrap_or(0) {
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
