//! Rooms by the hundred: how many come and go in a second, how many live at once, and what each of them costs; beside
//! bubblewrap and crun, whose rooms have no loop in them.

use crate::crun::Crun;
use crate::fake::Fake;
use crate::loopd::{Loopd, check_turn};
use crate::ours::{Via, request, session_id};
use crate::place::Place;
use crate::process::{self, Memory};
use crate::report::{Report, Target, cells, short};
use crate::start::BWRAP;
use crate::stats::Samples;
use crate::subject::Turn;
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Rounds of comings and goings, and how many of each in one.
const ROUNDS: usize = 7;
const COMINGS: usize = 60;
/// At the same time; two for each of two cores.
const LANES: usize = 4;
const ALIVE: usize = 500;
const TURN: Turn = Turn { tool: "read", steps: 1 };
/// For rooms to come to rest.
const REST: Duration = Duration::from_secs(2);

pub async fn run(place: &Place) -> Result<Report> {
    let fake = Fake::start().await?;
    let work = tempfile::tempdir_in(&place.work)?;
    let loopd = Loopd::start(&place.loopd, &work.path().join("loopd"), &fake).await?;
    let crun = Crun::prepare(&work.path().join("crun"))?;
    let mut report = Report::new("rooms");
    tokio::time::sleep(REST).await;
    waiting(&mut report, &loopd)?;
    come_and_go(&mut report, &loopd, &crun).await?;
    alive(&mut report, &loopd, &crun).await?;
    loopd.stop().await?;
    Ok(report)
}

/// What a room costs that no session has yet.
fn waiting(report: &mut Report, loopd: &Loopd) -> Result<()> {
    let pids = loopd.waiting()?;
    ensure!(!pids.is_empty(), "no room waits");
    let each = process::memory(&pids).pss_kb as f64 / pids.len() as f64;
    report.say(&format!(
        "A room that waits for a session: {} KB proportional set size ({} wait).",
        short(each),
        pids.len()
    ));
    Ok(())
}

async fn come_and_go(report: &mut Report, loopd: &Loopd, crun: &Crun) -> Result<()> {
    let [mut ours, mut bwrap, mut crun_rate] = <[Samples; 3]>::default();
    for round in 0..=ROUNDS {
        let rates = [
            rate(|| visit(loopd)).await?,
            rate(|| async {
                ensure!(start_bwrap("/bin/true")?.wait().await?.success(), "`bwrap` failed");
                Ok(())
            })
            .await?,
            crun.rate(COMINGS, LANES).await?,
        ];
        // The first is for everybody to warm up.
        if round > 0 {
            [&mut ours, &mut bwrap, &mut crun_rate]
                .into_iter()
                .zip(rates)
                .for_each(|(samples, rate)| samples.push(rate));
        }
    }
    report.say(&format!("Come and gone in a second, {LANES} at a time, {ROUNDS} rounds of {COMINGS} of each in turn:"));
    let row = |name: &str, samples: &Samples| [&[name.to_owned()][..], &cells(samples)].concat();
    report.table(
        &["what", "p50", "p99", "p10 to p90"],
        &[
            row("**loopd**: `POST /v1/invoke` of a new session, a turn with one call of `read`, `DELETE`", &ours),
            row("bubblewrap, all namespaces, `/bin/true`", &bwrap),
            row("crun, without cgroups, `/bin/true`", &crun_rate),
        ],
    );
    Ok(())
}

/// Comings and goings in a second.
async fn rate<F: Future<Output = Result<()>>>(visit: impl Fn() -> F) -> Result<f64> {
    let begun = Instant::now();
    stream::iter(0..COMINGS).map(|_| visit()).buffer_unordered(LANES).try_collect::<()>().await?;
    Ok(COMINGS as f64 / begun.elapsed().as_secs_f64())
}

/// A session's whole life.
async fn visit(loopd: &Loopd) -> Result<()> {
    let id = session_id(&loopd.invoke(&request(TURN, Via::Script)).await?)?;
    loopd.delete(&id).await
}

/// What so many cost at the same time.
async fn alive(report: &mut Report, loopd: &Loopd, crun: &Crun) -> Result<()> {
    let mut rows = Vec::new();
    let mut row = |name: &str, took: Duration, memory: Memory| {
        let each = memory.pss_kb as f64 / ALIVE as f64;
        rows.push(vec![name.to_owned(), short(took.as_secs_f64()), memory.processes.to_string(), short(each)]);
    };
    let begun = Instant::now();
    let ids = open(loopd).await?;
    let took = begun.elapsed();
    tokio::time::sleep(REST).await;
    let rooms = loopd.rooms()?;
    ensure!(rooms.len() == ALIVE, "{} rooms of {ALIVE} are on record", rooms.len());
    let inhabitants = loopd.inhabitants()?;
    row("**loopd**: a session that has had a turn", took, process::memory(&inhabitants));
    let server = process::resident(loopd.pid()?)?.0 as f64 / 1024.0;
    // They are not only there: each takes another turn.
    let last = ids.last().context("no session")?;
    check_turn(&loopd.events(last).await?, 1)?;
    for id in ids {
        loopd.delete(&id).await?;
    }
    let begun = Instant::now();
    let mut peers: Vec<Child> = Vec::new();
    for _ in 0..ALIVE {
        peers.push(start_bwrap("/bin/sleep 600")?);
    }
    let took = begun.elapsed();
    tokio::time::sleep(REST).await;
    let mut family = Vec::new();
    for pid in peers.iter().filter_map(Child::id) {
        family.extend(process::tree(pid)?);
    }
    row("bubblewrap: `sleep`, and what stays of `bwrap`", took, process::memory(&family));
    drop(peers);
    let begun = Instant::now();
    let pids = crun.start_many(ALIVE).await?;
    let took = begun.elapsed();
    row("crun: `sleep`", took, process::memory(&pids));
    crun.end_many(ALIVE).await?;
    report.say(&format!(
        "{ALIVE} alive at once (the server has {} MB resident then); from the first request to the last one there:",
        short(server)
    ));
    report.table(&["what", "s until all are there", "processes", "PSS each, KB"], &rows);
    report.figure(format!("rooms alive at once, of {ALIVE}"), rooms.len() as f64, Target::AtLeast(ALIVE as f64, ""));
    Ok(())
}

async fn open(loopd: &Loopd) -> Result<Vec<String>> {
    let mut body = request(TURN, Via::Script);
    body["background"] = json!(false);
    let body = &body;
    let opened = stream::iter(0..ALIVE).map(|_| async move { session_id(&loopd.invoke(body).await?) });
    opened.buffer_unordered(LANES).try_collect().await
}

fn start_bwrap(program: &str) -> Result<Child> {
    let arguments = BWRAP.trim_end_matches("/bin/true").split_whitespace().chain(program.split_whitespace());
    let mut command = Command::new("bwrap");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().context("starting `bwrap`; the Debian package is `bubblewrap`")
}
