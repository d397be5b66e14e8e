//! How a client reaches whichever server serves now.

use crate::room::Isolation;
use crate::stream::Stream;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Between two tries while no server answers.
const PAUSE: Duration = Duration::from_millis(15);

/// What every session of a lane needs of it.
#[derive(Clone)]
pub struct Desk {
    pub http: reqwest::Client,
    pub url: watch::Receiver<String>,
    pub tools: Value,
    /// Of new sessions.
    pub isolation: Isolation,
}

/// What a request came to in the end.
pub enum Answer {
    Acknowledged(Value),
    /// It asks for what cannot be.
    Refused(String),
}

impl Answer {
    /// For a request that must be right.
    pub fn acknowledged(self) -> Result<Value> {
        match self {
            Answer::Acknowledged(value) => Ok(value),
            Answer::Refused(why) => bail!("{why}"),
        }
    }
}

impl Desk {
    /// The same request with the same key until it is acknowledged, or refused for good.
    pub async fn post(&mut self, path: &str, key: &str, body: &Value) -> Result<Answer> {
        loop {
            let url = format!("{}{path}", self.url.borrow_and_update().clone());
            let request = self.http.post(url).header("idempotency-key", key);
            let request = request.header("content-type", "application/json").body(body.to_string()).send();
            let sent = tokio::select! {
                sent = request => sent,
                _ = self.url.changed() => continue,
            };
            if let Ok(response) = sent {
                let status = response.status().as_u16();
                let text = response.text().await;
                match (status, text) {
                    (200..=299, Ok(text)) => {
                        let value = serde_json::from_str(&text).context("an answer is not JSON")?;
                        return Ok(Answer::Acknowledged(value));
                    }
                    (429 | 500.., _) | (_, Err(_)) => {}
                    (400, Ok(text)) => return Ok(Answer::Refused(format!("`{path}` answered 400: {text}"))),
                    (status, Ok(text)) => bail!("`{path}` answered {status}: {text}"),
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// The stream of a session from after `seq`; `None` when it is to be tried again.
    pub async fn open(&mut self, session: &str, seq: u64) -> Result<Option<Stream>> {
        let base = self.url.borrow_and_update().clone();
        let url = format!("{base}/v1/sessions/{session}/events/stream");
        let request = self.http.get(url).header("last-event-id", seq).send();
        let sent = tokio::select! {
            sent = request => sent,
            _ = self.url.changed() => return Ok(None),
        };
        match sent {
            Ok(response) if response.status() == 200 => return Ok(Some(Stream::new(response))),
            Ok(response) if response.status().as_u16() >= 500 || response.status() == 429 => {}
            Ok(response) => bail!("the stream of `{session}` answered {}", response.status()),
            Err(_) => {}
        }
        sleep(PAUSE).await;
        Ok(None)
    }
}
