//! The attack suite on five grounds, and the table of `docs/security.md` made anew.
//!
//! It starts an ordinary user's processes, so it wants root; bubblewrap, socat and ripgrep are Debian packages that the
//! sandbox runtime leans on.

use crate::{place, tools};
use anyhow::{Context, Result};
use std::fs;

const PAGE: &str = "docs/security.md";
const BEGIN: &str = "<!-- begin attacks -->";
const END: &str = "<!-- end attacks -->";

pub fn run() -> Result<()> {
    tools::install_debian(&[
        ("bwrap", "--version", "bubblewrap"),
        ("socat", "-V", "socat"),
        ("rg", "--version", "ripgrep"),
    ])?;
    tools::packages()?;
    let (modules, kernel) = (tools::attack_peers()?, tools::guest_kernel()?);
    place::run(place::cargo().args(["build", "--profile", "ci", "--package", "loopd"]))?;
    let mut suite = place::cargo();
    suite.args(["run", "--profile", "ci", "--package", "loopd-tests", "--bin", "attacks", "--"]).arg(modules);
    suite.env("E2E_BINARY", place::target().join("ci/loopd")).env("E2E_KERNEL", kernel);
    let table = place::output(&mut suite)?;
    println!("{table}");
    let page = place::root().join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("`{PAGE}`"))?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("`{PAGE}` has no mark `{BEGIN}`"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("`{PAGE}` has no mark `{END}`"))?;
    let renewed = format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim());
    fs::write(&page, renewed).with_context(|| format!("`{PAGE}`"))
}
