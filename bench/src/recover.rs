//! `kill -9` of the server under sessions in flight: how long until each goes on, once another server has started.
//!
//! Every session runs a command of a known length again and again, so that it is known when its next step was due. What is
//! counted is the delay that the kill added: from the later of kill and due time to the session's next model request.

use crate::fake::Fake;
use crate::loopd::{Event, Loopd};
use crate::ours::session_id;
use crate::place::Place;
use crate::report::{Report, cells, short};
use crate::stats::Samples;
use crate::wall;
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use loopd_domain::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// Sessions in flight, and how long each command sleeps, in milliseconds: 200 and 333 steps a second.
const SIZES: [(usize, i64); 2] = [(100, 500), (1_000, 3_000)];
const ROUNDS: usize = 3;
const OPENING: usize = 16;
const STEPS: usize = 1_000;
/// After the restart, until the histories are read: every session has had its next step by then.
const AFTER: Duration = Duration::from_secs(12);

pub async fn run(place: &Place) -> Result<Report> {
    let mut report = Report::new("recover");
    report.say(&format!(
        "{ROUNDS} kills of each size. The server is started again at once, on the same data; rooms live on meanwhile. The delay of a \
         session is counted from the kill, or from when its command was due to end if that is later, to its next model request; ms:"
    ));
    let mut rows = Vec::new();
    let mut medians = Vec::new();
    for (sessions, sleep_ms) in SIZES {
        let mut delays = Samples::default();
        let mut starts = Samples::default();
        for _ in 0..ROUNDS {
            let round = kill_once(place, sessions, sleep_ms).await?;
            round.delays.iter().for_each(|ms| delays.push(*ms));
            starts.push(round.started_ms);
        }
        let row = [format!("{sessions} sessions"), short(starts.p50())].into_iter().chain(cells(&delays));
        rows.push(row.collect());
        medians.push((delays.p50(), starts.p50()));
    }
    report.table(&["in flight", "server start to first answer, p50", "delay p50", "p99", "p10 to p90"], &rows);
    let [(hundred, start), (thousand, _)] = medians[..] else { return Ok(report) };
    report.say(&format!(
        "Delay over the start of the server, p50: {} with {} sessions. {} sessions over {}: {}.",
        short(hundred / start),
        SIZES[0].0,
        SIZES[1].0,
        SIZES[0].0,
        short(thousand / hundred)
    ));
    Ok(report)
}

struct Round {
    started_ms: f64,
    delays: Vec<f64>,
}

async fn kill_once(place: &Place, sessions: usize, sleep_ms: i64) -> Result<Round> {
    let fake = Fake::start().await?;
    let work = tempfile::tempdir_in(&place.work)?;
    let data = work.path().join("loopd");
    let loopd = Loopd::start(&place.loopd, &data, &fake).await?;
    let body = &body(sleep_ms);
    let ids: Vec<String> = stream::iter(0..sessions)
        .map(|_| async { session_id(&loopd.invoke(body).await?) })
        .buffer_unordered(OPENING)
        .try_collect()
        .await?;
    // Every session is in its steps.
    tokio::time::sleep(Duration::from_millis(2 * sleep_ms as u64)).await;
    let killed = wall::now();
    loopd.kill().await?;
    let loopd = Loopd::start(&place.loopd, &data, &fake).await?;
    tokio::time::sleep(AFTER).await;
    let mut delays = Vec::new();
    for id in &ids {
        let events = loopd.events(id).await?;
        delays.push(delay(&events, killed, sleep_ms).with_context(|| format!("session `{id}`"))?);
    }
    let started_ms = loopd.started_in.as_secs_f64() * 1e3;
    loopd.stop().await?;
    Ok(Round { started_ms, delays })
}

fn body(sleep_ms: i64) -> Value {
    let command = format!("sleep {}", sleep_ms as f64 / 1e3);
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {"command": command}}]}], "repeat": STEPS, "then": "done"});
    json!({"model": "builtin/script", "system": script.to_string(), "tools": ["bash"], "input": "go", "background": true})
}

/// Milliseconds that the kill added.
fn delay(events: &[Event], killed: Timestamp, sleep_ms: i64) -> Result<f64> {
    let failed = events.iter().filter(|e| e.kind == "agent.tool_result" && e.is_error).count();
    ensure!(failed == 0, "{failed} calls failed, or their outcome is unknown");
    let at = |kind: &'static str| events.iter().filter(move |e| e.kind == kind).filter_map(|e| e.at);
    let began = at("span.model_request_end").rfind(|at| *at <= killed).context("no step before the kill")?;
    let next = at("span.model_request_start").find(|at| *at > killed).context("no step after the kill")?;
    let due = killed.micros().max(began.micros() + sleep_ms * 1_000);
    Ok((next.micros() - due) as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_what_the_kill_added() {
        let event = |kind: &str, ms: i64| json!({"type": kind, "processed_at": Timestamp(ms * 1_000).to_string()});
        let events: Vec<Event> = serde_json::from_value(json!([
            event("span.model_request_start", 0),
            event("span.model_request_end", 10),
            event("span.model_request_start", 700),
        ]))
        .unwrap();
        assert_eq!(delay(&events, Timestamp(100_000), 500).unwrap(), 190.0, "due at 510");
        assert_eq!(delay(&events, Timestamp(600_000), 500).unwrap(), 100.0, "due before the kill");
        assert!(delay(&events, Timestamp(800_000), 500).is_err());
    }
}
