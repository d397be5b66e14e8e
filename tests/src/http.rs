//! Requests as any client makes them, over the wire and nothing else.

use crate::PATIENCE;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// Status and body; `Null` for a body that is not JSON.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.text);
        self.body
    }

    /// The message of a refusal with this status and error type.
    #[track_caller]
    pub fn refused(&self, status: u16, kind: &str) -> String {
        assert_eq!((self.status, self.body["error"]["type"].as_str()), (status, Some(kind)), "{}", self.text);
        assert_eq!(self.body["type"], "error");
        assert!(self.body["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{}", self.text);
        self.body["error"]["message"].as_str().expect("a message").to_owned()
    }
}

impl Http {
    pub fn new(base: &str, key: Option<String>) -> Self {
        let client = reqwest::Client::builder().timeout(PATIENCE).tls_certs_only([]).no_proxy().build();
        Http { client: client.expect("a client"), base: base.to_owned(), key }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], None).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[], Some(body.to_string().into_bytes())).await
    }
    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.send(Method::POST, path, headers, Some(body.to_string().into_bytes())).await
    }

    /// Any bytes, as JSON or not.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Answer {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("the answer is whole");
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null), text }
    }

    pub async fn invoke(&self, body: Value) -> Value {
        self.post("/v1/invoke", body).await.ok()
    }

    /// A new session that runs what stands in fences.
    pub async fn shell(&self, commands: &str) -> Value {
        self.invoke(json!({"model": "builtin/shell", "input": fenced(commands)})).await
    }

    /// Every event of a session, oldest first.
    pub async fn events(&self, session: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/sessions/{session}/events?limit=1000")).await.ok();
        assert_eq!(answer["next_page"], Value::Null, "more events than a test should make");
        answer["data"].as_array().expect("a list").clone()
    }

    pub async fn status(&self, session: &str) -> String {
        let answer = self.get(&format!("/v1/sessions/{session}")).await.ok();
        answer["status"].as_str().expect("a status").to_owned()
    }

    /// Returns when the session rests.
    pub async fn until_idle(&self, session: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.status(session).await != "idle" {
            assert!(Instant::now() < deadline, "{session} is still not idle");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The session's events from after `seq`, then what comes.
    pub async fn follow(&self, session: &str, seq: u64) -> Stream {
        let path = format!("/v1/sessions/{session}/events/stream");
        Stream::open(self.request(Method::GET, &path).header("last-event-id", seq)).await
    }

    /// What comes, with a query.
    pub async fn follow_with(&self, session: &str, query: &str) -> Stream {
        Stream::open(self.request(Method::GET, &format!("/v1/sessions/{session}/events/stream?{query}"))).await
    }

    pub async fn invoke_stream(&self, mut body: Value) -> Stream {
        body["stream"] = json!(true);
        let request = self.request(Method::POST, "/v1/invoke").header("content-type", "application/json");
        Stream::open(request.body(body.to_string())).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// A shell command as `builtin/shell` wants it.
pub fn fenced(commands: &str) -> String {
    format!("```sh\n{commands}\n```")
}

/// One frame of an event stream.
#[derive(Debug, Clone)]
pub struct Frame {
    pub event: String,
    pub seq: Option<u64>,
    pub data: Value,
}

pub struct Stream {
    response: reqwest::Response,
    text: Vec<u8>,
    ready: VecDeque<Frame>,
    is_cut: bool,
}

impl Stream {
    async fn open(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("the server answers");
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().expect("text").starts_with("text/event-stream"));
        Stream { response, text: Vec::new(), ready: VecDeque::new(), is_cut: false }
    }

    /// The next frame that is not a ping; `None` when the stream ends or breaks.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("something comes, if only a ping");
            self.is_cut = chunk.is_err();
            self.text.extend_from_slice(&chunk.ok().flatten()?);
            while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.text.drain(..end + 2).collect();
                self.ready.extend(parse(&String::from_utf8(frame).expect("UTF-8")));
            }
        }
    }

    /// Everything up to the end of the stream, which must be a proper one.
    pub async fn until_end(&mut self) -> Vec<Frame> {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            seen.push(frame);
        }
        assert!(!self.is_cut, "the stream broke off");
        seen
    }

    /// Frames up to the first for which `done` holds.
    pub async fn until(&mut self, done: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            let last = done(&frame);
            seen.push(frame);
            if last {
                return seen;
            }
        }
        panic!("the stream ended before that; seen: {:?}", seen.iter().map(|f| &f.event).collect::<Vec<_>>());
    }
}

fn parse(frame: &str) -> Option<Frame> {
    let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let event = field("event").expect("every frame has an event line").to_owned();
    let data: Value = serde_json::from_str(field("data")?).expect("data is JSON");
    assert_eq!(data["type"].as_str().unwrap_or(&event), event, "the event line is the type");
    let seq = field("id").map(|id| id.parse().expect("an id is a seq"));
    (event != "ping").then_some(Frame { event, seq, data })
}

/// All text of an answer's `output`, or of a tool result's `content`.
pub fn text(blocks: &Value) -> String {
    let blocks = blocks.as_array().map(Vec::as_slice).unwrap_or_default();
    blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
}

/// The tool results among events, oldest first.
pub fn tool_results(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["type"] == "agent.tool_result").collect()
}
