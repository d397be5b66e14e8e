//! The Restate peer: a server with its defaults, and a Node process that serves the agent (`bench/peers/node`).

use crate::fake::Fake;
use crate::http::{free_port, wait_for};
use crate::subject::{Subject, Turn};
use crate::tools::Tools;
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

const START_WAIT: Duration = Duration::from_secs(60);

/// Both processes are killed when dropped.
pub struct RestatePeer {
    http: reqwest::Client,
    turns: String,
    _server: Child,
    _service: Child,
}

impl RestatePeer {
    /// `data` is the server's directory; its log is written beside it.
    pub async fn start(tools: &Tools, fake: &Fake, data: &Path) -> Result<RestatePeer> {
        let [ingress, admin, node, service] = [free_port()?, free_port()?, free_port()?, free_port()?];
        let service_process = Command::new("node")
            .arg(tools.node().join("restate.mjs"))
            .arg(service.to_string())
            .env("OPENAI_BASE_URL", fake.base_url())
            .env("OPENAI_API_KEY", "benchmark")
            .env("RESTATE_LOGGING", "ERROR")
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting `node restate.mjs`")?;
        let log = std::fs::File::create(data.with_extension("log"))?;
        let server_process = Command::new(server_program(&tools.node()))
            .arg("--base-dir")
            .arg(data)
            .args(["--listen-mode", "tcp", "--no-logo"])
            .env("RESTATE_BIND_ADDRESS", format!("127.0.0.1:{node}"))
            .env("RESTATE_INGRESS__BIND_ADDRESS", format!("127.0.0.1:{ingress}"))
            .env("RESTATE_ADMIN__BIND_ADDRESS", format!("127.0.0.1:{admin}"))
            .env("RESTATE_DISABLE_TELEMETRY", "true")
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("starting `restate-server`")?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        wait_for(&http, &format!("http://127.0.0.1:{admin}/health"), START_WAIT).await?;
        wait_for(&http, &format!("http://127.0.0.1:{ingress}/restate/health"), START_WAIT).await?;
        register(&http, admin, service).await?;
        let turns = format!("http://127.0.0.1:{ingress}/agent/turn");
        Ok(RestatePeer { http, turns, _server: server_process, _service: service_process })
    }
}

#[async_trait]
impl Subject for RestatePeer {
    fn name(&self) -> &'static str {
        "Restate, TypeScript SDK, `ctx.run` per call"
    }

    async fn turn(&mut self, turn: Turn) -> Result<()> {
        let response = self
            .http
            .post(&self.turns)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&turn)?)
            .send()
            .await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{status}: {text}");
        let answer: Value = serde_json::from_str(&text)?;
        ensure!(answer["calls"] == turn.steps, "a turn of {} steps answered {text}", turn.steps);
        Ok(())
    }
}

async fn register(http: &reqwest::Client, admin: u16, service: u16) -> Result<()> {
    let body = json!({"uri": format!("http://127.0.0.1:{service}")}).to_string();
    let response = http
        .post(format!("http://127.0.0.1:{admin}/deployments"))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await?;
    let status = response.status();
    ensure!(status.is_success(), "registering the service: {status}: {}", response.text().await?);
    Ok(())
}

/// The program itself rather than npm's wrapper around it.
fn server_program(node: &Path) -> PathBuf {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    node.join(format!("node_modules/@restatedev/restate-server-linux-{arch}/bin/restate-server"))
}
