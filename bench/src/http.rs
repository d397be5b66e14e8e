//! Ports and waiting, for every server that is measured.

use anyhow::{Context, Result, bail};
use std::net::TcpListener;
use std::time::Duration;
use tokio::time::Instant;

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Asks every millisecond until the address answers with success.
pub async fn wait_for(http: &reqwest::Client, url: &str, at_most: Duration) -> Result<()> {
    let until = Instant::now() + at_most;
    loop {
        let last = match http.get(url).send().await {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) => format!("{}", response.status()),
            Err(fault) => format!("{fault}"),
        };
        if Instant::now() >= until {
            bail!("`{url}` did not answer within {at_most:?}: {last}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
