//! Rooms by the hundred: how many come and go in a second, how many live at once, and what each of them costs; beside
//! bubblewrap and crun, whose rooms have no loop in them.

use crate::crun::Crun;
use crate::fake::Fake;
use crate::loopd::{Loopd, check_turn};
use crate::ours::{Via, request, session_id};
use crate::place::Place;
use crate::process::{self, Memory};
use crate::report::{Report, Target, cells, ratio, short};
use crate::start::BWRAP;
use crate::stats::Samples;
use crate::subject::Turn;
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::path::Path;
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
const THERE_WAIT: Duration = Duration::from_secs(60);

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
    let mut taken = <[Samples; 3]>::default();
    for round in 0..=ROUNDS {
        for offset in 0..taken.len() {
            let index = (round + offset) % taken.len();
            let rate = match index {
                0 => rate(|| visit(loopd)).await?,
                1 => rate(visit_bwrap).await?,
                _ => crun.rate(COMINGS, LANES).await?,
            };
            // The first round is for everybody to warm up.
            if round > 0 {
                taken[index].push(rate);
            }
        }
    }
    let [ours, bwrap, crun_rate] = &taken;
    report.say(&format!("Come and gone in a second, {LANES} at a time, {ROUNDS} rounds of {COMINGS} of each in turn:"));
    let row =
        |name: &str, samples: &Samples| [&[name.to_owned()][..], &cells(samples), &[ratio(ours, samples)]].concat();
    report.table(
        &["what", "p50", "p99", "p10 to p90", "loopd / this"],
        &[
            row("**loopd**: `POST /v1/invoke` of a new session, a turn with one call of `read`, `DELETE`", ours),
            row("bubblewrap, all namespaces, `/bin/true`", bwrap),
            row("crun, without cgroups, `/bin/true`", crun_rate),
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

async fn visit_bwrap() -> Result<()> {
    ensure!(start_bwrap("/bin/true")?.wait().await?.success(), "`bwrap` failed");
    Ok(())
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
    for id in ids {
        check_turn(&loopd.events(&id).await?, TURN.steps)?;
        loopd.delete(&id).await?;
    }
    let begun = Instant::now();
    let mut peers: Vec<Child> = Vec::new();
    for _ in 0..ALIVE {
        peers.push(start_bwrap("--die-with-parent /bin/sleep 600")?);
    }
    until_all_sleep().await?;
    let took = begun.elapsed();
    tokio::time::sleep(REST).await;
    let mut family = Vec::new();
    for pid in peers.iter().filter_map(Child::id) {
        family.extend(process::tree(pid)?);
    }
    row("bubblewrap: `sleep`, and what stays of `bwrap`", took, process::memory(&family));
    end(peers, &family).await?;
    let begun = Instant::now();
    let pids = crun.start_many(ALIVE, LANES).await?;
    let took = begun.elapsed();
    row("crun: `sleep`", took, process::memory(&pids));
    crun.end_many(ALIVE).await?;
    report.say(&format!(
        "{ALIVE} alive at once, bubblewrap's started all at the same time and the others {LANES} at a time (loopd's server, which is not in its row, has {} MB resident then):",
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

/// The programs are there when bubblewrap has become them.
async fn until_all_sleep() -> Result<()> {
    let until = Instant::now() + THERE_WAIT;
    loop {
        let family = process::tree(std::process::id())?;
        let asleep = family.iter().filter(|pid| process::name(**pid) == "sleep").count();
        if asleep == ALIVE {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{asleep} of {ALIVE} programs run in bubblewrap after {THERE_WAIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What follows is not to be measured beside them.
async fn end(peers: Vec<Child>, family: &[u32]) -> Result<()> {
    for mut peer in peers {
        peer.kill().await?;
    }
    let until = Instant::now() + THERE_WAIT;
    while family.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        ensure!(Instant::now() < until, "rooms of bubblewrap live {THERE_WAIT:?} after they were killed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn start_bwrap(program: &str) -> Result<Child> {
    let arguments = BWRAP.trim_end_matches("/bin/true").split_whitespace().chain(program.split_whitespace());
    let mut command = Command::new("bwrap");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().context("starting `bwrap`; the Debian package is `bubblewrap`")
}
