//! One attempt at a call: what was sent, and whether anybody can know what became of it.

use crate::bounded::Bounded;
use crate::client::deepest_cause;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use std::time::Duration;
use url::Url;

/// How one attempt ended.
pub(super) enum Attempt {
    Answered {
        status: u16,
        text: String,
    },
    /// The service was not reached.
    NotSent(String),
    /// Sent, in whole or in part, and no whole answer came.
    Lost(String),
    TimedOut(String),
}

pub(super) struct Request<'a> {
    pub client: &'a reqwest::Client,
    pub url: Url,
    pub timeout: Duration,
    pub body: Vec<u8>,
    pub key: &'a str,
    pub traceparent: Option<&'a str>,
}

impl Request<'_> {
    pub(super) async fn send(&self) -> Attempt {
        match tokio::time::timeout(self.timeout, self.exchange()).await {
            Ok(attempt) => attempt,
            Err(_) => Attempt::TimedOut(format!("{} did not answer in {} ms", self.shown(), self.timeout.as_millis())),
        }
    }

    /// As messages show it: without query, where some services want keys.
    pub(super) fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        format!("POST {url}")
    }

    async fn exchange(&self) -> Attempt {
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        request = request.header("idempotency-key", self.key);
        if let Some(traceparent) = self.traceparent {
            request = request.header("traceparent", traceparent);
        }
        let mut response = match request.body(self.body.clone()).send().await {
            Ok(response) => response,
            Err(fault) => return self.fault(&fault),
        };
        let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (status, kind, target) = (response.status().as_u16(), header(CONTENT_TYPE), header(LOCATION));
        let mut body = Bounded::default();
        loop {
            match response.chunk().await {
                Ok(Some(piece)) if body.push(&piece) => {}
                Ok(_) => break,
                Err(fault) => {
                    let cause = deepest_cause(&fault);
                    return Attempt::Lost(format!("{} answered {status} and broke off: {cause}", self.shown()));
                }
            }
        }
        let text = match (300..400).contains(&status) {
            true => format!("`{}`", target.chars().take(200).collect::<String>()),
            false => body.into_text(&kind),
        };
        Attempt::Answered { status, text }
    }

    fn fault(&self, fault: &reqwest::Error) -> Attempt {
        let cause = deepest_cause(fault);
        match fault.is_connect() || fault.is_builder() {
            true => Attempt::NotSent(format!("{} cannot be reached: {cause}", self.shown())),
            false => Attempt::Lost(format!("{} lost the connection: {cause}", self.shown())),
        }
    }
}
