//! Which QEMU this host has, and whether KVM boots a guest with it: that `/dev/kvm` opens says little.
//!
//! The guests' own kernel is booted without anything to go on with. One that works gets as far as to complain about that, in well
//! under a second; what came of it is remembered until the host starts again, or kernel, host kernel or QEMU change.

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
    /// Of the host: a verdict is good until its next start, as a busy host may have made it a wrong one.
    boot: String,
    /// Who may use KVM: mode and group of its device.
    device: (u32, u32),
    /// Why KVM does not boot it; `None`: it does.
    fault: Option<String>,
}

pub(super) async fn find() -> Result<Found, VmmError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(VmmError::Unavailable("virtual machines are for processors of kind x86-64 so far".to_owned()));
    }
    let Some(program) = locate() else {
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

fn locate() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_else(|| PATHS.into());
    std::env::split_paths(&paths).map(|path| path.join(PROGRAM)).find_map(|path| path.canonicalize().ok())
}

/// How guests run here, and why not faster. `again`: what is remembered as not working is tried once more.
pub(super) async fn accelerator(
    found: &Found,
    data: &Path,
    kernel: &Path,
    again: bool,
) -> Result<(Accelerator, Option<String>), VmmError> {
    if !Path::new(KVM).exists() {
        return Ok((Accelerator::Emulation, Some(format!("`{KVM}` is not there"))));
    }
    let (of, path) =
        (ask(found, kernel).map_err(failed("looking at the guests' kernel"))?, data.join("machines/kvm.json"));
    let holds = |known: &Verdict| Verdict { fault: None, ..known.clone() } == of && !(again && known.fault.is_some());
    let verdict = match known(&path).filter(holds) {
        Some(known) => known,
        None => {
            let fault = trial(found, kernel, Accelerator::Kvm, Duration::from_millis(KVM_TRIAL_MS)).await?;
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
    let (facts, device) = (fs::metadata(kernel)?, fs::metadata(KVM)?);
    Ok(Verdict {
        qemu: found.version.clone(),
        host_kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        kernel: kernel.to_owned(),
        kernel_bytes: facts.len(),
        kernel_changed_s: facts.mtime(),
        boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
        device: (device.mode(), device.gid()),
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
pub(super) async fn trial(
    found: &Found,
    kernel: &Path,
    accelerator: Accelerator,
    patience: Duration,
) -> Result<Option<String>, VmmError> {
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
    let launch = Launch { birth, console, errors, user, cgroups: Vec::new(), file_bytes: TRIAL_MEMORY_BYTES };
    let (mut machine, birth) = match qemu.launch(command, launch).await {
        Ok(launched) => launched,
        Err(fault) => return Ok(Some(fault.to_string())),
    };
    birth.over();
    let last = machine.ended.wait_for(Option::is_some);
    let last = tokio::time::timeout(patience, last).await;
    let last = last.ok().and_then(Result::ok).and_then(|last| last.clone());
    super::machine::kill(machine.process.as_ref());
    Ok(match last {
        Some(said) if said.contains(CAME_UP) => None,
        Some(said) => Some(format!("a guest's kernel did not come up: {said}")),
        None => Some(format!("a guest's kernel does not come up within {} ms", patience.as_millis())),
    })
}

pub(super) async fn check(data: &Path, kernel: Option<&Path>) -> Check {
    let found = match find().await {
        Ok(found) => found,
        Err(fault) => {
            return told(CheckVerdict::Broken, fault.to_string(), if locate().is_none() { INSTALL } else { "" });
        }
    };
    let Some(kernel) = kernel else {
        let detail = format!("{}; how guests run is not known before there is an image of one", found.version);
        return told(CheckVerdict::Degraded, detail, BUILD);
    };
    match accelerator(&found, data, kernel, true).await {
        Ok((Accelerator::Kvm, _)) => told(CheckVerdict::Works, format!("{}, KVM", found.version), ""),
        Ok((Accelerator::Emulation, why)) => {
            let why = why.unwrap_or_default();
            told(CheckVerdict::Degraded, format!("{}, in software, which is slow: {why}", found.version), ALLOW_KVM)
        }
        Err(fault) => told(CheckVerdict::Broken, fault.to_string(), ""),
    }
}

fn told(verdict: CheckVerdict, detail: String, remedy: &str) -> Check {
    Check { name: NAME.to_owned(), verdict, detail, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_found_out_is_remembered_for_the_same_kernel() {
        let Ok(found) = find().await else { return };
        let place = tempfile::tempdir().unwrap();
        let kernel = place.path().join("kernel");
        fs::write(&kernel, b"no kernel").unwrap();
        let path = place.path().join("machines/kvm.json");
        if Path::new(KVM).exists() {
            let works = ask(&found, &kernel).unwrap();
            keep(&path, &works).unwrap();
            assert_eq!(known(&path).as_ref(), Some(&works));
            let told = accelerator(&found, place.path(), &kernel, false).await.unwrap();
            assert_eq!(told, (Accelerator::Kvm, None), "it is remembered");
            let fails = Verdict { fault: Some("it was busy".to_owned()), ..works };
            keep(&path, &fails).unwrap();
            let told = accelerator(&found, place.path(), &kernel, false).await.unwrap();
            assert_eq!(told, (Accelerator::Emulation, fails.fault.clone()));
            // Who asks for a check wants to know now. This is no kernel at all.
            let check = check(place.path(), Some(&kernel)).await;
            assert_eq!(check.verdict, CheckVerdict::Degraded);
            assert!(check.detail.contains("in software"), "{}", check.detail);
            assert_ne!(known(&path).unwrap().fault, fails.fault);
            // Another kernel is another question.
            keep(&path, &Verdict { fault: None, ..fails }).unwrap();
            fs::write(&kernel, b"no kernel either").unwrap();
            let (told, why) = accelerator(&found, place.path(), &kernel, false).await.unwrap();
            assert_eq!(told, Accelerator::Emulation);
            assert_eq!(known(&path).unwrap().fault, why);
        }
        let check = check(place.path(), None).await;
        assert_eq!((check.verdict, &*check.remedy), (CheckVerdict::Degraded, BUILD));
    }
}
