//! The added time of a step: loop, journal and room, without a model's think time, beside its peers.

use crate::fake::Fake;
use crate::loopd::Loopd;
use crate::ours::{Inside, LoopdSubject, Via};
use crate::place::Place;
use crate::python::PythonPeer;
use crate::report::{Report, Target, cells, short};
use crate::restate::RestatePeer;
use crate::stats::Samples;
use crate::subject::{Subject, Turn, in_turn};
use anyhow::Result;
use std::path::Path;
use std::sync::{Arc, Mutex};

const ROUNDS_SHORT: usize = 20;
const ROUNDS_LONG: usize = 12;
const ROUNDS_BASH: usize = 12;

/// Where the subjects stand in the list: loopd with the peers' provider, and each peer with the largest ratio to it.
const OURS_HTTP: usize = 1;
const PEERS: [(usize, f64); 4] = [(2, 0.25), (3, 0.25), (4, 0.1), (5, 0.5)];

pub async fn run(place: &Place) -> Result<Report> {
    let fake = Fake::start().await?;
    let work = tempfile::tempdir_in(&place.work)?;
    let loopd = Arc::new(Loopd::start(&place.loopd, &work.path().join("loopd"), &fake).await?);
    let (mut subjects, inside) = subjects(place, &fake, &loopd, work.path()).await?;

    let mut report = Report::new("step");
    let short_turns = measure(&mut report, &mut subjects, Turn { tool: "read", steps: 10 }, ROUNDS_SHORT).await?;
    let long_turns = measure(&mut report, &mut subjects, Turn { tool: "read", steps: 50 }, ROUNDS_LONG).await?;
    measure(&mut report, &mut subjects, Turn { tool: "bash", steps: 10 }, ROUNDS_BASH).await?;

    for (turns, steps) in [(&short_turns, 10), (&long_turns, 50)] {
        for (peer, bound) in PEERS {
            let ratio = turns[OURS_HTTP].over(&turns[peer]).p50();
            report.figure(format!("loopd / {}, n={steps}", subjects[peer].name()), ratio, Target::AtMost(bound, ""));
        }
    }
    let flat = long_turns[OURS_HTTP].p50() / short_turns[OURS_HTTP].p50();
    report.figure("a step at n=50 / a step at n=10, whole turns", flat, Target::AtMost(1.3, ""));
    look_inside(&mut report, &inside.lock().expect("no holder of this lock panics"));

    drop(subjects);
    if let Ok(loopd) = Arc::try_unwrap(loopd) {
        loopd.stop().await?;
    }
    Ok(report)
}

/// In the order that the constants above say.
async fn subjects(
    place: &Place,
    fake: &Fake,
    loopd: &Arc<Loopd>,
    work: &Path,
) -> Result<(Vec<Box<dyn Subject>>, Arc<Mutex<Inside>>)> {
    let tools = &place.tools;
    tools.install().await?;
    let (script, inside) = LoopdSubject::new(loopd.clone(), Via::Script);
    let (http, _) = LoopdSubject::new(loopd.clone(), Via::Http);
    let database = work.join("langgraph.sqlite");
    let bare = PythonPeer::start("Python loop on the `openai` SDK", tools, fake, "sdk_loop.py", &[]).await?;
    let streaming = ["--stream".as_ref()];
    let streamed =
        PythonPeer::start("Python loop on the `openai` SDK, streaming", tools, fake, "sdk_loop.py", &streaming).await?;
    let graph = [database.as_os_str()];
    let graph = PythonPeer::start("LangGraph, SQLite checkpointer", tools, fake, "langgraph_loop.py", &graph).await?;
    let restate = RestatePeer::start(tools, fake, &work.join("restate")).await?;
    let subjects: Vec<Box<dyn Subject>> =
        vec![Box::new(script), Box::new(http), Box::new(bare), Box::new(streamed), Box::new(graph), Box::new(restate)];
    Ok((subjects, inside))
}

async fn measure(
    report: &mut Report,
    subjects: &mut [Box<dyn Subject>],
    turn: Turn,
    rounds: usize,
) -> Result<Vec<Samples>> {
    let samples = in_turn(subjects, turn, rounds).await?;
    report.say(&format!("Turns of {} steps with `{}`, {rounds} rounds, ms per step:", turn.steps, turn.tool));
    let rows: Vec<Vec<String>> = samples
        .iter()
        .zip(subjects.iter())
        .map(|(taken, subject)| {
            let [p50, p99, spread] = cells(taken);
            let ratio = samples[OURS_HTTP].over(taken);
            let (low, high) = ratio.spread();
            let ratio = format!("{} ({} to {})", short(ratio.p50()), short(low), short(high));
            vec![subject.name().to_owned(), p50, p99, spread, ratio]
        })
        .collect();
    report.table(&["subject", "p50", "p99", "p10 to p90", "loopd (HTTP) / this"], &rows);
    Ok(samples)
}

fn look_inside(report: &mut Report, inside: &Inside) {
    report.say("Inside the long turns of loopd with its scripted model, from the times in their histories, ms:");
    let row = |name: &str, samples: &Samples| [&[name.to_owned()][..], &cells(samples)].concat();
    report.table(
        &["part of a step", "p50", "p99", "p10 to p90"],
        &[
            row("last result and request on disk, answer from the model", &inside.answer),
            row("answer and its call on disk, tool run in the room, the loop's decision", &inside.result),
        ],
    );
    let flat = inside.last.p50() / inside.first.p50();
    report.figure("steps 41 to 50 / steps 1 to 10 of one turn", flat, Target::AtMost(1.3, ""));
}
