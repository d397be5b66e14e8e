//! One exchange with a service: what was sent, and whether anybody can know what became of it.

use crate::attempt::{Attempt, Exchange};
use crate::bounded::Bounded;
use crate::client::deepest_cause;
use crate::port::HostResult;
use async_trait::async_trait;
use loopd_domain::content::ContentBlock;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use std::time::Duration;
use url::Url;

pub(super) struct Request<'a> {
    pub client: &'a reqwest::Client,
    pub url: Url,
    pub timeout: Duration,
    pub body: Vec<u8>,
    pub key: &'a str,
    pub traceparent: Option<&'a str>,
}

#[async_trait]
impl Exchange for Request<'_> {
    async fn attempt(&self) -> Attempt {
        match tokio::time::timeout(self.timeout, self.exchange()).await {
            Ok(attempt) => attempt,
            Err(_) => Attempt::TimedOut(format!("{} did not answer in {} ms", self.shown(), self.timeout.as_millis())),
        }
    }
}

impl Request<'_> {
    /// As messages show it: without query, where some services want keys.
    fn shown(&self) -> String {
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
        answered(status, text)
    }

    fn fault(&self, fault: &reqwest::Error) -> Attempt {
        let cause = deepest_cause(fault);
        match fault.is_connect() || fault.is_builder() {
            true => Attempt::NotSent(format!("{} cannot be reached: {cause}", self.shown())),
            false => Attempt::Lost(format!("{} lost the connection: {cause}", self.shown())),
        }
    }
}

fn answered(status: u16, text: String) -> Attempt {
    let (is_error, text) = match status {
        200..300 => (false, text),
        300..400 => (true, format!("The service answered {status}, a redirect that is not followed: {text}")),
        _ => (true, format!("The service answered {status}: {text}")),
    };
    let result = HostResult::completed(vec![ContentBlock::text(text)], is_error);
    if status >= 500 { Attempt::Failed(result) } else { Attempt::Answered(result) }
}
