//! What rests costs: an idle room's memory, and the time to the first answer of a server that starts.

use crate::fake::Fake;
use crate::loopd::{Loopd, check_turn};
use crate::ours::{Via, request, session_id};
use crate::place::Place;
use crate::process;
use crate::report::{Report, Target, cells, short};
use crate::stats::Samples;
use crate::subject::Turn;
use anyhow::{Result, ensure};
use std::path::Path;

const STARTS: usize = 10;
const USED_SESSIONS: usize = 64;
const USED_STEPS: usize = 20;

pub async fn run(place: &Place) -> Result<Report> {
    let fake = Fake::start().await?;
    let work = tempfile::tempdir_in(&place.work)?;
    let mut report = Report::new("room");
    let used = work.path().join("used");
    let loopd = Loopd::start(&place.loopd, &used, &fake).await?;
    idle_room(&mut report, &loopd).await?;
    use_it(&loopd).await?;
    loopd.stop().await?;
    starts(&mut report, place, &fake, work.path(), &used).await?;
    Ok(report)
}

/// One session that has run a command: its cell and its shell stay.
async fn idle_room(report: &mut Report, loopd: &Loopd) -> Result<()> {
    let answer = loopd.invoke(&request(Turn { tool: "bash", steps: 1 }, Via::Script)).await?;
    check_turn(&loopd.events(&session_id(&answer)?).await?, 1)?;
    let server = loopd.pid()?;
    let family = process::tree(server)?;
    let room = loopd.inhabitants()?;
    let waiting = loopd.waiting()?;
    ensure!(room.len() >= 2, "{} processes in the room; accepted: the cell and its shell", room.len());
    let mut rows = Vec::new();
    for pid in &family {
        let place = match () {
            () if room.contains(pid) => "room",
            () if waiting.contains(pid) => "waiting",
            () if *pid == server => "server",
            () => "host",
        };
        rows.push(vec![
            place.into(),
            format!("`{}`", process::name(*pid)),
            process::memory(&[*pid]).pss_kb.to_string(),
        ]);
    }
    report.say("One idle room whose shell has run a command; proportional set size of every process, in KB:");
    report.table(&["where", "process", "PSS, KB"], &rows);
    let megabytes = process::memory(&room).pss_kb as f64 / 1024.0;
    report.figure("a living idle room, cell and shell", megabytes, Target::AtMost(4.0, "MB"));
    Ok(())
}

/// Fills the data directory with sessions that have a history.
async fn use_it(loopd: &Loopd) -> Result<()> {
    for _ in 0..USED_SESSIONS {
        loopd.invoke(&request(Turn { tool: "read", steps: USED_STEPS }, Via::Script)).await?;
    }
    Ok(())
}

async fn starts(report: &mut Report, place: &Place, fake: &Fake, work: &Path, used: &Path) -> Result<()> {
    let [mut empty, mut full] = <[Samples; 2]>::default();
    for round in 0..STARTS {
        for (data, samples) in [(work.join(format!("empty-{round}")), &mut empty), (used.to_owned(), &mut full)] {
            let loopd = Loopd::start(&place.loopd, &data, fake).await?;
            samples.push(loopd.started_in.as_secs_f64() * 1e3);
            loopd.stop().await?;
        }
    }
    report.say(&format!("Server start to its first answer (`GET /v1/models`), {STARTS} starts of each in turn, ms:"));
    let used_name = format!("with {USED_SESSIONS} sessions of {USED_STEPS} steps");
    let row = |name: &str, samples: &Samples| [&[name.to_owned()][..], &cells(samples)].concat();
    report.table(&["data directory", "p50", "p99", "p10 to p90"], &[row("empty", &empty), row(&used_name, &full)]);
    let slowest = empty.p99().max(full.p99());
    report.figure(format!("slowest of {} starts", 2 * STARTS), slowest, Target::AtMost(300.0, "ms"));
    report.say(&format!("Half of the starts on an empty directory answered within {} ms.", short(empty.p50())));
    Ok(())
}
