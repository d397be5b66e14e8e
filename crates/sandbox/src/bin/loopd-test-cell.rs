//! What the conformance suite puts in the cell's place: does what it is told, as the cell or as a tool would.
//!
//! It says one byte first, as a sign of life. A request is a little-endian `u32` of length, then a verb, a line feed and a body; so is an answer, with an exit status in
//! the verb's place. Ends when the host lets go of the channel.

#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, exit};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).map(String::as_str) == Some("syscall") {
        exit(call(&arguments[2..]));
    }
    // SAFETY: the host promises a channel under this number, and nothing else here owns it.
    let mut channel = unsafe { UnixStream::from_raw_fd(loopd_protocol::CHANNEL_FD) };
    if channel.write_all(b"!").is_err() {
        return;
    }
    while let Some(request) = read(&mut channel) {
        let (verb, body) = request.split_once('\n').unwrap_or((&request, ""));
        let answer = match verb {
            "echo" => format!("0\n{body}"),
            "exit" => exit(body.parse().unwrap_or(255)),
            "descriptors" => format!("0\n{}", descriptors().unwrap_or_else(|fault| fault.to_string())),
            "cell" => run(Command::new("/bin/sh").args(["-c", body])),
            "tool" => run(as_tool(Command::new("/bin/sh").args(["-c", body]))),
            "syscall" => run(as_tool(Command::new("/proc/self/exe").arg("syscall").args(body.split(' ')))),
            _ => format!("255\nunknown verb `{verb}`"),
        };
        let length = (answer.len() as u32).to_le_bytes();
        if channel.write_all(&[&length, answer.as_bytes()].concat()).is_err() {
            break;
        }
    }
}

fn read(channel: &mut UnixStream) -> Option<String> {
    let mut length = [0; 4];
    channel.read_exact(&mut length).ok()?;
    let mut request = vec![0; u32::from_le_bytes(length) as usize];
    channel.read_exact(&mut request).ok()?;
    String::from_utf8(request).ok()
}

/// Number and target of each open descriptor of this process, but for the one that reads the list.
fn descriptors() -> std::io::Result<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = std::fs::read_link(entry.path())?;
        if !target.starts_with("/proc") {
            lines.push(format!("{} {}", entry.file_name().display(), target.display()));
        }
    }
    lines.sort();
    Ok(lines.join("\n"))
}

/// Under the user that the host named for tools.
fn as_tool(command: &mut Command) -> &mut Command {
    match std::env::var("LOOPD_TOOL_UID").ok().and_then(|uid| uid.parse().ok()) {
        Some(uid) => command.uid(uid).gid(uid),
        None => command,
    }
}

fn run(command: &mut Command) -> String {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            format!("{}\n{}", output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text))
        }
        Err(fault) => format!("254\n{fault}"),
    }
}

/// Makes one system call with numbers as arguments; the exit status is the error number.
fn call(arguments: &[String]) -> i32 {
    let mut numbers = [0i64; 7];
    for (number, text) in numbers.iter_mut().zip(arguments) {
        *number = text.parse().unwrap_or(0);
    }
    let [call, a, b, c, d, e, f] = numbers;
    // SAFETY: this process exists to make this one call; whatever it does to memory, nothing is used afterwards but `errno`.
    match unsafe { libc::syscall(call, a, b, c, d, e, f) } {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
        _ => 0,
    }
}
