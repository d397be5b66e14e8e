//! Many sessions at once, each in a room of its own: steps per second in total, and how evenly they are shared.

use crate::fake::Fake;
use crate::loopd::{Event, Loopd, check_turn, step_times};
use crate::ours::{Via, request, session_id};
use crate::place::Place;
use crate::process;
use crate::report::{Report, Target, short};
use crate::stats::Samples;
use crate::subject::Turn;
use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use loopd_domain::Timestamp;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const SESSIONS: usize = 256;
const STEPS: usize = 100;
/// Requests of the load generator that are open at the same time while sessions are created.
const OPENING: usize = 16;
/// The load generator asks for one session's state at this pace: it must not compete for the cores that it measures.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const WAIT: Duration = Duration::from_secs(180);

/// A session's history, reduced to what is counted.
struct Ran {
    first_request: Timestamp,
    end: Timestamp,
    requests: Vec<Timestamp>,
    steps_ms: Vec<f64>,
}

pub async fn run(place: &Place) -> Result<Report> {
    let fake = Fake::start().await?;
    let work = tempfile::tempdir_in(&place.work)?;
    let loopd = Loopd::start(&place.loopd, &work.path().join("loopd"), &fake).await?;
    let turn = Turn { tool: "read", steps: STEPS };

    let ourselves = process::processor(&[std::process::id()]);
    let ids = open(&loopd, turn).await?;
    wait(&loopd, &ids).await?;
    let (resident, highest) = process::resident(loopd.pid()?)?;
    let family = process::tree(loopd.pid()?)?;
    let inhabitants = loopd.inhabitants()?;
    let (rooms, all) = (process::memory(&inhabitants), process::memory(&family));
    let [server, cells] = [&[loopd.pid()?][..], &inhabitants].map(process::processor);
    let ourselves = process::processor(&[std::process::id()]) - ourselves;

    let mut faults = Vec::new();
    let mut ran = Vec::new();
    for id in &ids {
        match loopd.events(id).await.and_then(|events| reduce(&events)) {
            Ok(session) => ran.push(session),
            Err(fault) => faults.push(format!("session `{id}`: {fault:#}")),
        }
    }
    loopd.stop().await?;

    let mut report = Report::new("many");
    rates(&mut report, &ran)?;
    report.figure("sessions that failed", faults.len() as f64, Target::AtMost(0.0, ""));
    for fault in faults.iter().take(5) {
        report.say(fault);
    }
    let mb = |kb: u64| format!("{} MB", short(kb as f64 / 1024.0));
    let per_room = rooms.pss_kb as f64 / SESSIONS as f64 / 1024.0;
    report.say(&format!(
        "Memory with {SESSIONS} rooms alive: server {} resident ({} at its highest); {} processes in rooms with {} \
         proportional set size, {} MB a room; server, launcher and rooms together {}.",
        mb(resident),
        mb(highest),
        rooms.processes,
        mb(rooms.pss_kb),
        short(per_room),
        mb(all.pss_kb),
    ));
    let [server, cells, ourselves] =
        [server, cells, ourselves].map(|seconds| short(seconds * 1e6 / (SESSIONS * STEPS) as f64));
    report.say(&format!(
        "Processor time a step, starts included: server {server} µs, cells {cells} µs; the load generator used {ourselves} µs."
    ));
    Ok(report)
}

/// Starts all sessions; each runs as soon as it is accepted.
async fn open(loopd: &Loopd, turn: Turn) -> Result<Vec<String>> {
    let mut body = request(turn, Via::Script);
    body["background"] = json!(true);
    let body = &body;
    stream::iter(0..SESSIONS)
        .map(|_| async move { session_id(&loopd.invoke(body).await?) })
        .buffer_unordered(OPENING)
        .try_collect()
        .await
}

async fn wait(loopd: &Loopd, ids: &[String]) -> Result<()> {
    let until = Instant::now() + WAIT;
    for id in ids {
        loop {
            let session = loopd.session(id).await?;
            if ["idle", "terminated"].iter().any(|rest| session["status"] == *rest) {
                break;
            }
            ensure!(Instant::now() < until, "session `{id}` still runs after {WAIT:?}: {session}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn reduce(events: &[Event]) -> Result<Ran> {
    check_turn(events, STEPS)?;
    let at = |kind: &str| events.iter().filter(|e| e.kind == kind).filter_map(|e| e.at).collect::<Vec<_>>();
    let requests = at("span.model_request_start");
    let first_request = *requests.first().context("no model request")?;
    let end = *at("session.status_idle").last().context("the turn has not ended")?;
    Ok(Ran { first_request, end, requests, steps_ms: step_times(events) })
}

fn rates(report: &mut Report, ran: &[Ran]) -> Result<()> {
    let first = ran.iter().map(|r| r.first_request).min().context("no session ran")?;
    let last = ran.iter().map(|r| r.end).max().context("no session ran")?;
    let per_second =
        |steps: usize, from: Timestamp, to: Timestamp| steps as f64 * 1e6 / (to.micros() - from.micros()) as f64;
    let overall = per_second(ran.len() * STEPS, first, last);
    // All of them at once: from when the last one has begun to when the first one ends.
    let from = ran.iter().map(|r| r.first_request).max().context("no session ran")?;
    let to = ran.iter().map(|r| r.end).min().context("no session ran")?;
    let within = ran.iter().flat_map(|r| &r.requests).filter(|at| **at >= from && **at < to).count();
    let together = if to > from {
        short(per_second(within, from, to))
    } else {
        "none: the first ended before the last began".into()
    };

    let steps: Samples = ran.iter().flat_map(|r| r.steps_ms.iter().copied()).collect();
    let (low, high) = steps.spread();
    report.say(&format!(
        "{} sessions of {STEPS} steps, each step a call of `read` in the session's own room; from the first model request of the first \
         session to the end of the last one, so creating {} rooms is part of it:",
        ran.len(), ran.len(),
    ));
    let row = vec![
        short(overall),
        together,
        short(steps.p50()),
        short(steps.p99()),
        format!("{} to {}", short(low), short(high)),
    ];
    report.table(&["steps/s", "steps/s while all run", "step p50, ms", "p99, ms", "p10 to p90, ms"], &[row]);
    report.figure("steps per second, 256 sessions", overall, Target::AtLeast(2_500.0, "steps/s"));
    report.figure("p99 of a step / p50 of a step", steps.p99() / steps.p50(), Target::AtMost(10.0, ""));
    Ok(())
}
