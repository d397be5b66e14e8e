//! The fuzz targets of `tests/fuzz`.
//!
//! `cargo xtask fuzz`: the short form of all, which is a part of the tests. `cargo xtask fuzz TARGET --seconds N`: guided by
//! coverage; new inputs are kept in `target/fuzz/corpus`, failing ones in `target/fuzz-failures`. `cargo xtask fuzz TARGET FILE`: one
//! input again.
//!
//! libFuzzer comes as C++ and is built with what is there (`c++`). The instrumentation is asked of LLVM directly, so that the stable
//! compiler does; it is the same that `cargo fuzz` asks for, without the sanitizers.

use crate::place;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;

const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
];
/// Named, so that programs that the build itself runs are not instrumented.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
const SECONDS: &str = "60";
/// What one input may take before it counts as a failure, and what the process may hold, in MiB.
const BOUNDS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536"];

pub fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        [] => place::run(place::cargo().args(["test", "--package", "loopd-fuzz"])),
        [target] => guided(target, SECONDS),
        [target, "--seconds", seconds] if seconds.parse::<u64>().is_ok() => guided(target, seconds),
        [target, file] if !file.starts_with('-') => place::run(fuzzer(target)?.arg(fs::canonicalize(file)?)),
        other => bail!("`{}`; accepted: nothing, TARGET [--seconds N], TARGET FILE", other.join(" ")),
    }
}

fn guided(target: &str, seconds: &str) -> Result<()> {
    let seeds = place::root().join("tests/fuzz/corpus").join(target);
    if !seeds.is_dir() {
        bail!("no target `{target}`; accepted: {}", known()?.join(", "));
    }
    let (found, failures) = (directory().join("corpus").join(target), place::target().join("fuzz-failures"));
    for made in [&found, &failures] {
        fs::create_dir_all(made).with_context(|| format!("`{}`", made.display()))?;
    }
    let mut fuzzer = fuzzer(target)?;
    fuzzer.args(BOUNDS).arg(format!("-max_total_time={seconds}"));
    fuzzer.arg(format!("-artifact_prefix={}/{target}-", failures.display()));
    place::run(fuzzer.arg(found).arg(seeds))
}

/// The fuzzer, built now.
fn fuzzer(target: &str) -> Result<std::process::Command> {
    let manifest = place::root().join("tests/fuzz/libfuzzer/Cargo.toml");
    let mut build = place::cargo();
    build.args(["build", "--release", "--locked", "--target", PLATFORM, "--manifest-path"]).arg(manifest);
    build.env("RUSTFLAGS", FLAGS.join(" ")).env("CARGO_TARGET_DIR", directory());
    place::run(&mut build)?;
    let mut fuzzer = place::command(directory().join(PLATFORM).join("release/loopd-libfuzzer"));
    fuzzer.env("LOOPD_FUZZ_TARGET", target);
    Ok(fuzzer)
}

fn directory() -> PathBuf {
    place::target().join("fuzz")
}

fn known() -> Result<Vec<String>> {
    let corpus = place::root().join("tests/fuzz/corpus");
    let entries = fs::read_dir(&corpus).with_context(|| format!("`{}`", corpus.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}
