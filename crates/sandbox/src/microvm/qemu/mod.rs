//! QEMU's `microvm` machine as a [`Vmm`]: with KVM where that boots a kernel, in software elsewhere.
//!
//! ```text
//!  Boot       ─► kernel, memory in a file in memory that this server holds too ─► freeze: state, a copy of that file
//!  Template   ─► the same file, sealed, mapped copy-on-write; the state comes in at once
//!  Suspended  ─► memory of its own; memory and state come in
//! ```
//!
//! QEMU is a stranger that works for one guest: [`confined`] starts it with a root, a user and namespaces of its own, and with
//! descriptors in place of paths. What it is told stands in [`command`], what it is asked while it runs in [`qmp`].
//!
//! Not here: what the guest says on its link, whose machine it is, and where its files are.

mod clock;
mod command;
mod confined;
mod machine;
mod manifest;
mod memory;
mod probe;
mod qmp;
mod suspended;
mod template;

use super::vmm::{Begin, Machine, Order, Shape, Vmm, VmmError};
use crate::{Accelerator, Check};
use async_trait::async_trait;
use command::{Command, DISKS_MAX, Kernel, Memory, Sockets};
use confined::{Jail, Start};
use loopd_domain::limits::{MACHINE_LAST_WORDS_MS, MACHINE_SUSPEND_MS};
use machine::Voices;
use manifest::Manifest;
use qmp::Qmp;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use template::Held;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

const STARTING: &str = "starting a machine";
const FREEZING: &str = "freezing a machine";
const SUSPENDING: &str = "suspending a machine";
const GROWING: &str = "growing a machine's disk";
const RELINKING: &str = "taking over a machine's link";
/// Bytes a second that state may be written with: no limit.
const BANDWIDTH: u64 = 1 << 40;
/// Between two looks at how far the writing has come; the first looks are closer.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A QEMU of this host.
pub struct Qemu {
    version: String,
    accelerator: Accelerator,
    /// Of the host's counter, where guests see it.
    tsc_khz: Option<u64>,
    jail: Jail,
    held: Arc<Held>,
}

/// Where a machine begins, opened.
enum Beginning {
    Boot { kernel: File, initramfs: File, memory: Arc<OwnedFd> },
    Template { memory: Arc<OwnedFd>, state: OwnedFd },
    Suspended { state: OwnedFd },
}

impl Qemu {
    /// The host's QEMU, with what works here. `data`: the server's data directory, where it is remembered whether KVM boots
    /// `kernel`, the guests' one; when that is not known yet a guest is booted to find out, for some seconds at most.
    pub async fn find(data: &Path, kernel: &Path) -> Result<Self, VmmError> {
        let found = probe::find().await?;
        let (accelerator, _) = probe::accelerator(&found, data, kernel, false).await?;
        Self::with(&found, accelerator).await
    }

    /// For `loopd doctor`. `kernel`: the guests' one, where there is an image already.
    pub async fn check(data: &Path, kernel: Option<&Path>) -> Check {
        probe::check(data, kernel).await
    }

    /// Boots a kernel with nothing to go on with. Answers why it does not come up; `None`: it does.
    pub async fn trial(
        kernel: &Path,
        accelerator: Accelerator,
        patience: Duration,
    ) -> Result<Option<String>, VmmError> {
        probe::trial(&probe::find().await?, kernel, accelerator, patience).await
    }

    async fn with(found: &probe::Found, accelerator: Accelerator) -> Result<Self, VmmError> {
        let tsc_khz = match accelerator {
            Accelerator::Kvm => None,
            Accelerator::Emulation => Some(blocking(STARTING, || Ok(clock::tsc_khz())).await?),
        };
        let jail = Jail::new(&found.program).map_err(failed(STARTING))?;
        Ok(Qemu { version: found.version.clone(), accelerator, tsc_khz, jail, held: Arc::default() })
    }

    /// A machine that an earlier server started, and that has not ended.
    pub fn adopt(process: OwnedFd, pid: u32) -> Machine {
        let process = Arc::new(process);
        let ended = machine::watch(Arc::clone(&process), None);
        Machine { process, pid, ended, memory: None }
    }

    fn manifest(&self, shape: &Shape) -> Manifest {
        Manifest::new(&self.version, self.accelerator, self.tsc_khz, shape)
    }

    async fn open(&self, order: &Order, begin: &Begin) -> Result<(Vec<OwnedFd>, Beginning), VmmError> {
        let disks = 2 + order.shape.layers.len();
        if disks > DISKS_MAX {
            let reason = format!("`{disks}` disks: a machine has places for {DISKS_MAX} at most");
            return Err(VmmError::Failed { doing: STARTING, reason });
        }
        let (shape, disk, begin) = (Arc::clone(&order.shape), order.disk.clone(), begin.clone());
        let (wanted, held) = (self.manifest(&shape), Arc::clone(&self.held));
        blocking(STARTING, move || {
            let mut disks = vec![read(&shape.base)?.into(), write(&disk)?.into()];
            for layer in &shape.layers {
                disks.push(read(layer)?.into());
            }
            let fits = |manifest: Manifest, path: &Path| match manifest.refuses(&wanted) {
                Some(reason) => Err(io::Error::other(format!("`{}`: {reason}", path.display()))),
                None => Ok(()),
            };
            let beginning = match begin {
                Begin::Boot => Beginning::Boot {
                    kernel: read(&shape.kernel)?,
                    initramfs: read(&shape.initramfs)?,
                    memory: Arc::new(memory::empty(wanted.memory_mb << 20)?),
                },
                Begin::Template(path) => {
                    let template = held.open(&path).map_err(at(&path))?;
                    fits(template.manifest, &path)?;
                    Beginning::Template { memory: template.memory, state: template.state }
                }
                Begin::Suspended(path) => {
                    let (manifest, state) = suspended::open(&path).map_err(at(&path))?;
                    fits(manifest, &path)?;
                    Beginning::Suspended { state: state.into() }
                }
            };
            Ok((disks, beginning))
        })
        .await
    }

    /// Starts a process, and opens the monitor that is there for its beginning.
    async fn launch(&self, command: Command, launch: Launch) -> Result<(Machine, Birth), VmmError> {
        let Launch { birth, console, errors, user, cgroups, file_bytes } = launch;
        let (hear_errors, errors_there) = errors;
        let start = Start {
            arguments: command.arguments,
            descriptors: command.descriptors,
            errors: errors_there,
            user,
            kvm: self.accelerator == Accelerator::Kvm,
            cgroups,
            file_bytes,
        };
        let (process, pid) = self.jail.start(start).await?;
        let process = Arc::new(process);
        let (heir, monitor) = oneshot::channel();
        let voices = Voices { console, errors: hear_errors, monitor };
        let ended = machine::watch(Arc::clone(&process), Some(voices));
        let machine = Machine { process, pid, ended, memory: None };
        // It greets when all that it was given has been opened and understood.
        match Qmp::open(birth, STARTING).await {
            Ok(qmp) => Ok((machine, Birth { qmp, heir })),
            Err(fault) => {
                drop(heir);
                Err(give_up(machine, fault).await)
            }
        }
    }

    async fn write_state(&self, qmp: &mut Qmp, file: &File, with_memory: bool) -> Result<(), VmmError> {
        let capability = json!([{ "capability": "x-ignore-shared", "state": !with_memory }]);
        qmp.order("migrate-set-capabilities", json!({ "capabilities": capability })).await?;
        qmp.order("migrate-set-parameters", json!({ "max-bandwidth": BANDWIDTH })).await?;
        qmp.order("stop", Value::Null).await?;
        qmp.give("state", file.as_fd()).await?;
        qmp.order("migrate", json!({ "uri": "fd:state" })).await?;
        let written = tokio::time::timeout(Duration::from_millis(MACHINE_SUSPEND_MS), until_written(qmp)).await;
        written.unwrap_or_else(|_| Err(qmp.failed(format!("its state is not written within {MACHINE_SUSPEND_MS} ms"))))
    }
}

/// The monitor that is there for a machine's beginning.
struct Birth {
    qmp: Qmp,
    heir: oneshot::Sender<UnixStream>,
}

impl Birth {
    /// From here on it is only listened to.
    fn over(self) {
        // Where nobody listens the machine has ended.
        let _ = self.heir.send(self.qmp.into_stream());
    }
}

/// What a process needs besides its command line.
struct Launch {
    birth: UnixStream,
    console: UnixStream,
    errors: (pipe::Receiver, OwnedFd),
    user: Option<u32>,
    cgroups: Vec<OwnedFd>,
    file_bytes: u64,
}

#[async_trait]
impl Vmm for Qemu {
    fn version(&self) -> &str {
        &self.version
    }

    fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    async fn start(&self, order: Order, begin: &Begin) -> Result<Machine, VmmError> {
        let (disks, beginning) = self.open(&order, begin).await?;
        let mut command = Command::new(self.accelerator, &order.shape);
        let (birth, birth_there) = pair().map_err(failed(STARTING))?;
        let (console, console_there) = pair().map_err(failed(STARTING))?;
        command.voices(birth_there, console_there);
        command.devices(Sockets { link: order.link, control: order.control });
        command.disks(disks);
        let mut own_memory = None;
        let incoming = match beginning {
            Beginning::Boot { kernel, initramfs, memory } => {
                command.memory(Memory::Shared(memory.try_clone().map_err(failed(STARTING))?), &order.shape);
                let kernel = Kernel { kernel: kernel.into(), initramfs: Some(initramfs.into()) };
                command.kernel(kernel, self.tsc_khz);
                own_memory = Some(memory);
                None
            }
            Beginning::Template { memory, state } => {
                command.memory(Memory::Copied(memory.try_clone().map_err(failed(STARTING))?), &order.shape);
                Some((command.incoming(state), true))
            }
            Beginning::Suspended { state } => {
                command.memory(Memory::Own, &order.shape);
                Some((command.incoming(state), false))
            }
        };
        let errors = error_output().map_err(failed(STARTING))?;
        let file_bytes = file_bytes(&order.shape);
        let launch = Launch { birth, console, errors, user: order.user, cgroups: order.cgroups, file_bytes };
        let (mut machine, mut birth) = self.launch(command, launch).await?;
        machine.memory = own_memory;
        if let Some((state, ignore_shared)) = incoming
            && let Err(fault) = take_in(&mut birth.qmp, state, ignore_shared).await
        {
            drop(birth);
            return Err(give_up(machine, fault).await);
        }
        birth.over();
        Ok(machine)
    }

    async fn freeze(&self, machine: Machine, control: UnixStream, into: PathBuf) -> Result<(), VmmError> {
        let frozen = self.write_template(&machine, control, into).await;
        end(&machine).await;
        frozen
    }

    async fn suspend(
        &self,
        machine: &Machine,
        control: UnixStream,
        into: PathBuf,
        disk: PathBuf,
    ) -> Result<(), VmmError> {
        let mut qmp = Qmp::open(control, SUSPENDING).await?;
        match self.write_suspended(&mut qmp, into, disk).await {
            Ok(()) => {
                end(machine).await;
                Ok(())
            }
            Err(fault) => {
                if let Err(also) = go_on(&mut qmp).await {
                    tracing::error!(pid = machine.pid, %also, "a machine that is not suspended stands still");
                }
                Err(fault)
            }
        }
    }

    async fn regrow(&self, control: UnixStream, disk_bytes: u64) -> Result<(), VmmError> {
        let mut qmp = Qmp::open(control, GROWING).await?;
        qmp.order("block_resize", json!({ "node-name": "session", "size": disk_bytes })).await.map(drop)
    }

    async fn relink(&self, control: UnixStream, link: OwnedFd) -> Result<(), VmmError> {
        let mut qmp = Qmp::open(control, RELINKING).await?;
        // First: a port of a machine that stands still takes no other socket.
        go_on(&mut qmp).await?;
        qmp.give("link", link.as_fd()).await?;
        let address = json!({ "type": "fd", "data": { "str": "link" } });
        let socket = json!({ "type": "socket", "data": { "addr": address, "server": true, "wait": false } });
        // The one before goes, and with it whoever was connected; the guest sees its host go and another one come.
        qmp.order("chardev-change", json!({ "id": "link", "backend": socket })).await.map(drop)
    }
}

impl Qemu {
    async fn write_template(&self, machine: &Machine, control: UnixStream, into: PathBuf) -> Result<(), VmmError> {
        let Some(memory) = machine.memory.clone() else {
            let reason = "it was not booted by this server".to_owned();
            return Err(VmmError::Failed { doing: FREEZING, reason });
        };
        let mut qmp = Qmp::open(control, FREEZING).await?;
        let manifest = self.manifest_of(&mut qmp).await?;
        let (draft, state) = blocking(FREEZING, move || {
            let draft = template::Draft::new(&into).map_err(at(&into))?;
            let state = draft.state()?;
            Ok((draft, state))
        })
        .await?;
        self.write_state(&mut qmp, &state, false).await?;
        blocking(FREEZING, move || {
            // From here on nobody writes to the memory: the machine stands still, and does so until it ends.
            let memory = File::from(memory.try_clone()?);
            draft.complete(&memory, &manifest)
        })
        .await
    }

    async fn write_suspended(&self, qmp: &mut Qmp, into: PathBuf, disk: PathBuf) -> Result<(), VmmError> {
        let manifest = self.manifest_of(qmp).await?;
        let (draft, file) =
            blocking(SUSPENDING, move || suspended::Draft::new(&into, &manifest).map_err(at(&into))).await?;
        self.write_state(qmp, &file, true).await?;
        blocking(SUSPENDING, move || {
            // QEMU never does, and nobody writes to it now.
            File::open(&disk).and_then(|disk| disk.sync_all()).map_err(at(&disk))?;
            draft.complete(&file)
        })
        .await
    }
}

impl Qemu {
    /// Asked of the machine itself, as a later server knows no more of it.
    async fn manifest_of(&self, qmp: &mut Qmp) -> Result<Manifest, VmmError> {
        let memory = qmp.order("query-memory-size-summary", Value::Null).await?;
        let cpus = qmp.order("query-cpus-fast", Value::Null).await?;
        let disks = qmp.order("query-block", Value::Null).await?;
        let told = (
            memory.get("base-memory").and_then(Value::as_u64),
            cpus.as_array().and_then(|cpus| u32::try_from(cpus.len()).ok()),
            disks.as_array().map(Vec::len),
        );
        let (Some(memory), Some(cpus), Some(disks)) = told else {
            return Err(qmp.failed("QEMU does not say what the machine is made of".to_owned()));
        };
        Ok(Manifest {
            version: self.version.clone(),
            kvm: self.accelerator == Accelerator::Kvm,
            memory_mb: command::megabytes(memory),
            cpus,
            disks,
            tsc_khz: self.tsc_khz,
        })
    }
}

/// Has a machine become what was written. It runs when this is done, which it says on its link, or ends.
async fn take_in(qmp: &mut Qmp, state: i32, ignore_shared: bool) -> Result<(), VmmError> {
    let capability = json!([{ "capability": "x-ignore-shared", "state": ignore_shared }]);
    qmp.order("migrate-set-capabilities", json!({ "capabilities": capability })).await?;
    qmp.order("migrate-incoming", json!({ "uri": format!("fd:{state}") })).await.map(drop)
}

async fn until_written(qmp: &mut Qmp) -> Result<(), VmmError> {
    let mut pause = Duration::from_millis(1);
    loop {
        let told = qmp.order("query-migrate", Value::Null).await?;
        match told.get("status").and_then(Value::as_str) {
            Some("completed") => return Ok(()),
            Some(status @ ("failed" | "cancelled")) => {
                let why = told.get("error-desc").and_then(Value::as_str).unwrap_or("no reason");
                return Err(qmp.failed(format!("writing its state {status}: {why}")));
            }
            _ => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

/// Has a machine go on, if it stands still, its state written or half written.
async fn go_on(qmp: &mut Qmp) -> Result<(), VmmError> {
    let told = qmp.order("query-status", Value::Null).await?;
    if told.get("running").and_then(Value::as_bool) == Some(true) {
        return Ok(());
    }
    // While it is being written QEMU refuses `cont`, and that it is cancelled takes a moment.
    qmp.order("migrate_cancel", Value::Null).await?;
    let over = async {
        loop {
            let told = qmp.order("query-migrate", Value::Null).await?;
            match told.get("status").and_then(Value::as_str) {
                None | Some("none" | "completed" | "failed" | "cancelled") => return Ok(()),
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    match tokio::time::timeout(Duration::from_millis(MACHINE_SUSPEND_MS), over).await {
        Ok(over) => over?,
        Err(_) => return Err(qmp.failed(format!("its state is still being written after {MACHINE_SUSPEND_MS} ms"))),
    }
    qmp.order("cont", Value::Null).await.map(drop)
}

/// Ends a machine that did not become what it should, and adds its last words to why.
async fn give_up(machine: Machine, fault: VmmError) -> VmmError {
    let mut ended = machine.ended.clone();
    let wait = Duration::from_millis(MACHINE_LAST_WORDS_MS);
    // One that fails by itself does so now.
    let last = tokio::time::timeout(wait, ended.wait_for(Option::is_some)).await;
    let last = last.ok().and_then(Result::ok).and_then(|last| last.clone());
    machine::kill(machine.process.as_ref());
    match (fault, last) {
        (VmmError::Failed { doing, .. }, Some(said)) => {
            let said = if said.is_empty() { "without a word" } else { &said };
            VmmError::Failed { doing, reason: format!("QEMU ended; {said}") }
        }
        (fault, _) => fault,
    }
}

async fn end(machine: &Machine) {
    machine::kill(machine.process.as_ref());
    if let Err(fault) = machine::end(&machine.process).await {
        tracing::error!(pid = machine.pid, %fault, "waiting for a machine to end");
    }
}

/// The largest file that a machine has reason to write: its disk, or itself when it is suspended, with what stands around its memory.
fn file_bytes(shape: &Shape) -> u64 {
    const AROUND: u64 = 64 << 20;
    shape.disk_bytes.max(shape.memory_bytes + shape.memory_bytes / 8 + AROUND)
}

/// A connected pair, the second end for QEMU.
fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (here, there) = std::os::unix::net::UnixStream::pair()?;
    here.set_nonblocking(true)?;
    Ok((UnixStream::from_std(here)?, there.into()))
}

fn error_output() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (here, there) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&here, true)?;
    Ok((pipe::Receiver::from_owned_fd(here)?, there))
}

fn read(path: &Path) -> io::Result<File> {
    File::open(path).map_err(at(path))
}

fn write(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path).map_err(at(path))
}

/// Names the file of an error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |fault| io::Error::new(fault.kind(), format!("`{}`: {fault}", path.display()))
}

fn failed<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> VmmError {
    move |fault| VmmError::Failed { doing, reason: fault.to_string() }
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, VmmError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(failed(doing)),
        Err(stopped) => Err(failed(doing)(stopped)),
    }
}
