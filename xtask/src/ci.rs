//! What a change must pass, in the order of what fails soonest.

use crate::{deny, direction, place, test};
use anyhow::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Check,
    Write,
}

/// Ends with the closing line of the tests.
pub fn run(format: Format) -> Result<()> {
    fmt(format)?;
    direction::run()?;
    clippy()?;
    deny::run()?;
    test::run()
}

fn fmt(format: Format) -> Result<()> {
    let mut command = place::cargo();
    command.args(["fmt", "--all"]);
    if format == Format::Check {
        command.args(["--", "--check"]);
    }
    place::run(&mut command)
}

fn clippy() -> Result<()> {
    // The profile of the tests: what clippy has checked need not be built again for them.
    let flags = ["clippy", "--workspace", "--all-targets", "--profile", "ci", "--", "-D", "warnings"];
    place::run(place::cargo().args(flags))
}
