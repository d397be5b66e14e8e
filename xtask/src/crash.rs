//! The crash harness (`tests/crash`), on a server that is built with fail points.
//!
//! Long form: `cargo xtask crash --points 2000 --report FILE`. What follows `crash` goes to the harness; see its `--help`.

use crate::place;
use crate::tally::Tally;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The same with rooms that have a kernel of their own: few points, as a machine made in software is slow, and half of them at least.
#[rustfmt::skip]
const SHORT_MICROVM: [&str; 14] = [
    "--isolation", "microvm", "--seed", "1", "--points", "12", "--at-least", "6",
    "--seconds", "120", "--lanes", "1", "--sessions", "2",
];

/// The form that is a part of the tests: a fixed seed, and an end after this time on a machine however slow.
const SHORT: [&str; 8] = ["--seed", "1", "--points", "120", "--seconds", "75", "--lanes", "2"];

pub fn run(arguments: &[&str]) -> Result<()> {
    let binaries = build()?;
    place::run(binaries.harness().args(arguments))
}

/// With the Debian package of a guest's kernel also in rooms with a kernel of their own.
pub fn run_short(binaries: &Binaries, kernel: Option<&Path>) -> Result<Tally> {
    let mut tally = run_form(binaries.harness().args(SHORT))?;
    if let Some(kernel) = kernel {
        let guest = place::target().join("crash/guest");
        let mut build = place::command(&binaries.server);
        build.args(["image", "build", "--data"]).arg(&guest).arg("--kernel").arg(kernel);
        place::run(build.args(["--packages", "bash,coreutils,grep"]))?;
        tally += run_form(binaries.harness().args(SHORT_MICROVM).arg("--guest").arg(&guest))?;
    }
    Ok(tally)
}

fn run_form(harness: &mut Command) -> Result<Tally> {
    println!("+ {}", place::typed(harness));
    let done = harness.output().with_context(|| format!("`{}` cannot be started", place::typed(harness)))?;
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{text}");
    let tally = Tally::of_crash(&text);
    if tally == Tally::default() || (!done.status.success() && tally.failed == 0) {
        bail!("the crash harness ended with {} before its points did", done.status);
    }
    Ok(tally)
}

/// The harness and the server that it strikes.
pub struct Binaries {
    harness: PathBuf,
    server: PathBuf,
}

impl Binaries {
    fn harness(&self) -> Command {
        let mut command = place::command(&self.harness);
        command.arg("--binary").arg(&self.server).arg("--directory").arg(place::target().join("crash/data"));
        command
    }
}

/// A copy, because the next build of the server without fail points takes its place.
pub fn build() -> Result<Binaries> {
    let profile = ["--profile", "ci", "--package"];
    place::run(place::cargo().arg("build").args(profile).arg("loopd-crash"))?;
    place::run(place::cargo().arg("build").args(profile).args(["loopd", "--features", "failpoints"]))?;
    let (built, server) = (place::target().join("ci/loopd"), place::target().join("crash/loopd"));
    fs::create_dir_all(place::target().join("crash")).context("`target/crash`")?;
    // Renamed into place: an earlier copy may still be running.
    let fresh = server.with_extension("new");
    fs::copy(&built, &fresh)
        .and_then(|_| fs::rename(&fresh, &server))
        .with_context(|| format!("`{}`", built.display()))?;
    Ok(Binaries { harness: place::target().join("ci/loopd-crash"), server })
}
