//! Python peers: one process each, spoken to by lines (`bench/peers/python/harness.py`).

use crate::fake::Fake;
use crate::subject::{Subject, Turn};
use crate::tools::Tools;
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use serde::Deserialize;
use std::ffi::OsStr;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Killed when dropped.
pub struct PythonPeer {
    name: &'static str,
    _child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Line {
    Ready(bool),
    Calls(usize),
}

impl PythonPeer {
    pub async fn start(
        name: &'static str,
        tools: &Tools,
        fake: &Fake,
        script: &str,
        arguments: &[&OsStr],
    ) -> Result<PythonPeer> {
        let mut child = Command::new(tools.python())
            .arg(tools.peers.join("python").join(script))
            .args(arguments)
            .env("OPENAI_BASE_URL", fake.base_url())
            .env("OPENAI_API_KEY", "benchmark")
            .env("LANGSMITH_TRACING", "false")
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting `{script}`"))?;
        let asks = child.stdin.take().context("standard input is piped")?;
        let answers = BufReader::new(child.stdout.take().context("standard output is piped")?).lines();
        let mut peer = PythonPeer { name, _child: child, asks, answers };
        ensure!(matches!(peer.read().await?, Line::Ready(true)), "`{script}` did not say that it is ready");
        Ok(peer)
    }

    async fn read(&mut self) -> Result<Line> {
        let line = self.answers.next_line().await?.context("the process ended; its traceback is above")?;
        serde_json::from_str(&line).with_context(|| format!("its answer `{line}`"))
    }
}

#[async_trait]
impl Subject for PythonPeer {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn turn(&mut self, turn: Turn) -> Result<()> {
        let mut line = serde_json::to_vec(&turn)?;
        line.push(b'\n');
        self.asks.write_all(&line).await?;
        match self.read().await? {
            Line::Calls(calls) => ensure!(calls == turn.steps, "{calls} tool calls in a turn of {} steps", turn.steps),
            Line::Ready(_) => anyhow::bail!("it said that it is ready in the middle of a turn"),
        }
        Ok(())
    }
}
