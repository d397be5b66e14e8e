//! What the start of a session cannot be faster than on this machine: its parts that no server can leave out, one after the other.
//!
//! A request over HTTP that is answered without any work, and a request that arrives at the provider. The disk is no part of it: the model is
//! asked while the session is being written.

use crate::fake::Fake;
use crate::loopd::Loopd;
use anyhow::{Context, Result};
use serde_json::json;
use tokio::time::Instant;

pub struct Floor {
    http: reqwest::Client,
}

impl Floor {
    pub fn new() -> Result<Floor> {
        Ok(Floor { http: reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()? })
    }

    /// Milliseconds of both together.
    pub async fn take(&self, loopd: &Loopd, fake: &Fake) -> Result<f64> {
        let answered = loopd.refused().await?.as_secs_f64();
        Ok((answered + self.arrival(fake).await?) * 1e3)
    }

    async fn arrival(&self, fake: &Fake) -> Result<f64> {
        fake.take_arrival();
        let messages = json!([{"role": "user", "content": "go"}]);
        let body = json!({"model": "read-0", "stream": true, "messages": messages}).to_string();
        let sent = Instant::now();
        let answer = self.http.post(format!("{}/chat/completions", fake.base_url())).body(body).send().await?;
        answer.error_for_status()?.bytes().await?;
        let arrival = fake.take_arrival().context("no model request arrived")?;
        Ok((arrival - sent).as_secs_f64())
    }
}
