//! What the start of a session cannot be faster than on this machine: its parts that no server can leave out, one after the other.
//!
//! A request over HTTP that is answered without any work, a page made durable, and a request that arrives at the provider.

use crate::fake::Fake;
use crate::loopd::Loopd;
use anyhow::{Context, Result};
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use tokio::time::Instant;

const PAGE: usize = 4 << 10;
/// Written before, like a log that is used again: a barrier within a file's length costs least.
const PAGES: u64 = 1_024;

pub struct Floor {
    file: Arc<File>,
    http: reqwest::Client,
}

impl Floor {
    /// With a file in this directory, on the disk that the server has.
    pub fn new(directory: &Path) -> Result<Floor> {
        let path = directory.join("floor");
        let file = File::create(&path).with_context(|| format!("`{}`", path.display()))?;
        file.write_all_at(&vec![1; PAGE * PAGES as usize], 0)?;
        file.sync_all()?;
        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        Ok(Floor { file: Arc::new(file), http })
    }

    /// Milliseconds of all parts together.
    pub async fn take(&self, loopd: &Loopd, fake: &Fake) -> Result<f64> {
        let answered = loopd.refused().await?.as_secs_f64();
        let durable = self.commit().await?;
        Ok((answered + durable + self.arrival(fake).await?) * 1e3)
    }

    async fn commit(&self) -> Result<f64> {
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || -> std::io::Result<f64> {
            let begun = Instant::now();
            file.write_all_at(&[2; PAGE], 0)?;
            file.sync_data()?;
            Ok(begun.elapsed().as_secs_f64())
        });
        Ok(written.await??)
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
