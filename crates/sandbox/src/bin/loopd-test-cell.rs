//! What the conformance suite puts in the cell's place: does what it is told, as the cell or as a tool would.
//!
//! It listens as a cell does: hosts come and go, the latest one is the one that counts, and when none has come for
//! `LOOPD_ORPHAN_SECONDS` it ends. A host is greeted with one byte. A request is a little-endian `u32` of length, then a verb,
//! a line feed and a body; so is an answer, with an exit status in the verb's place.

#![allow(unsafe_code)]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, exit};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).map(String::as_str) == Some("syscall") {
        exit(call(&arguments[2..]));
    }
    if arguments.get(1).map(String::as_str) == Some("call32") {
        exit(call32());
    }
    if arguments.get(1).map(String::as_str) == Some("landlock") {
        exit(landlock());
    }
    if let [_, verb, outlet, text] = &arguments[..]
        && verb == "dial"
    {
        exit(dial(outlet, text));
    }
    // SAFETY: the host promises a listening socket under this number, and nothing else here owns it.
    let listener = unsafe { UnixListener::from_raw_fd(loopd_protocol::CHANNEL_FD) };
    let patience = std::env::var("LOOPD_ORPHAN_SECONDS").ok().and_then(|text| text.parse().ok());
    let patience = Timespec { tv_sec: patience.expect("the host says how long to wait for it"), tv_nsec: 0 };
    let mut host: Option<UnixStream> = None;
    loop {
        let mut fds = vec![PollFd::new(&listener, PollFlags::IN)];
        fds.extend(host.as_ref().map(|host| PollFd::new(host, PollFlags::IN)));
        match poll(&mut fds, host.is_none().then_some(&patience)) {
            Ok(0) => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("waiting for hosts: {errno}"),
        }
        let speaks = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        // It does not block: no host waits when another one was only heard.
        if let Ok((mut latest, _)) = listener.accept() {
            host = latest.write_all(b"!").is_ok().then_some(latest);
        } else if speaks && !host.as_mut().is_some_and(serve) {
            host = None;
        }
    }
}

/// Answers one request. `false`: the host is gone.
fn serve(host: &mut UnixStream) -> bool {
    let Some(request) = read(host) else { return false };
    let (verb, body) = request.split_once('\n').unwrap_or((&request, ""));
    let answer = match verb {
        "echo" => format!("0\n{body}"),
        "exit" => exit(body.parse().unwrap_or(255)),
        "descriptors" => format!("0\n{}", descriptors().unwrap_or_else(|fault| fault.to_string())),
        "cell" => run(Command::new("/bin/sh").args(["-c", body])),
        "tool" => run(as_tool(Command::new("/bin/sh").args(["-c", body]))),
        "call32" => run(as_tool(Command::new("/proc/self/exe").arg("call32"))),
        "landlock" => run(as_tool(Command::new("/proc/self/exe").arg("landlock"))),
        "dial" => run(dialing(&mut Command::new("/proc/self/exe"), body)),
        "dial as tool" => run(as_tool(dialing(&mut Command::new("/proc/self/exe"), body))),
        "bind" => format!("0\n{}", bind(body)),
        "syscall" => run(as_tool(Command::new("/proc/self/exe").arg("syscall").args(body.split(' ')))),
        _ => format!("255\nunknown verb `{verb}`"),
    };
    let length = (answer.len() as u32).to_le_bytes();
    host.write_all(&[&length, answer.as_bytes()].concat()).is_ok()
}

fn read(host: &mut UnixStream) -> Option<String> {
    let mut length = [0; 4];
    host.read_exact(&mut length).ok()?;
    let mut request = vec![0; u32::from_le_bytes(length) as usize];
    host.read_exact(&mut request).ok()?;
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

/// With the socket for connections that the host named.
fn dialing<'a>(command: &'a mut Command, text: &str) -> &'a mut Command {
    command.arg("dial").arg(std::env::var_os("LOOPD_OUTLET").unwrap_or_default()).arg(text)
}

/// Says something at a socket and prints the answer.
fn dial(outlet: &str, text: &str) -> i32 {
    let talk = || -> std::io::Result<()> {
        let mut socket = UnixStream::connect(outlet)?;
        socket.write_all(text.as_bytes())?;
        socket.shutdown(std::net::Shutdown::Write)?;
        std::io::copy(&mut socket, &mut std::io::stdout())?;
        Ok(())
    };
    match talk() {
        Ok(()) => 0,
        Err(fault) => {
            println!("{fault}");
            1
        }
    }
}

/// Tries a port as the cell; what came of it.
fn bind(port: &str) -> String {
    let address = format!("127.0.0.1:{port}");
    match (std::net::UdpSocket::bind(&address), std::net::TcpListener::bind(&address)) {
        (Ok(_), Ok(_)) => "bound".to_owned(),
        (udp, tcp) => format!("{:?} {:?}", udp.err(), tcp.err()),
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

/// Asks for its process id as a 32-bit program does; the exit status is the error number.
#[cfg(target_arch = "x86_64")]
fn call32() -> i32 {
    const GETPID: i64 = 20;
    let mut answer = GETPID;
    // SAFETY: the call takes no argument and writes nothing; registers that an older kernel clears are given up.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    if (answer as i32) < 0 { -(answer as i32) } else { 0 }
}

#[cfg(not(target_arch = "x86_64"))]
fn call32() -> i32 {
    libc::ENOSYS
}

/// Puts itself under set after set of Landlock rules; the exit status is how many the kernel lets it have.
fn landlock() -> i32 {
    // `LANDLOCK_ACCESS_FS_READ_FILE`.
    let handled = 1_u64 << 2;
    let mut sets = 0;
    // SAFETY: the calls read one number, which lives, and change nothing but what this process may do; it makes no others afterwards.
    unsafe {
        let rules = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        while rules >= 0 && libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) == 0 {
            sets += 1;
        }
    }
    sets
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
