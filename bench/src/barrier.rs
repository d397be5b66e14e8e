//! What durability costs: the same steps with the disk barrier and without it, in turn; and how many barriers a step takes.
//!
//! Without: the same program under `eatmydata`, whose library answers `fsync` and its kin without doing anything. Nothing in
//! loopd knows of it. Barriers are counted by `strace` in a run of their own, because counting costs time.

use crate::fake::Fake;
use crate::loopd::Loopd;
use crate::ours::{LoopdSubject, Via};
use crate::place::Place;
use crate::report::{Report, Target, cells};
use crate::subject::{Subject, Turn, in_turn};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::sync::Arc;

const STEPS: usize = 50;
const ROUNDS: usize = 12;
const COUNTED_TURNS: usize = 4;
const SHORT_STEPS: usize = 10;

pub async fn run(place: &Place) -> Result<Report> {
    let fake = Fake::start().await?;
    let work = tempfile::tempdir_in(&place.work)?;
    let mut report = Report::new("barrier");
    let with = Arc::new(Loopd::start(&place.loopd, &work.path().join("with"), &fake).await?);
    let without =
        Arc::new(Loopd::start_under(&["eatmydata"], &place.loopd, &work.path().join("without"), &fake).await?);
    let turn = Turn { tool: "read", steps: STEPS };
    let mut subjects: Vec<Box<dyn Subject>> =
        [&with, &without].map(|l| Box::new(LoopdSubject::new(l.clone(), Via::Script).0) as Box<dyn Subject>).into();
    let samples = in_turn(&mut subjects, turn, ROUNDS).await?;
    drop(subjects);
    for loopd in [with, without] {
        Arc::into_inner(loopd).context("nobody else holds it")?.stop().await?;
    }
    report.say(&format!("Turns of {STEPS} steps with `read`, {ROUNDS} rounds, one of each in turn, ms per step:"));
    let row = |name: &str, index: usize| [&[name.to_owned()][..], &cells(&samples[index])].concat();
    let rows = [row("every step durable", 0), row("the same without the disk barrier", 1)];
    report.table(&["what", "p50", "p99", "p10 to p90"], &rows);
    let ratio = samples[0].p50() / samples[1].p50();
    report.say(&format!("Durable over not, p50 of each: {}.", crate::report::short(ratio)));
    // An answer after which the room only reads is written with the results; one with a command is on disk before that runs.
    for (tool, at_most) in [("read", 1.1), ("bash", 2.0)] {
        let barriers = count(place, &fake, work.path(), tool).await?;
        report.figure(format!("disk barriers a step with `{tool}`"), barriers, Target::AtMost(at_most, ""));
    }
    Ok(report)
}

/// Calls of `fsync` and `fdatasync` by the store's writer, for which steps wait: those of long turns less those of short ones, by
/// step. What the log's copying to the database takes, on a thread of its own, no step waits for.
async fn count(place: &Place, fake: &Fake, work: &Path, tool: &'static str) -> Result<f64> {
    let mut counts = Vec::new();
    for steps in [SHORT_STEPS, STEPS] {
        let turn = Turn { tool, steps };
        let log = work.join(format!("barriers-{tool}-{steps}"));
        let file = log.to_str().context("a path that is no text")?;
        // Stopped at nothing else: what is slow is written in more pieces.
        let trace = ["strace", "-f", "--seccomp-bpf", "-qq", "-Y", "-e", "trace=fsync,fdatasync", "-o", file];
        let loopd =
            Loopd::start_under(&trace, &place.loopd, &work.join(format!("counted-{tool}-{steps}")), fake).await?;
        for _ in 0..COUNTED_TURNS {
            let answer = loopd.invoke(&crate::ours::request(turn, Via::Script)).await?;
            ensure!(answer["status"] == "completed", "the turn answered {answer}");
        }
        loopd.stop().await?;
        let text = std::fs::read_to_string(&log).context("what strace wrote")?;
        counts.push(text.lines().filter(|line| line.contains("store-writer") && line.contains("sync(")).count());
    }
    ensure!(counts[1] > counts[0], "{counts:?} barriers: the second run must have had more");
    Ok((counts[1] - counts[0]) as f64 / (COUNTED_TURNS * (STEPS - SHORT_STEPS)) as f64)
}
