//! The measured server: the release binary, its own data directory, spoken to over HTTP as by any client.

use crate::fake::Fake;
use crate::http::{free_port, wait_for};
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use loopd_domain::Timestamp;
use loopd_domain::environment::Accelerator;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

const START_WAIT: Duration = Duration::from_secs(30);
const STOP_WAIT: Duration = Duration::from_secs(30);
/// Rows of one page of events; the server's maximum.
const PAGE: usize = 1_000;

/// Killed when dropped; see [`Loopd::stop`] for an orderly end.
pub struct Loopd {
    http: reqwest::Client,
    base: String,
    child: Child,
    data: PathBuf,
    /// From starting the process to its first answer.
    pub started_in: Duration,
}

/// An event as the list shows it, as far as a measurement needs it.
#[derive(Debug, Deserialize)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "processed_at")]
    pub at: Option<Timestamp>,
    #[serde(default)]
    pub is_error: bool,
    #[serde(default)]
    pub content: Value,
    #[serde(default)]
    pub stop_reason: Value,
    /// Of the machine that a session got.
    #[serde(default)]
    pub accelerator: Option<Accelerator>,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Event>,
    next_page: Option<String>,
}

impl Loopd {
    /// `data` need not exist. The log is written beside it.
    pub async fn start(program: &Path, data: &Path, fake: &Fake) -> Result<Loopd> {
        Self::launch(&[], program, data, fake, &[], &[]).await
    }

    pub async fn start_with(program: &Path, data: &Path, fake: &Fake, more: &[&str]) -> Result<Loopd> {
        Self::launch(&[], program, data, fake, more, &[]).await
    }

    /// With rooms that are built when they are wanted.
    pub async fn start_without_waiting_rooms(program: &Path, data: &Path, fake: &Fake) -> Result<Loopd> {
        Self::launch(&[], program, data, fake, &[], &[("LOOPD_WAITING_ROOMS", "0")]).await
    }

    /// Run by another program, which must exit with it.
    pub async fn start_under(around: &[&str], program: &Path, data: &Path, fake: &Fake) -> Result<Loopd> {
        Self::launch(around, program, data, fake, &[], &[]).await
    }

    async fn launch(
        around: &[&str],
        program: &Path,
        data: &Path,
        fake: &Fake,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Loopd> {
        let port = free_port()?;
        let log: PathBuf = data.with_extension("log");
        let out = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        let start = Instant::now();
        let mut command = match around {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        let child = command
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(data)
            .args(more)
            .envs(environment.iter().copied())
            .env("OPENAI_BASE_URL", fake.base_url())
            .env("OPENAI_API_KEY", "benchmark")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting `{}`", program.display()))?;
        let base = format!("http://127.0.0.1:{port}");
        let answered = wait_for(&http, &format!("{base}/v1/models"), START_WAIT).await;
        answered.with_context(|| format!("its log is `{}`", log.display()))?;
        Ok(Loopd { http, base, child, data: data.to_owned(), started_in: start.elapsed() })
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("the server ended")
    }

    /// First processes of its sessions' rooms.
    pub fn rooms(&self) -> Result<Vec<u32>> {
        process::recorded(&self.data.join("rooms"))
    }

    /// First processes of rooms that wait for a session.
    pub fn waiting(&self) -> Result<Vec<u32>> {
        let servers = std::fs::read_dir(self.data.join("spares"))?;
        let found = servers.map(|server| process::recorded(&server?.path())).collect::<Result<Vec<_>>>()?;
        Ok(found.concat())
    }

    /// Processes in its sessions' rooms.
    pub fn inhabitants(&self) -> Result<Vec<u32>> {
        let rooms = self.rooms()?.into_iter().map(process::tree).collect::<Result<Vec<_>>>()?;
        Ok(rooms.concat())
    }

    /// `POST /v1/invoke`; the answer's object.
    pub async fn invoke(&self, body: &Value) -> Result<Value> {
        self.post("/v1/invoke", body).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        read(request.body(body.to_string())).await
    }

    pub async fn session(&self, id: &str) -> Result<Value> {
        read(self.http.get(format!("{}/v1/sessions/{id}", self.base))).await
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        read(self.http.get(format!("{}{path}", self.base))).await
    }

    /// How long it takes to be told that there is no such thing.
    pub async fn refused(&self) -> Result<Duration> {
        let begun = Instant::now();
        let response = self.http.get(format!("{}/v1/nothing", self.base)).send().await?;
        let status = response.status();
        response.bytes().await?;
        ensure!(status == reqwest::StatusCode::NOT_FOUND, "`/v1/nothing` answered {status}");
        Ok(begun.elapsed())
    }

    /// Ends the room and removes the session, files and history.
    pub async fn delete(&self, id: &str) -> Result<()> {
        read(self.http.delete(format!("{}/v1/sessions/{id}", self.base))).await.map(|_| ())
    }

    /// The whole history, oldest first.
    pub async fn events(&self, id: &str) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let mut query = vec![("limit", PAGE.to_string()), ("order", "asc".to_owned())];
            query.extend(page.map(|cursor| ("page", cursor)));
            let url = reqwest::Url::parse_with_params(&format!("{}/v1/sessions/{id}/events", self.base), query)?;
            let got: Page = serde_json::from_value(read(self.http.get(url)).await?)?;
            events.extend(got.data);
            match got.next_page {
                Some(next) => page = Some(next),
                None => return Ok(events),
            }
        }
    }

    /// SIGKILL.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("killing the server")
    }

    /// Asks it to end, rooms included, and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        // Another program may stand around it, and hands no signal on.
        let server = crate::process::tree(self.pid()?)?.into_iter().find(|pid| crate::process::name(*pid) == "loopd");
        let pid = server.and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).context("the server ended")?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        match tokio::time::timeout(STOP_WAIT, self.child.wait()).await {
            Ok(status) => status.map(|_| ()).context("waiting for the server"),
            Err(_) => bail!("the server did not end within {STOP_WAIT:?} of SIGINT"),
        }
    }
}

/// Fails unless the history is one of a turn in which every call of the script succeeded.
pub fn check_turn(events: &[Event], calls: usize) -> Result<()> {
    let faults = events.iter().filter(|e| e.kind == "session.error").count();
    ensure!(faults == 0, "{faults} `session.error` in the history");
    let results: Vec<&Event> = events.iter().filter(|e| e.kind == "agent.tool_result").collect();
    let failed = results.iter().filter(|e| e.is_error).count();
    ensure!(results.len() == calls && failed == 0, "{} of {calls} tool results, {failed} failed", results.len());
    let last = events.iter().rev().find(|e| e.kind == "session.status_idle").context("the turn has not ended")?;
    ensure!(last.stop_reason["type"] == "end_turn", "the turn ended with {}", last.stop_reason);
    Ok(())
}

/// Milliseconds from each model request to the next, and from the last to the end of the turn: one a step.
pub fn step_times(events: &[Event]) -> Vec<f64> {
    let marks = events.iter().filter(|e| e.kind == "span.model_request_start" || e.kind == "session.status_idle");
    let at: Vec<i64> = marks.filter_map(|e| e.at).map(Timestamp::micros).collect();
    at.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e3).collect()
}

async fn read(request: reqwest::RequestBuilder) -> Result<Value> {
    let response = request.send().await?;
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await?;
    ensure!(status.is_success(), "`{url}`: {status}: {text}");
    serde_json::from_str(&text).with_context(|| format!("`{url}` answered `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn history(rows: &[(&str, &str)]) -> Vec<Event> {
        let events = rows.iter().map(|(kind, at)| {
            json!({"type": kind, "processed_at": format!("2026-01-01T00:00:{at}Z"), "stop_reason": {"type": "end_turn"}})
        });
        serde_json::from_value(Value::Array(events.collect())).unwrap()
    }

    #[test]
    fn steps_are_measured_between_requests_and_to_the_end() {
        let events = history(&[
            ("user.message", "00.000000"),
            ("span.model_request_start", "01.000000"),
            ("agent.tool_result", "01.001000"),
            ("span.model_request_start", "01.002500"),
            ("session.status_idle", "01.003000"),
        ]);
        assert_eq!(step_times(&events), [2.5, 0.5]);
        check_turn(&events, 1).unwrap();
    }

    #[test]
    fn a_turn_that_went_wrong_is_refused() {
        let mut events = history(&[("agent.tool_result", "01.000000"), ("session.status_idle", "02.000000")]);
        assert!(check_turn(&events, 2).unwrap_err().to_string().contains("1 of 2"));
        events[0].is_error = true;
        assert!(check_turn(&events, 1).unwrap_err().to_string().contains("1 failed"));
        events[0].is_error = false;
        events[1].stop_reason = json!({"type": "retries_exhausted"});
        assert!(check_turn(&events, 1).unwrap_err().to_string().contains("retries_exhausted"));
        assert!(check_turn(&history(&[("session.error", "01.000000")]), 0).is_err());
        assert!(check_turn(&history(&[]), 0).unwrap_err().to_string().contains("not ended"));
    }
}
