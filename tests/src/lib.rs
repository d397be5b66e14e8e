//! End to end: real executables, real rooms, real sockets. This crate is the harness; the tests are in `tests/`.
//!
//! - [`attacks`]: what must not get through, from inside a room.
//! - [`binary`]: the `loopd` under test: the one that `E2E_BINARY` names, or one that is built on the spot.
//! - [`server`]: `loopd serve` on a free port with a data directory of its own; it can be killed and started again.
//! - [`http`]: requests as any client makes them, and event streams.
//! - [`cli`]: the command line, run to its end or signalled on its way.
//! - [`effects`]: a service outside that counts what tools do to it.
//! - [`guest`]: what virtual machines are made of.
//! - [`house`]: a server whose rooms may reach a site of ours, and what became of their connections.
//! - [`index`]: packages for rooms to install.
//! - [`linux`]: a plain Linux host of its own, for what depends on the kernel's settings.
//! - [`provider`]: a model provider that misbehaves as told.
//! - [`site`]: a web site that rooms want to reach.
//! - [`root`]: roots of rooms, put together of this machine's programs.
//! - [`script`]: system prompts for `builtin/script`.
//! - [`vault`]: vaults with credentials, and where a secret lies.
//!
//! One file of tests: `cargo test -p loopd-tests --test invoke`. Tests that cannot run where they stand say so through
//! [`skip`]: there is no silent pass.

pub mod archive;
pub mod attacks;
pub mod binary;
pub mod cli;
mod clock;
pub mod effects;
pub mod guest;
pub mod house;
pub mod http;
pub mod index;
pub mod linux;
pub mod provider;
pub mod root;
pub mod script;
pub mod server;
pub mod site;
pub mod vault;

pub use http::{Http, Stream};
pub use server::Server;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Nothing that is waited for here takes longer, unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Says why a test cannot run here. In CI that is a failure; elsewhere the caller returns, and the closing line counts it.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("E2E_SKIPS") {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{name}: {reason}")).expect("the list of skipped tests is writable");
    }
}

/// Whether a program does this here; says so when not.
pub fn has(program: &str, arguments: &[&str]) -> bool {
    let there = Command::new(program).args(arguments).output().is_ok_and(|done| done.status.success());
    if !there {
        skip(&format!("`{program} {}` does not work", arguments.join(" ")));
    }
    there
}

/// A directory with the wheels that tests install in rooms; `cargo xtask test` fetches them.
pub fn wheels() -> Option<PathBuf> {
    let found = std::env::var_os("E2E_WHEELS").map(PathBuf::from).filter(|wheels| wheels.is_dir());
    if found.is_none() {
        skip("E2E_WHEELS names no directory with wheels");
    }
    found
}
