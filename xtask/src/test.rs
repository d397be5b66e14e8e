//! All tests, and the one closing line.
//!
//! A test that cannot run where it stands writes a line to the file that `E2E_SKIPS` names and returns: it is counted as
//! skipped, its reason is printed, and in CI it is a failure. Where nextest runs the tests, one that fails is run once more:
//! a race in one of so many must not hide what the others say. What passed only then is named above the closing line.

use crate::tally::{self, Tally};
use crate::{crash, place, sdk, tools};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub fn run() -> Result<()> {
    let striking = crash::build()?;
    let loopd = build()?;
    tools::packages()?;
    let kernel = guest_kernel()?;
    let skips = place::target().join("skips.txt");
    fs::write(&skips, "").with_context(|| format!("`{}`", skips.display()))?;
    let wheels = tools::wheels()?;
    let mut tally = rust(&loopd, &skips, kernel.as_deref(), &wheels)?;
    tally += sdk::run(&loopd, kernel.as_deref())?;
    tally += crash::run_short(&striking, kernel.as_deref())?;
    close(tally)
}

/// Where it cannot be had, and nobody insists, tests that need it say so.
fn guest_kernel() -> Result<Option<PathBuf>> {
    match tools::guest_kernel() {
        Ok(package) => Ok(Some(package)),
        Err(fault) if place::is_ci() => Err(fault),
        Err(fault) => {
            println!("the kernel of virtual machines could not be fetched: {fault:#}");
            Ok(None)
        }
    }
}

pub fn run_sdk() -> Result<()> {
    close(sdk::run(&build()?, guest_kernel()?.as_deref())?)
}

fn close(tally: Tally) -> Result<()> {
    println!("{tally}");
    match tally {
        Tally { failed: 0, skipped, .. } if skipped == 0 || !place::is_ci() => Ok(()),
        Tally { failed: 0, .. } => bail!("in CI nothing may be skipped"),
        _ => bail!("tests failed"),
    }
}

/// Every executable, so that end-to-end tests run what the unit tests were run on.
fn build() -> Result<PathBuf> {
    place::run(place::cargo().args(["build", "--profile", "ci", "--package", "loopd"]))?;
    Ok(place::target().join("ci/loopd"))
}

fn rust(loopd: &Path, skips: &Path, kernel: Option<&Path>, wheels: &Path) -> Result<Tally> {
    let with_nextest = place::starts("cargo-nextest", "--version");
    let mut command = place::cargo();
    match with_nextest {
        true => {
            command.args(["nextest", "run", "--workspace", "--cargo-profile", "ci", "--no-fail-fast", "--retries", "1"])
        }
        false => command.args(["test", "--workspace", "--profile", "ci", "--no-fail-fast"]),
    };
    command.env("E2E_BINARY", loopd).env("E2E_SKIPS", skips).env("E2E_WHEELS", wheels);
    command.envs(kernel.map(|package| ("E2E_KERNEL", package)));
    let count = if with_nextest { Tally::of_nextest } else { Tally::of_libtest };
    let (mut tally, text) = streamed(&mut command, count)?;
    for name in tally::unsteady(&text) {
        println!("unsteady, passed only when run again: {name}");
    }
    let reasons = fs::read_to_string(skips).with_context(|| format!("`{}`", skips.display()))?;
    for reason in reasons.lines() {
        println!("skipped: {reason}");
        tally.skipped += 1;
        tally.passed = tally.passed.saturating_sub(1);
    }
    Ok(tally)
}

/// Runs a test runner, passing on what it prints as it prints it.
fn streamed(command: &mut Command, count: fn(&str) -> Tally) -> Result<(Tally, String)> {
    println!("+ {}", place::typed(command));
    // One pipe for both outputs keeps their order; a shell joins them.
    let mut joined = place::command("sh");
    joined.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(command.get_program()).args(command.get_args());
    joined.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdout(Stdio::piped());
    let mut child = joined.spawn().with_context(|| format!("`{}` cannot be started", place::typed(command)))?;
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().expect("standard output is piped")).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait()?;
    let tally = count(&text);
    match status.success() || tally.failed > 0 {
        true if tally.passed + tally.failed > 0 => Ok((tally, text)),
        _ => bail!("`{}` ended with {status} before its tests did", place::typed(command)),
    }
}
