//! What the house costs to build: a clean release, and an edit in `server`. Long, and only run when asked for by name.

use crate::place::Place;
use crate::report::{Report, Target, short};
use crate::tools;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use tokio::process::Command;
use tokio::time::Instant;

const MINUTES_MAX: f64 = 8.0;
const EDIT_SECONDS_MAX: f64 = 30.0;

pub async fn run(place: &Place) -> Result<Report> {
    // The committed tree, copied: an edit is timed there and nobody's files change.
    let work = tempfile::tempdir_in(&place.work)?;
    let tree = work.path().join("tree");
    std::fs::create_dir(&tree)?;
    let archive = work.path().join("tree.tar");
    tools::run(Command::new("git").arg("-C").arg(&place.root).args(["archive", "HEAD", "--output"]).arg(&archive))
        .await?;
    tools::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree)).await?;

    let crates = crates(&tree).await?;
    tools::run(Command::new("cargo").args(["fetch", "--quiet", "--locked"]).current_dir(&tree)).await?;
    let release = build(&tree, &["--release"]).await? / 60.0;
    let debug = build(&tree, &[]).await?;
    edit(&tree.join("crates/server/src/lib.rs"))?;
    let edited = build(&tree, &[]).await?;

    let mut report = Report::new("build");
    let (theirs, ours) = crates;
    report.say(&format!("{theirs} crates from the registry and {ours} of our own; packages fetched before."));
    let rows = [
        vec!["`cargo build --release`, nothing built before".into(), format!("{} min", short(release))],
        vec!["`cargo build`, nothing built before".into(), format!("{} min", short(debug / 60.0))],
        vec!["`cargo build` after an edit in `crates/server`".into(), format!("{} s", short(edited))],
    ];
    report.table(&["what", "wall time"], &rows);
    report.figure("clean release build", release, Target::AtMost(MINUTES_MAX, "min"));
    report.figure("debug build after an edit in `server`", edited, Target::AtMost(EDIT_SECONDS_MAX, "s"));
    Ok(report)
}

/// Seconds of wall time.
async fn build(tree: &Path, arguments: &[&str]) -> Result<f64> {
    let start = Instant::now();
    let target = tree.join("target");
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--locked"]).args(arguments).env("CARGO_TARGET_DIR", target).current_dir(tree);
    tools::run(&mut command).await?;
    Ok(start.elapsed().as_secs_f64())
}

/// Adds a public function: what depends on the crate has to be built again.
fn edit(file: &Path) -> Result<()> {
    let mut out =
        std::fs::OpenOptions::new().append(true).open(file).with_context(|| format!("`{}`", file.display()))?;
    writeln!(out, "\n/// Added by the benchmark.\npub fn edited() -> usize {{\n    {}\n}}", file.as_os_str().len())?;
    Ok(())
}

/// Crates that the executable is built from, build scripts included: those of others, and ours.
async fn crates(tree: &Path) -> Result<(usize, usize)> {
    let arguments = ["tree", "--package", "loopd", "--edges", "normal,build", "--prefix", "none", "--no-dedupe"];
    let text = tools::run(Command::new("cargo").args(arguments).current_dir(tree)).await?;
    let packages: BTreeSet<(&str, bool)> = text.lines().filter(|l| !l.is_empty()).map(package).collect();
    let ours = packages.iter().filter(|(_, local)| *local).count();
    Ok((packages.len() - ours, ours))
}

/// Name and version of a line as `tokio v1.54.0` or `loopd v0.1.0 (/path)`, and whether it lies in the tree.
fn package(line: &str) -> (&str, bool) {
    match line.split_once(" (") {
        Some((name, rest)) => (name, rest.starts_with('/')),
        None => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_our_crates_from_others() {
        assert_eq!(package("tokio v1.54.0"), ("tokio v1.54.0", false));
        assert_eq!(package("serde_derive v1.0.1 (proc-macro)"), ("serde_derive v1.0.1", false));
        assert_eq!(package("loopd v0.1.0 (/src/crates/loopd)"), ("loopd v0.1.0", true));
    }
}
