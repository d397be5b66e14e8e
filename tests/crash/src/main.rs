//! The crash harness: real servers with real rooms are killed, stopped, replaced and aborted at random points of scripted
//! turns, and a judge that shares no code with them says whether the promise of docs/reliability.md was kept.
//!
//! The process that is started divides the points among lanes, each a process of its own (so that what its servers leave
//! behind can be told from what others leave), and adds up what they report. `cargo xtask crash` builds and starts it.
//!
//! - [`plan`], [`client`], [`desk`], [`counter`]: what sessions do, who talks to them, and the outside world that counts effects.
//! - [`server`], [`processes`], [`faults`]: what is struck, and how.
//! - [`room`]: what kind of rooms they have.
//! - [`lane`], [`verdict`], [`check`]: rounds, evidence, judge. [`report`]: what it came to.
//!
//! It deliberately knows of the server only what clients and auditors know: HTTP, the journal's table, process names.

mod args;
mod check;
mod client;
mod counter;
mod desk;
mod evidence;
mod faults;
mod journal;
mod lane;
mod plan;
mod processes;
mod report;
mod rng;
mod room;
mod server;
mod stream;
mod verdict;

use anyhow::{Context, Result};
use args::Args;
use clap::Parser;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use tokio::time::Instant;

/// A fault that was tried this often and never struck is a hole in the harness or a fail point that nobody passes any more.
const TRIES_MAX: u64 = 12;

fn main() -> ExitCode {
    let outcome = Args::parse().absolute().and_then(|args| match args.lane {
        Some(lane) => be_lane(args, lane),
        None => lead(&args),
    });
    match outcome {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("crash: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the lanes and adds up what they report.
fn lead(args: &Args) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.directory).with_context(|| format!("`{}`", args.directory.display()))?;
    let own = std::env::current_exe().context("this program does not know its path")?;
    let lanes = (0..args.lanes.max(1)).map(|lane| {
        let mut command = Command::new(&own);
        command.args(std::env::args_os().skip(1)).args(["--lane", &lane.to_string()]);
        command.spawn().context("a lane cannot be started")
    });
    let mut sum = Report::default();
    for (lane, child) in lanes.collect::<Result<Vec<_>>>()?.iter_mut().enumerate() {
        let status = child.wait()?;
        let path = report_path(&args.directory, lane as u64);
        let text = std::fs::read(&path).with_context(|| format!("lane {lane} ended with {status} and no report"))?;
        sum.add(serde_json::from_slice(&text).with_context(|| format!("`{}`", path.display()))?);
        std::fs::remove_file(&path)?;
    }
    close(args, sum)
}

fn close(args: &Args, mut sum: Report) -> Result<ExitCode> {
    let gaps = sum.gaps(TRIES_MAX, args.at_least);
    sum.failures.extend(gaps.iter().cloned());
    let command = format!("cargo xtask crash --seed {} --points {}", args.seed, args.points);
    let text = sum.markdown(&command) + &faults::unreached(args.isolation);
    println!("{text}");
    if let Some(path) = &args.report {
        std::fs::write(path, &text).with_context(|| format!("`{}`", path.display()))?;
    }
    gaps.iter().for_each(|gap| println!("FAILED: {gap}"));
    // The last line is for whoever counts tests: each point is one.
    println!("crash: {} passed, {} failed", sum.struck(), sum.failures.len());
    Ok(if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn be_lane(args: Args, number: u64) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let report = runtime.block_on(async {
        let until = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let lanes = args.lanes.max(1);
        // The first lanes take what does not divide.
        let points = (args.points / lanes + u64::from(number < args.points % lanes)).max(1);
        std::fs::create_dir_all(&args.directory).with_context(|| format!("`{}`", args.directory.display()))?;
        lane::Lane::start(args.clone(), number).await?.run(points, until).await
    })?;
    std::fs::write(report_path(&args.directory, number), serde_json::to_vec(&report)?)?;
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report_path(directory: &Path, lane: u64) -> PathBuf {
    directory.join(format!("lane-{lane}.json"))
}
