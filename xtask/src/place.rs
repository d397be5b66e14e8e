//! Where things are, and how a program is run from there.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's root.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a directory of the repository").to_owned()
}

pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Tools that tasks install for themselves; nothing outside is touched.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// Are we a check that nobody watches? Then what cannot be done is a failure.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

pub fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The command as a person would type it.
pub fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs it with its output shown; an error says which command failed.
pub fn run(command: &mut Command) -> Result<()> {
    println!("+ {}", typed(command));
    let status = command.status().with_context(|| format!("`{}` cannot be started", typed(command)))?;
    match status.success() {
        true => Ok(()),
        false => bail!("`{}` failed: {status}", typed(command)),
    }
}

/// Standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.stderr(Stdio::inherit()).output();
    let done = done.with_context(|| format!("`{}` cannot be started", typed(command)))?;
    if !done.status.success() {
        bail!("`{}` failed: {}", typed(command), done.status);
    }
    String::from_utf8(done.stdout).with_context(|| format!("`{}` wrote what is not UTF-8", typed(command)))
}

/// Is there such a program on the path, and does it start?
pub fn starts(program: &str, argument: &str) -> bool {
    let silent = command(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    silent.is_ok_and(|status| status.success())
}
