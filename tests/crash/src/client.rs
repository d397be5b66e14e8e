//! One session's client: it sends inputs until they are acknowledged, follows the stream across every fault, and answers
//! what it is asked. It remembers what it was told, for the judge.
//!
//! ```text
//!  send (same key until 2xx) ──► follow (Last-Event-ID) ──► requires_action: answer ──► … ──► end_turn
//!                                   ▲── connection lost, other server: again ──┘
//! ```

use crate::plan::{Plan, TURNS};
use crate::stream::{Frame, Stream};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Between two tries while no server answers.
const PAUSE: Duration = Duration::from_millis(15);

/// What every session of a lane needs of it.
#[derive(Clone)]
pub struct Desk {
    pub http: reqwest::Client,
    pub url: watch::Receiver<String>,
    pub tools: Value,
}

/// An event that the stream showed.
#[derive(Debug, Clone)]
pub struct Seen {
    pub seq: u64,
    pub id: String,
    pub at: Instant,
}

#[derive(Debug, Clone)]
pub struct Session {
    pub id: String,
    pub tag: String,
    pub plan: Plan,
    /// Turns that ended.
    pub turns: usize,
    pub seen: Vec<Seen>,
    /// Texts of messages that were acknowledged.
    pub messages: Vec<String>,
    /// Calls whose answer was acknowledged.
    pub answers: Vec<String>,
    requests: u64,
    is_given_up: bool,
}

impl Session {
    pub fn new(tag: String, plan: Plan) -> Self {
        Session {
            id: String::new(),
            tag,
            plan,
            turns: 0,
            seen: Vec::new(),
            messages: Vec::new(),
            answers: Vec::new(),
            requests: 0,
            is_given_up: false,
        }
    }

    pub fn is_over(&self) -> bool {
        self.turns == TURNS || self.is_given_up
    }

    /// Its place is needed by a new one.
    pub fn give_up(&mut self) {
        self.is_given_up = true;
    }

    /// Runs the next turn to its end, whatever happens to the server meanwhile.
    pub async fn run_turn(&mut self, desk: &mut Desk, answers_early: bool) -> Result<()> {
        self.send_message(desk).await?;
        let mut stream = None;
        let mut asked: Vec<String> = Vec::new();
        loop {
            let Some(frame) = self.next_frame(desk, &mut stream).await? else { continue };
            match frame.data["type"].as_str() {
                Some("agent.custom_tool_use") => {
                    let call = frame.data["id"].as_str().context("a call has an id")?.to_owned();
                    match answers_early {
                        true => self.answer(desk, &call).await?,
                        false => asked.push(call),
                    }
                }
                Some("session.status_idle") => match frame.data["stop_reason"]["type"].as_str() {
                    Some("requires_action") => {
                        for call in std::mem::take(&mut asked) {
                            self.answer(desk, &call).await?;
                        }
                    }
                    Some("end_turn") => {
                        self.turns += 1;
                        return Ok(());
                    }
                    other => bail!("the turn ended with {other:?}: {}", frame.data),
                },
                _ => {}
            }
        }
    }

    async fn send_message(&mut self, desk: &mut Desk) -> Result<()> {
        let text = format!("{} turn {}", self.tag, self.turns);
        let body = match self.id.is_empty() {
            true => json!({"model": "builtin/script", "system": self.plan.script(), "tools": desk.tools,
                           "input": text, "background": true, "title": self.tag}),
            false => json!({"session": self.id, "input": text, "background": true}),
        };
        let answer = self.post(desk, "/v1/invoke", &body).await?;
        let id = answer["session_id"].as_str().context("an acknowledgement names the session")?;
        if !self.id.is_empty() && self.id != id {
            bail!("session `{}` was asked and `{id}` answered", self.id);
        }
        self.id = id.to_owned();
        self.messages.push(text);
        Ok(())
    }

    async fn answer(&mut self, desk: &mut Desk, call: &str) -> Result<()> {
        let content = json!([{"type": "text", "text": format!("answer to {call}")}]);
        let event = json!({"type": "user.custom_tool_result", "custom_tool_use_id": call, "content": content});
        let path = format!("/v1/sessions/{}/events", self.id);
        self.post(desk, &path, &json!({"events": [event]})).await?;
        self.answers.push(call.to_owned());
        Ok(())
    }

    /// The same request with the same key until it is acknowledged. A refusal that is not "try again" is a fault.
    async fn post(&mut self, desk: &mut Desk, path: &str, body: &Value) -> Result<Value> {
        self.requests += 1;
        let key = format!("{}-{}", self.tag, self.requests);
        loop {
            let url = format!("{}{path}", desk.url.borrow_and_update().clone());
            let request = desk.http.post(url).header("idempotency-key", &key);
            let request = request.header("content-type", "application/json").body(body.to_string()).send();
            let sent = tokio::select! {
                sent = request => sent,
                _ = desk.url.changed() => continue,
            };
            if let Ok(response) = sent {
                let status = response.status().as_u16();
                let text = response.text().await;
                match (status, text) {
                    (200..=299, Ok(text)) => return serde_json::from_str(&text).context("an answer is not JSON"),
                    (429 | 500.., _) | (_, Err(_)) => {}
                    (status, Ok(text)) => bail!("`{path}` answered {status}: {text}"),
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// The next entry of the journal, `None` when the stream was lost and is to be opened again.
    async fn next_frame(&mut self, desk: &mut Desk, stream: &mut Option<Stream>) -> Result<Option<Frame>> {
        let Some(open) = stream.as_mut() else {
            *stream = self.open(desk).await?;
            return Ok(None);
        };
        let frame = tokio::select! {
            frame = open.next() => frame,
            _ = desk.url.changed() => Ok(None),
        };
        let Some(frame) = frame? else {
            *stream = None;
            return Ok(None);
        };
        let Some(seq) = frame.seq else { return Ok(None) };
        if self.seen.last().is_some_and(|last| last.seq >= seq) {
            bail!("the stream of `{}` showed {seq} after {:?}", self.id, self.seen.last());
        }
        let id = frame.data["id"].as_str().context("an event has an id")?.to_owned();
        self.seen.push(Seen { seq, id, at: Instant::now() });
        Ok(Some(frame))
    }

    async fn open(&self, desk: &mut Desk) -> Result<Option<Stream>> {
        let base = desk.url.borrow_and_update().clone();
        let url = format!("{base}/v1/sessions/{}/events/stream", self.id);
        let after = self.seen.last().map_or(0, |last| last.seq);
        let request = desk.http.get(url).header("last-event-id", after).send();
        let sent = tokio::select! {
            sent = request => sent,
            _ = desk.url.changed() => return Ok(None),
        };
        match sent {
            Ok(response) if response.status() == 200 => Ok(Some(Stream::new(response))),
            Ok(response) if response.status().as_u16() >= 500 || response.status() == 429 => {
                sleep(PAUSE).await;
                Ok(None)
            }
            Ok(response) => bail!("the stream of `{}` answered {}", self.id, response.status()),
            Err(_) => {
                sleep(PAUSE).await;
                Ok(None)
            }
        }
    }
}
