//! Every task of the repository: `cargo xtask <task>`.
//!
//! A task is one file. It prints what it runs, stops at the first thing that fails, and says how to repeat it.

mod attacks;
mod ci;
mod crash;
mod deny;
mod direction;
mod fuzz;
mod place;
mod sdk;
mod tally;
mod test;
mod tools;

use anyhow::{Result, bail};
use std::process::ExitCode;

const TASKS: &str = "\
tasks:
  test        install what tests need, then run all of them: unit, end to end, official SDKs
  test sdk    only the official SDKs against a real server
  attacks     try every attack of tests/attacks in rooms of loopd and under its peers; writes the table of docs/security.md
  crash       kill a real server at random points and judge its sessions; `crash --help` names the options
  fuzz        strange input for all that reads a stranger's words; `fuzz TARGET --seconds N` is guided by coverage, `fuzz TARGET FILE`
              runs one input again
  ci          what a change must pass: fmt --check, clippy, deny, direction, test
  ready       the same for a working copy: formats instead of complaining about format
  deny        licences, bans and sources of dependencies; advisories where their database can be fetched
  direction   crates depend on each other only as the table in xtask/src/direction/edges.rs allows";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("xtask: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["test"] => test::run(),
        ["test", "sdk"] => test::run_sdk(),
        ["attacks"] => attacks::run(),
        ["crash", arguments @ ..] => crash::run(arguments),
        ["fuzz", arguments @ ..] => fuzz::run(arguments),
        ["ci"] => ci::run(ci::Format::Check),
        ["ready"] => ci::run(ci::Format::Write),
        ["deny"] => deny::run(),
        ["direction"] => direction::run(),
        [] | ["help" | "--help"] => {
            println!("{TASKS}");
            Ok(())
        }
        other => bail!("no task `{}`\n{TASKS}", other.join(" ")),
    }
}
