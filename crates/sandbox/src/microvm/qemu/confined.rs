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
