//! Dependencies: what `deny.toml` says of licences, bans and sources, and known vulnerabilities.
//!
//! The database of vulnerabilities comes from the network. Where it cannot be fetched that is said, and is no failure: the
//! rest of the check must work on a machine that reaches nothing but a package registry.

use crate::place;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

const VERSION: &str = "0.20.2";

pub fn run() -> Result<()> {
    let program = find()?;
    let check = |what: &[&str]| {
        let mut command = place::command(&program);
        command.args(["--all-features", "check", "--hide-inclusion-graph"]).args(what);
        command
    };
    place::run(&mut check(&["licenses", "bans", "sources"]))?;
    match fetches(&program)? {
        true => place::run(&mut check(&["advisories"])),
        false => {
            println!("advisories were not checked: the RustSec database cannot be fetched from here");
            Ok(())
        }
    }
}

/// The one on the path if it is of our version, else our own, built once.
fn find() -> Result<PathBuf> {
    let own = place::tools().join("bin/cargo-deny");
    for candidate in [PathBuf::from("cargo-deny"), own.clone()] {
        if version_of(&candidate).as_deref() == Some(VERSION) {
            return Ok(candidate);
        }
    }
    let mut install = place::cargo();
    // It runs for two seconds; optimised, it takes three times as long to build.
    install.args(["install", "cargo-deny", "--debug", "--locked", "--version", VERSION, "--root"]);
    install.arg(place::tools()).env("CARGO_PROFILE_DEV_DEBUG", "0");
    place::run(&mut install)?;
    Ok(own)
}

fn version_of(program: &PathBuf) -> Option<String> {
    let done = Command::new(program).arg("--version").output().ok().filter(|done| done.status.success())?;
    String::from_utf8_lossy(&done.stdout).split_whitespace().nth(1).map(str::to_owned)
}

fn fetches(program: &PathBuf) -> Result<bool> {
    let mut fetch = place::command(program);
    fetch.args(["fetch", "db"]);
    println!("+ {}", place::typed(&fetch));
    // What it writes when there is no way to the database is of no use to anybody.
    let done = fetch.output().context("cargo-deny cannot be started")?;
    Ok(done.status.success())
}
