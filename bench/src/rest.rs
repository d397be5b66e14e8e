//! Sessions at rest: what a hibernated one costs, how fast it wakes beside a new one, and a hundred thousand of them.

use crate::fake::Fake;
use crate::loopd::{Loopd, check_turn};
use crate::ours::{Via, request, session_id};
use crate::place::Place;
use crate::process;
use crate::report::{Report, Target, cells, short};
use crate::stats::Samples;
use crate::subject::Turn;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

const ROUNDS: usize = 100;
/// How long an idle session keeps its room here.
const IDLE_SECONDS: u64 = 1;
const FALLS_ASLEEP: Duration = Duration::from_secs(IDLE_SECONDS + 4);
/// Lets the kernel finish what the last start left it to do.
const BREATH: Duration = Duration::from_millis(20);
const CROWD: usize = 100_000;
const CROWD_STARTS: usize = 5;

pub async fn run(place: &Place) -> Result<Report> {
    let fake = Fake::start().await?;
    let work = tempfile::tempdir_in(&place.work)?;
    let mut report = Report::new("rest");
    wakes(&mut report, place, &fake, work.path()).await?;
    crowd(&mut report, place, &fake, work.path()).await?;
    Ok(report)
}

async fn wakes(report: &mut Report, place: &Place, fake: &Fake, work: &Path) -> Result<()> {
    let data = work.join("sleepers");
    std::fs::write(work.join("sleepers.toml"), format!("room_idle_seconds = {IDLE_SECONDS}\n"))?;
    let loopd =
        Loopd::start_with(&place.loopd, &data, fake, &["--config", &path(&work.join("sleepers.toml"))?]).await?;
    let body = request(Turn { tool: "read", steps: 0 }, Via::Http);
    let mut sleepers = Vec::new();
    for _ in 0..ROUNDS {
        sleepers.push(session_id(&loopd.invoke(&body).await?)?);
    }
    tokio::time::sleep(FALLS_ASLEEP).await;
    let rooms = in_rooms(&loopd)?;
    report.figure("processes of 100 hibernated sessions", rooms as f64, Target::AtMost(0.0, ""));
    report.say(&format!(
        "A hibernated session that has had one short turn: {} KB of files on disk, {} KB of journal and all else that is stored of it.",
        short(disk_kb(&data.join("sessions"))? / ROUNDS as f64),
        short(std::fs::metadata(data.join("loopd.sqlite"))?.len() as f64 / 1024.0 / ROUNDS as f64),
    ));
    let [mut new, mut woken] = <[Samples; 2]>::default();
    for sleeper in &sleepers {
        new.push(to_first_request(&loopd, fake, &body).await?);
        tokio::time::sleep(BREATH).await;
        let wake = json!({"session": sleeper, "input": "go"});
        woken.push(to_first_request(&loopd, fake, &wake).await?);
        check_turn(&loopd.events(sleeper).await?, 0)?;
        tokio::time::sleep(BREATH).await;
    }
    loopd.stop().await?;
    report.say(&format!(
        "From the request to the model request at the provider, {ROUNDS} rounds, one of each in turn, ms:"
    ));
    let row = |name: &str, samples: &Samples| [&[name.to_owned()][..], &cells(samples)].concat();
    report.table(
        &["what", "p50", "p99", "p10 to p90"],
        &[row("a new session", &new), row("a hibernated session wakes", &woken)],
    );
    report.figure("waking / starting anew, p50 of each", woken.p50() / new.p50(), Target::AtMost(2.0, ""));
    Ok(())
}

async fn to_first_request(loopd: &Loopd, fake: &Fake, body: &serde_json::Value) -> Result<f64> {
    fake.take_arrival();
    let sent = Instant::now();
    loopd.invoke(body).await?;
    let arrival = fake.take_arrival().context("no model request arrived")?;
    Ok((arrival - sent).as_secs_f64() * 1e3)
}

/// A store with very many sessions that rest, made by the store's own example.
async fn crowd(report: &mut Report, place: &Place, fake: &Fake, work: &Path) -> Result<()> {
    let data = work.join("crowd");
    let mut make = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    make.args(["run", "--quiet", "--release", "-p", "loopd-store", "--example", "hibernated", "--"]);
    make.arg(CROWD.to_string()).arg(&data).current_dir(&place.root).stdout(Stdio::null());
    ensure!(make.status().await?.success(), "the store's example `hibernated` failed");
    let [mut starts, mut pages] = <[Samples; 2]>::default();
    let mut resident = 0;
    for _ in 0..CROWD_STARTS {
        let loopd = Loopd::start(&place.loopd, &data, fake).await?;
        starts.push(loopd.started_in.as_secs_f64() * 1e3);
        let asked = Instant::now();
        let page = loopd.get("/v1/sessions?limit=100").await?;
        pages.push(asked.elapsed().as_secs_f64() * 1e3);
        let rows = page["data"].as_array().map_or(0, Vec::len);
        ensure!(rows == 100, "{rows} rows on a page of 100");
        resident = process::resident(loopd.pid()?)?.0;
        loopd.stop().await?;
    }
    report.say(&format!(
        "{CROWD} hibernated sessions, {CROWD_STARTS} starts: {} MB resident; the store is {} MB.",
        short(resident as f64 / 1024.0),
        short(std::fs::metadata(data.join("loopd.sqlite"))?.len() as f64 / 1048576.0)
    ));
    report.figure("start to first answer, slowest", starts.p99(), Target::AtMost(1_000.0, "ms"));
    report.figure("a page of 100 right after it, slowest", pages.p99(), Target::AtMost(1_000.0, "ms"));
    Ok(())
}

fn in_rooms(loopd: &Loopd) -> Result<usize> {
    Ok(loopd.inhabitants()?.len())
}

fn disk_kb(directory: &Path) -> Result<f64> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::symlink_metadata(directory)?;
    let mut kb = own.blocks() as f64 / 2.0;
    if own.is_dir() {
        for entry in std::fs::read_dir(directory)? {
            kb += disk_kb(&entry?.path())?;
        }
    }
    Ok(kb)
}

fn path(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is no text")
}
