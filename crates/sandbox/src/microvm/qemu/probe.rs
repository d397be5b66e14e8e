//! Which QEMU this host has, and whether KVM boots a guest with it: that `/dev/kvm` opens says little.
//!
//! The guests' own kernel is booted without anything to go on with. One that works gets as far as to complain about that, in well
//! under a second; what came of it is remembered until kernel, host kernel or QEMU change.

use super::super::vmm::{Shape, VmmError};
use super::command::{Command, Kernel, Memory};
use super::{Launch, Qemu, STARTING, blocking, error_output, failed, memory, pair, read};
use crate::{Accelerator, Check, CheckVerdict};
use loopd_domain::limits::{KVM_TRIAL_MS, QEMU_VERSION_MS};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "virtual machines";
const PROGRAM: &str = "qemu-system-x86_64";
const INSTALL: &str = "apt-get install qemu-system-x86";
const BUILD: &str = "loopd image build";
const ALLOW_KVM: &str =
    "use a machine with virtualisation of its own (`/dev/kvm`, which boots a guest), and let loopd's user open it";
const KVM: &str = "/dev/kvm";
/// Where programs are when the server's own `PATH` does not say.
const PATHS: &str = "/usr/local/bin:/usr/bin:/bin";
/// All that QEMU sees of the host's programs.
const VISIBLE: &str = "/usr";
/// The last words of a kernel that has come up and finds nothing to go on with.
const CAME_UP: &str = "Unable to mount root fs";
const TRIAL_MEMORY_BYTES: u64 = 128 << 20;
/// Of the host: a trial is nobody's.
const NOBODY: u32 = 65_534;

pub(super) struct Found {
    pub program: PathBuf,
    /// `qemu 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
    pub version: String,
}

/// What was found out, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    qemu: String,
    host_kernel: String,
    kernel: PathBuf,
    kernel_bytes: u64,
    kernel_changed_s: i64,
    /// Why KVM does not boot it; `None`: it does.
    fault: Option<String>,
}

pub(super) async fn find() -> Result<Found, VmmError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(VmmError::Unavailable("virtual machines are for processors of kind x86-64 so far".to_owned()));
    }
    let paths = std::env::var_os("PATH").unwrap_or_else(|| PATHS.into());
    let found = std::env::split_paths(&paths).map(|path| path.join(PROGRAM)).find_map(|path| path.canonicalize().ok());
    let Some(program) = found else {
        return Err(VmmError::Unavailable(format!("`{PROGRAM}` is not installed: `{INSTALL}`")));
    };
    if !program.starts_with(VISIBLE) {
        let told = format!("`{}` is not below `{VISIBLE}`, where alone it can run confined", program.display());
        return Err(VmmError::Unavailable(told));
    }
    let asked = tokio::process::Command::new(&program).arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_millis(QEMU_VERSION_MS), asked).await;
    let output = output.map_err(|_| io::ErrorKind::TimedOut.into()).and_then(|output| output);
    let text = String::from_utf8_lossy(&output.map_err(failed("asking QEMU for its version"))?.stdout).into_owned();
    match text.lines().next().and_then(|line| line.strip_prefix("QEMU emulator version ")) {
        Some(version) => Ok(Found { program, version: format!("qemu {}", version.trim()) }),
        None => Err(VmmError::Unavailable(format!("`{}` does not say its version", program.display()))),
    }
}

/// How guests run here, and why not faster.
pub(super) async fn accelerator(
    found: &Found,
    data: &Path,
    kernel: &Path,
) -> Result<(Accelerator, Option<String>), VmmError> {
    if !Path::new(KVM).exists() {
        return Ok((Accelerator::Emulation, Some(format!("`{KVM}` is not there"))));
    }
    let (of, path) =
        (ask(found, kernel).map_err(failed("looking at the guests' kernel"))?, data.join("machines/kvm.json"));
    let verdict = match known(&path).filter(|known| Verdict { fault: None, ..known.clone() } == of) {
        Some(known) => known,
        None => {
            let fault = trial(found, kernel, Accelerator::Kvm).await?;
            let verdict = Verdict { fault, ..of };
            keep(&path, &verdict).map_err(failed("keeping what was found out about KVM"))?;
            verdict
        }
    };
    Ok(match verdict.fault {
        None => (Accelerator::Kvm, None),
        fault => (Accelerator::Emulation, fault),
    })
}

/// What a verdict is about.
fn ask(found: &Found, kernel: &Path) -> io::Result<Verdict> {
    let facts = fs::metadata(kernel)?;
    Ok(Verdict {
        qemu: found.version.clone(),
        host_kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        kernel: kernel.to_owned(),
        kernel_bytes: facts.len(),
        kernel_changed_s: facts.mtime(),
        fault: None,
    })
}

/// A verdict that cannot be read is as good as none.
fn known(path: &Path) -> Option<Verdict> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn keep(path: &Path, verdict: &Verdict) -> io::Result<()> {
    fs::create_dir_all(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
    let draft = super::template::beside(path)?;
    fs::write(&draft, serde_json::to_vec_pretty(verdict)?)?;
    fs::rename(&draft, path)
}

/// Why a kernel does not come up; `None`: it does.
pub(super) async fn trial(found: &Found, kernel: &Path, accelerator: Accelerator) -> Result<Option<String>, VmmError> {
    let qemu = Qemu::with(found, accelerator).await?;
    let kernel = kernel.to_owned();
    let (kernel, memory) = blocking(STARTING, move || Ok((read(&kernel)?, memory::empty(TRIAL_MEMORY_BYTES)?))).await?;
    let shape = Shape {
        kernel: PathBuf::new(),
        initramfs: PathBuf::new(),
        memory_bytes: TRIAL_MEMORY_BYTES,
        cpus: 1,
        base: PathBuf::new(),
        disk_bytes: 0,
        layers: Vec::new(),
    };
    let mut command = Command::new(accelerator, &shape);
    let (birth, birth_there) = pair().map_err(failed(STARTING))?;
    let (console, console_there) = pair().map_err(failed(STARTING))?;
    command.voices(birth_there, console_there);
    command.memory(Memory::Shared(memory), &shape);
    command.kernel(Kernel { kernel: kernel.into(), initramfs: None }, qemu.tsc_khz);
    let errors = error_output().map_err(failed(STARTING))?;
    let user = rustix::process::geteuid().is_root().then_some(NOBODY);
    let launch = Launch { birth, console, errors, user, cgroups: Vec::new() };
    let (mut machine, qmp) = match qemu.launch(command, launch).await {
        Ok(launched) => launched,
        Err(fault) => return Ok(Some(fault.to_string())),
    };
    let last = machine.ended.wait_for(Option::is_some);
    let last = tokio::time::timeout(Duration::from_millis(KVM_TRIAL_MS), last).await;
    let last = last.ok().and_then(Result::ok).and_then(|last| last.clone());
    super::machine::kill(machine.process.as_ref());
    drop(qmp);
    Ok(match last {
        Some(said) if said.contains(CAME_UP) => None,
        Some(said) => Some(format!("a guest's kernel did not come up: {said}")),
        None => Some(format!("a guest's kernel does not come up within {KVM_TRIAL_MS} ms")),
    })
}

pub(super) async fn check(data: &Path, kernel: Option<&Path>) -> Check {
    let found = match find().await {
        Ok(found) => found,
        Err(fault) => return told(CheckVerdict::Broken, fault.to_string(), INSTALL),
    };
    let Some(kernel) = kernel else {
        let detail = format!("{}; how guests run is not known before there is an image of one", found.version);
        return told(CheckVerdict::Degraded, detail, BUILD);
    };
    match accelerator(&found, data, kernel).await {
        Ok((Accelerator::Kvm, _)) => told(CheckVerdict::Works, format!("{}, KVM", found.version), ""),
        Ok((Accelerator::Emulation, why)) => {
            let why = why.unwrap_or_default();
            told(CheckVerdict::Degraded, format!("{}, in software, which is slow: {why}", found.version), ALLOW_KVM)
        }
        Err(fault) => told(CheckVerdict::Broken, fault.to_string(), INSTALL),
    }
}

fn told(verdict: CheckVerdict, detail: String, remedy: &str) -> Check {
    Check { name: NAME.to_owned(), verdict, detail, remedy: remedy.to_owned() }
}
