//! Running other programs: what they say is part of the error.

use crate::GuestImageError;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

/// Characters of a program's complaints that are passed on: the last ones.
const SAID_CHARS: usize = 600;

/// Where programs are, also those that only administrators have on their path.
const DIRECTORIES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that speaks English and reads nothing.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{DIRECTORIES}"),
        _ => DIRECTORIES.to_owned(),
    };
    command.env("PATH", path).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// What it printed. `missing`: what to say when it is not there.
pub(crate) fn run(command: &mut Command, missing: &str) -> Result<String, GuestImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = match command.output() {
        Ok(done) => done,
        Err(absent) if absent.kind() == ErrorKind::NotFound => {
            return Err(GuestImageError::missing(format!("`{program}` is not on this machine; {missing}")));
        }
        Err(fault) => return Err(GuestImageError::Program { program, said: fault.to_string() }),
    };
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&done.stderr);
    let text = if text.trim().is_empty() { String::from_utf8_lossy(&done.stdout) } else { text };
    let from = text.trim().char_indices().rev().nth(SAID_CHARS).map_or(0, |(at, _)| at);
    Err(GuestImageError::Program { program, said: format!("{}: {}", done.status, &text.trim()[from..]) })
}
