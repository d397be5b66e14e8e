//! Starts QEMU as a stranger, by `loopd-jail confine`.

use super::super::vmm::VmmError;
use crate::programs;
use loopd_domain::limits::{MACHINE_OPEN_FILES, MACHINE_STARTS_MS, MACHINE_THREADS_MAX};
use loopd_jail::channel;
use loopd_jail::confine::{Confine, Confined, PROGRAM_DESCRIPTORS_MAX};
use loopd_jail::wire::DESCRIPTORS_MAX;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const DOING: &str = "starting QEMU";

#[derive(Clone)]
pub(super) struct Jail {
    jail: Arc<OwnedFd>,
    /// The program that is confined.
    program: PathBuf,
}

/// One start.
pub(super) struct Start {
    pub arguments: Vec<String>,
    pub descriptors: Vec<OwnedFd>,
    pub errors: OwnedFd,
    pub user: Option<u32>,
    pub kvm: bool,
    pub cgroups: Vec<OwnedFd>,
    /// Of a file that it writes.
    pub file_bytes: u64,
}

impl Jail {
    pub(super) fn new(program: &Path) -> io::Result<Self> {
        let jail = programs::sealed("loopd-jail", programs::JAIL)?;
        Ok(Jail { jail: Arc::new(jail), program: program.to_owned() })
    }

    /// Answers a pidfd, and the number of the process.
    pub(super) async fn start(&self, start: Start) -> Result<(OwnedFd, u32), VmmError> {
        let own = self.clone();
        match tokio::task::spawn_blocking(move || own.start_blocking(start)).await {
            Ok(started) => started,
            Err(stopped) => Err(failed(stopped.to_string())),
        }
    }

    fn start_blocking(&self, start: Start) -> Result<(OwnedFd, u32), VmmError> {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str()).as_bytes().to_vec();
        let arguments = std::iter::once(name).chain(start.arguments.into_iter().map(String::into_bytes)).collect();
        let all: Vec<_> = start.cgroups.iter().chain([&start.errors]).chain(&start.descriptors).collect();
        if all.len() > PROGRAM_DESCRIPTORS_MAX {
            return Err(failed(format!("{} descriptors; at most {PROGRAM_DESCRIPTORS_MAX}", all.len())));
        }
        let order = Confine {
            program: self.program.as_os_str().as_bytes().to_vec(),
            arguments,
            user: start.user,
            kvm: start.kvm,
            cgroups: start.cgroups.len() as u64,
            descriptors: all.len() as u64,
            open_files: MACHINE_OPEN_FILES,
            processes: MACHINE_THREADS_MAX,
            file_bytes: start.file_bytes,
        };
        let (here, there) = channel::pair().map_err(|errno| failed(format!("making a socket: {errno}")))?;
        let deadline = Some(Duration::from_millis(MACHINE_STARTS_MS));
        set_socket_timeout(&here, Timeout::Recv, deadline).map_err(|errno| failed(errno.to_string()))?;
        let mut child = Command::new(format!("/proc/self/fd/{}", self.jail.as_raw_fd()));
        child.arg0("loopd-jail").arg("confine").env_clear().current_dir("/").process_group(0);
        child.stdin(Stdio::from(there)).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = child.spawn().map_err(|fault| failed(format!("starting the jail: {fault}")))?;
        // A command keeps its ends of what it gave.
        let word = converse(&here, &order, &all);
        if word.is_err() {
            // One that has ended by itself cannot be killed, and need not be.
            let _ = child.kill();
        }
        child.wait().map_err(|fault| failed(format!("waiting for the jail: {fault}")))?;
        word
    }
}

fn converse(socket: &OwnedFd, order: &Confine, descriptors: &[&OwnedFd]) -> Result<(OwnedFd, u32), VmmError> {
    let told = |errno: rustix::io::Errno| failed(format!("talking to the jail: {errno}"));
    channel::send(socket, &order.encode(), &[], true).map_err(told)?;
    for some in descriptors.chunks(DESCRIPTORS_MAX) {
        let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        channel::send(socket, b"+", &some, true).map_err(told)?;
    }
    let Some((packet, descriptors)) = channel::receive(socket, true).map_err(told)? else {
        return Err(failed("the jail ended without a word".to_owned()));
    };
    match (Confined::decode(&packet), descriptors.into_iter().next()) {
        (Ok(Confined::Runs { pid }), Some(pidfd)) => Ok((pidfd, pid)),
        (Ok(Confined::Failed(fault)), _) => Err(failed(fault.to_string())),
        _ => Err(failed("the jail said something unknown".to_owned())),
    }
}

fn failed(reason: String) -> VmmError {
    VmmError::Failed { doing: DOING, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::microvm::qemu::machine;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const USER: u32 = 0x7f00_0002;

    /// Runs a script in QEMU's place. Answers what it wrote to its first descriptor; its second and third are those given.
    async fn inside(script: &str, given: Vec<OwnedFd>) -> String {
        let (out, out_there) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (errors, errors_there) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let start = Start {
            arguments: vec!["-c".to_owned(), format!("exec >&3\n{script}")],
            descriptors: [out_there].into_iter().chain(given).collect(),
            errors: errors_there,
            user: rustix::process::geteuid().is_root().then_some(USER),
            kvm: false,
            cgroups: Vec::new(),
            file_bytes: 8 << 20,
        };
        let shell = Path::new("/bin/bash").canonicalize().unwrap();
        let (process, _) = Jail::new(&shell).unwrap().start(start).await.unwrap();
        let said = tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            std::fs::File::from(out).read_to_string(&mut said).unwrap();
            std::fs::File::from(errors).read_to_string(&mut said).unwrap();
            said
        });
        let said = said.await.unwrap();
        machine::end(&process).await.unwrap();
        said
    }

    #[tokio::test]
    async fn it_sees_programs_a_few_devices_and_itself() {
        let said = inside(
            "cd /; echo *; echo /dev/* /etc/*; echo /proc/[0-9]*; echo $$; uname -n; echo /usr/bin/env",
            Vec::new(),
        )
        .await;
        let lines: Vec<_> = said.lines().collect();
        for name in lines[0].split(' ') {
            assert!(
                ["bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "usr"].contains(&name),
                "{said}"
            );
        }
        let etc = if Path::new("/etc/ld.so.cache").exists() { "/etc/ld.so.cache" } else { "/etc/*" };
        assert_eq!(lines[1], format!("/dev/null /dev/urandom {etc}"));
        assert_eq!(lines[2..], ["/proc/1", "1", "machine", "/usr/bin/env"]);
    }

    #[tokio::test]
    async fn it_can_write_nowhere_and_has_no_power() {
        let script = "for at in / /usr /usr/bin /dev /etc /proc /lib/; do (: >$at/x) 2>/dev/null && echo wrote $at; done
            mount -t tmpfs x /usr 2>/dev/null && echo mounted
            unshare -U true 2>/dev/null && echo made a namespace
            (ulimit -c 1) 2>/dev/null && echo cores
            kill -9 -1 2>/dev/null; kill -9 2 2>/dev/null && echo killed
            grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status; ulimit -n; ulimit -f";
        let said = inside(script, Vec::new()).await;
        let fields: Vec<Vec<_>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        let own = if rustix::process::geteuid().is_root() { USER.to_string() } else { "0".to_owned() };
        let number = own.as_str();
        assert_eq!(fields[0], ["Uid:", number, number, number, number], "{said}");
        assert_eq!(fields[1], ["Gid:", number, number, number, number]);
        if rustix::process::geteuid().is_root() {
            assert_eq!(fields[2], ["Groups:"]);
        }
        for set in &fields[3..8] {
            assert_eq!(set[1], "0000000000000000", "{said}");
        }
        assert_eq!(fields[8..], [vec!["NoNewPrivs:", "1"], vec!["Seccomp:", "2"], vec!["256"], vec!["8192"]], "{said}");
    }

    #[tokio::test]
    async fn it_reaches_no_socket_and_has_the_descriptors_that_it_was_given() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        // One of this process that the other must not have, though nothing closes it.
        let stray = rustix::io::dup(&file).unwrap();
        let script = format!(
            "(: <>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo reached
            echo /proc/self/fd/*; echo given >&4; echo kept >&5"
        );
        let said = inside(&script, vec![there.into(), file.try_clone().unwrap().into()]).await;
        let descriptors = [0, 1, 2, 3, 4, 5].map(|number| format!("/proc/self/fd/{number}")).join(" ");
        // A shell reads the directory by one more.
        let seen =
            said.trim_end().trim_end_matches(|last: char| last.is_ascii_digit()).trim_end_matches("/proc/self/fd/");
        assert!(
            said.starts_with(&descriptors) && seen.trim_end() == descriptors || said.trim_end() == descriptors,
            "{said}"
        );
        let mut given = String::new();
        here.read_to_string(&mut given).unwrap();
        assert_eq!(given, "given\n");
        assert_eq!(std::io::Seek::stream_position(&mut std::fs::File::from(stray)).unwrap(), 5);
        here.flush().unwrap();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let (_, errors) = rustix::pipe::pipe().unwrap();
        let user = rustix::process::geteuid().is_root().then_some(USER);
        let start = |user| Start {
            arguments: Vec::new(),
            descriptors: Vec::new(),
            errors: errors.try_clone().unwrap(),
            user,
            kvm: false,
            cgroups: Vec::new(),
            file_bytes: 8 << 20,
        };
        let jail = Jail::new(Path::new("/usr/bin/no-such-program")).unwrap();
        let told = jail.start(start(user)).await.unwrap_err().to_string();
        assert!(told.contains("/usr/bin/no-such-program: no such file"), "{told}");
        if rustix::process::geteuid().is_root() {
            let told = jail.start(start(None)).await.unwrap_err().to_string();
            assert!(told.contains("not root"), "{told}");
        }
    }

    #[tokio::test]
    async fn it_lives_in_the_cgroups_that_it_was_given() {
        // Any file of which it can be seen that it wrote itself into it.
        let (seen, procs) = rustix::pipe::pipe().unwrap();
        let (_, errors) = rustix::pipe::pipe().unwrap();
        let start = Start {
            arguments: vec!["-c".to_owned(), "exit 0".to_owned()],
            descriptors: Vec::new(),
            errors,
            user: rustix::process::geteuid().is_root().then_some(USER),
            kvm: false,
            cgroups: vec![procs],
            file_bytes: 8 << 20,
        };
        let shell = Path::new("/bin/sh").canonicalize().unwrap();
        Jail::new(&shell).unwrap().start(start).await.unwrap();
        let mut word = [0; 4];
        assert_eq!(rustix::io::read(&seen, &mut word), Ok(1));
        assert_eq!(word[0], b'0');
    }
}
