//! Benchmarks beside their peers: `cargo run --release -p loopd-bench -- all`.
//!
//! Every benchmark measures loopd and its peers in one run, in turn, through the doors that a user has: the release binary,
//! its HTTP interface, its default settings. Nothing in loopd knows that it is being measured.
//!
//! - [`step`], [`many`], [`start`], [`room`], [`rooms`], [`recover`], [`rest`], [`barrier`], [`egress`] (with [`outlet`]), [`machines`], [`build`]: one benchmark each, and its targets.
//! - [`ours`], [`python`], [`restate`], [`crun`]: what is compared; [`subject`] is their common face and the order of turns.
//! - [`way`], [`site`]: connections out, through proxies and without, and what they lead to.
//! - [`fake`]: the model without think time. [`floor`]: what no start can be faster than. [`stats`], [`report`], [`publish`]: from samples to docs/benchmarks.md.

mod barrier;
mod build;
mod crun;
mod egress;
mod fake;
mod floor;
mod http;
mod loopd;
mod machine;
mod machines;
mod many;
mod ours;
mod outlet;
mod place;
mod process;
mod publish;
mod python;
mod recover;
mod report;
mod rest;
mod restate;
mod room;
mod rooms;
mod site;
mod start;
mod stats;
mod step;
mod subject;
mod tools;
mod wall;
mod way;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use place::Place;
use report::Report;

/// Measures loopd beside its peers and prints Markdown.
#[derive(Parser)]
#[command(name = "loopd-bench")]
struct Arguments {
    /// What to measure; `all` is everything but `build`
    #[arg(required = true)]
    which: Vec<Which>,
    /// Write the results into docs/benchmarks.md as well
    #[arg(long)]
    publish: bool,
    /// End with an error when a figure misses its target
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Step,
    Many,
    Start,
    Room,
    Rooms,
    Recover,
    Rest,
    Barrier,
    Egress,
    Machines,
    Build,
    All,
}

enum Benchmark {
    Step,
    Many,
    Start,
    Room,
    Rooms,
    Recover,
    Rest,
    Barrier,
    Egress,
    Machines,
    Build,
}

impl Which {
    fn benchmarks(self) -> &'static [Benchmark] {
        use Benchmark::*;
        match self {
            Which::Step => &[Step],
            Which::Many => &[Many],
            Which::Start => &[Start],
            Which::Room => &[Room],
            Which::Rooms => &[Rooms],
            Which::Recover => &[Recover],
            Which::Rest => &[Rest],
            Which::Barrier => &[Barrier],
            Which::Egress => &[Egress],
            Which::Machines => &[Machines],
            Which::Build => &[Build],
            Which::All => &[Start, Room, Rooms, Egress, Machines, Step, Many, Barrier, Rest, Recover],
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        !cfg!(debug_assertions),
        "a debug build measures nothing; run it with `cargo run --release -p loopd-bench`"
    );
    let place = Place::prepare().await?;
    let mut missed = Vec::new();
    for benchmark in arguments.which.iter().flat_map(|which| which.benchmarks()) {
        let machine = machine::facts(&place.root, &place.work);
        let report = benchmark.run(&place).await?;
        show(&report, &machine, arguments.publish.then_some(&place))?;
        if !report.holds() {
            missed.push(report.name);
        }
    }
    ensure!(!arguments.check || missed.is_empty(), "targets were missed in: {}", missed.join(", "));
    Ok(())
}

impl Benchmark {
    async fn run(&self, place: &Place) -> Result<Report> {
        match self {
            Benchmark::Step => step::run(place).await,
            Benchmark::Many => many::run(place).await,
            Benchmark::Start => start::run(place).await,
            Benchmark::Room => room::run(place).await,
            Benchmark::Rooms => rooms::run(place).await,
            Benchmark::Recover => recover::run(place).await,
            Benchmark::Rest => rest::run(place).await,
            Benchmark::Barrier => barrier::run(place).await,
            Benchmark::Egress => egress::run(place).await,
            Benchmark::Machines => machines::run(place).await,
            Benchmark::Build => build::run(place).await,
        }
    }
}

fn show(report: &Report, machine: &str, publish_in: Option<&Place>) -> Result<()> {
    let command = format!("`cargo run --release -p loopd-bench -- {}`", report.name);
    let text = format!("{command}; {machine}.\n\n{}", report.markdown());
    println!("## {}\n\n{text}\n", report.name);
    match publish_in {
        Some(place) => publish::publish(&place.root.join("docs/benchmarks.md"), report.name, &text),
        None => Ok(()),
    }
}
