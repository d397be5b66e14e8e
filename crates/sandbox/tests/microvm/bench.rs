//! What tests of machines have in common: a QEMU, a kernel, the guest that is built for them, and what a machine is made of.

use loopd_guest_image::{
    BaseSource, GuestImage, GuestImageError, GuestImages, KernelSource, Order as ImageOrder, Programs,
};
use loopd_sandbox::microvm::qemu::Qemu;
use loopd_sandbox::microvm::vmm::{Begin, Machine, Order, Shape, Vmm, VmmError};
use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(30);
/// A file with a kernel as Debian packs it.
const KERNEL: &str = "E2E_KERNEL";
const MEMORY_BYTES: u64 = 128 << 20;
const DISK_BYTES: u64 = 16 << 20;
/// A host id of nobody.
const USER: u32 = 0x7f00_0001;

pub struct Bench {
    place: PathBuf,
    /// Removed with it.
    _own: Option<tempfile::TempDir>,
    pub qemu: Qemu,
    shape: Arc<Shape>,
}

/// One machine of a test, and this test's connection to its guest. Dropped, it is killed.
pub struct Guest {
    pub name: String,
    pub machine: Option<Machine>,
    link: BufReader<UnixStream>,
    control: PathBuf,
    disk: PathBuf,
}

/// `None`: something is missing, and need not be there.
pub async fn bench(test: &str) -> Option<Bench> {
    match made().await {
        Ok(bench) => Some(bench),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
            eprintln!("{test} was left out: {why}");
            None
        }
    }
}

async fn made() -> Result<Bench, String> {
    let own = tempfile::tempdir().unwrap();
    let bench = in_place(own.path().to_owned()).await?;
    Ok(Bench { _own: Some(own), ..bench })
}

/// In a directory that another process may have been in before.
pub async fn in_place(place: PathBuf) -> Result<Bench, String> {
    let package = std::env::var_os(KERNEL).ok_or(format!("{KERNEL} names no Debian package of a kernel"))?;
    let kernel = KernelSource::File { kernel: PathBuf::from(package), modules: None };
    let image = image(kernel, &place).map_err(|fault| fault.to_string())?;
    // No file system: the guest mounts nothing.
    let base = place.join("base");
    fs::write(&base, [&b"base"[..], &[0; (1 << 20) - 4]].concat()).unwrap();
    let shape = Shape {
        kernel: image.kernel,
        initramfs: image.initramfs,
        memory_bytes: MEMORY_BYTES,
        cpus: 1,
        base,
        disk_bytes: DISK_BYTES,
        layers: Vec::new(),
    };
    let qemu = Qemu::find(&place, &shape.kernel).await.map_err(|fault| fault.to_string())?;
    Ok(Bench { place, _own: None, qemu, shape: Arc::new(shape) })
}

/// What was built of it before is used again.
fn image(kernel: KernelSource, place: &Path) -> Result<GuestImage, GuestImageError> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("machines");
    let files = place.join("files");
    // The least that is taken for a root file system.
    fs::create_dir_all(files.join("bin")).unwrap();
    fs::write(files.join("bin/sh"), b"#!").unwrap();
    let order = ImageOrder { kernel, base: BaseSource::Directory(files) };
    let programs = Programs { guest: &guest(place), jail: b"none", cell: b"none" };
    GuestImages::new(&cache).build(&order, &programs, &mut |_| {})
}

/// Builds the guest's program, static: it is alone in its machine.
fn guest(place: &Path) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/microvm/guest.rs");
    let program = place.join("guest");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args([
        "--edition",
        "2024",
        "-O",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "panic=abort",
        "-C",
        "strip=symbols",
    ]);
    assert!(rustc.arg("-o").arg(&program).arg(source).status().unwrap().success());
    fs::read(program).unwrap()
}

impl Bench {
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    pub fn shape(&self) -> Shape {
        Shape::clone(&self.shape)
    }

    pub fn set(&mut self, shape: Shape) {
        self.shape = Arc::new(shape);
    }

    pub fn layers(&mut self, layers: Vec<PathBuf>) {
        self.set(Shape { layers, ..self.shape() });
    }

    pub async fn boot(&self, name: &str) -> Guest {
        self.start(name, &Begin::Boot).await.unwrap()
    }

    pub fn disk(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.disk"))
    }

    /// A machine with this name's disk, which may be there already.
    pub async fn start(&self, name: &str, begin: &Begin) -> Result<Guest, VmmError> {
        let disk = self.disk(name);
        File::options().create(true).append(true).open(&disk).unwrap().set_len(DISK_BYTES).unwrap();
        self.start_with(name, &disk, begin).await
    }

    pub async fn start_with(&self, name: &str, disk: &Path, begin: &Begin) -> Result<Guest, VmmError> {
        let [link, control] = ["link", "control"].map(|what| self.path(&format!("{name}.{what}")));
        let listen = |path: &Path| {
            // Of the same machine before it slept.
            let _ = fs::remove_file(path);
            UnixListener::bind(path).unwrap()
        };
        let order = Order {
            shape: Arc::clone(&self.shape),
            disk: disk.to_owned(),
            link: listen(&link).into(),
            control: listen(&control).into(),
            user: rustix::process::geteuid().is_root().then_some(USER),
            cgroups: Vec::new(),
        };
        let machine = self.qemu.start(order, begin).await?;
        let link = BufReader::new(UnixStream::connect(link).await.unwrap());
        let mut guest = Guest { name: name.to_owned(), machine: Some(machine), link, control, disk: disk.to_owned() };
        if *begin == Begin::Boot {
            assert_eq!(guest.hear().await, "hello");
        }
        Ok(guest)
    }

    /// Connects to a machine that is there already.
    pub async fn meet(&self, name: &str, machine: Machine) -> Guest {
        let [link, control] = ["link", "control"].map(|what| self.path(&format!("{name}.{what}")));
        let link = BufReader::new(UnixStream::connect(link).await.unwrap());
        Guest { name: name.to_owned(), machine: Some(machine), link, control, disk: self.disk(name) }
    }

    /// A file system with little room, where one can be mounted.
    pub fn small_disk(&self, name: &str) -> Option<SmallDisk> {
        let at = self.path(name);
        fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "small"]).arg(&at).status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk(at))
    }
}

pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(&self.0).status().unwrap().success());
    }
}

impl Guest {
    pub async fn say(&mut self, line: &str) {
        self.link.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn hear(&mut self) -> String {
        let mut line = String::new();
        let heard = timeout(PATIENCE, self.link.read_line(&mut line)).await;
        if !matches!(heard, Ok(Ok(1..))) {
            let Some(mut machine) = self.machine.take() else { panic!("`{}` says nothing: {heard:?}", self.name) };
            let _ = rustix::process::pidfd_send_signal(&machine.process, rustix::process::Signal::KILL);
            let last = machine.ended.wait_for(Option::is_some).await.unwrap().clone();
            panic!("`{}` says nothing: {heard:?}; {last:?}", self.name);
        }
        line.trim_end().to_owned()
    }

    pub async fn ask(&mut self, line: &str) -> String {
        self.say(line).await;
        self.hear().await
    }

    pub async fn control(&self) -> UnixStream {
        UnixStream::connect(&self.control).await.unwrap()
    }

    pub async fn suspend(&mut self, qemu: &Qemu, into: &Path) -> Result<(), VmmError> {
        let control = self.control().await;
        qemu.suspend(self.machine.as_ref().unwrap(), control, into.to_owned(), self.disk.clone()).await
    }

    pub async fn kill(mut self) {
        let mut machine = self.machine.take().unwrap();
        rustix::process::pidfd_send_signal(&machine.process, rustix::process::Signal::KILL).unwrap();
        timeout(PATIENCE, machine.ended.wait_for(Option::is_some)).await.unwrap().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(machine) = &self.machine {
            let _ = rustix::process::pidfd_send_signal(&machine.process, rustix::process::Signal::KILL);
        }
    }
}
