//! What tests of virtual machines share: a guest that is built once for all of them, with a small base disk and a test's programs in it.

use loopd_domain::environment::Isolation;
use loopd_guest_image::{BaseSource, GuestImages, KernelSource, Order, PACKAGES_SMALL, Programs};
use loopd_sandbox::conformance::{self, Subject};
use loopd_sandbox::microvm::MicrovmSandbox;
use loopd_sandbox::microvm::vmm::Vmm;
use loopd_sandbox::{Sandbox, programs};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A file with the guests' kernel (a Debian package), for machines that cannot fetch one.
const KERNEL: &str = "E2E_KERNEL";

/// What rules of the suite are tried with, besides the small base's packages.
const MORE: [&str; 3] = ["mount", "openssl", "python3"];
/// Machines that start at once, each emulated.
const CROWD: usize = 8;

/// A data directory with a guest's image; what was built of it before is used again.
pub struct Ground {
    directory: tempfile::TempDir,
    jail: Vec<u8>,
    cell: Vec<u8>,
}

impl Ground {
    /// `None`: this machine has no QEMU; it is said why, and in CI that is a failure.
    pub fn new(cell: Vec<u8>) -> Option<Self> {
        Self::with_programs(programs::JAIL.to_vec(), cell)
    }

    /// With a launcher's program of one's own as well.
    fn with_programs(jail: Vec<u8>, cell: Vec<u8>) -> Option<Self> {
        let qemu = Command::new("qemu-system-x86_64").arg("--version").output();
        if !qemu.is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "qemu-system-x86_64 is missing: apt-get install qemu-system-x86");
            eprintln!("skipped: no qemu-system-x86_64; apt-get install qemu-system-x86");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(Self::cache()).unwrap();
        symlink(Self::cache(), directory.path().join("guest")).unwrap();
        let ground = Ground { directory, jail, cell };
        let kernel = match std::env::var_os(KERNEL) {
            Some(kernel) => KernelSource::File { kernel: PathBuf::from(kernel), modules: None },
            None => fetched().map_or_else(KernelSource::usual, |kernel| KernelSource::File { kernel, modules: None }),
        };
        let order = Order { kernel, base: BaseSource::packages(&[&PACKAGES_SMALL[..], &MORE[..]].concat(), true) };
        let images = GuestImages::new(ground.data());
        images.build(&order, &ground.programs(), &mut |progress| println!("{progress:?}")).unwrap();
        Some(ground)
    }

    /// With the test cell in the cell's place.
    pub fn with_test_cell() -> Option<Self> {
        Self::new(std::fs::read(env!("CARGO_BIN_EXE_loopd-test-cell")).unwrap())
    }

    /// With the test cell, in guests that die when they are told to.
    pub fn of_doomed() -> Option<Self> {
        let program = |path: &str| std::fs::read(path).unwrap();
        Self::with_programs(
            program(env!("CARGO_BIN_EXE_loopd-test-jail")),
            program(env!("CARGO_BIN_EXE_loopd-test-cell")),
        )
    }

    /// With templates that no other test uses.
    pub fn with_own_templates() -> Option<Self> {
        let ground = Self::with_test_cell()?;
        let guest = ground.data().join("guest");
        std::fs::remove_file(&guest).unwrap();
        std::fs::create_dir_all(guest.join("templates")).unwrap();
        for part in std::fs::read_dir(Self::cache()).unwrap().flatten().filter(|part| part.file_name() != "templates") {
            symlink(part.path(), guest.join(part.file_name())).unwrap();
        }
        Some(ground)
    }

    /// What is built of a guest, for all tests.
    pub fn cache() -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest")
    }

    pub fn data(&self) -> &Path {
        self.directory.path()
    }

    fn programs(&self) -> Programs<'_> {
        Programs { guest: programs::GUEST, jail: &self.jail, cell: &self.cell }
    }

    /// With another VMM than the host's.
    pub fn with_vmm(&self, vmm: Arc<dyn Vmm>) -> MicrovmSandbox {
        MicrovmSandbox::with_vmm(self.data(), self.programs(), vmm).unwrap().with_waiting_rooms(0)
    }

    /// Of another process, on a ground's data, with the test cell.
    pub fn sandbox_on(data: &Path) -> MicrovmSandbox {
        let cell = std::fs::read(env!("CARGO_BIN_EXE_loopd-test-cell")).unwrap();
        let programs = Programs { guest: programs::GUEST, jail: programs::JAIL, cell: &cell };
        MicrovmSandbox::with_programs(data, programs).unwrap().with_waiting_rooms(0)
    }

    pub fn subject(&self) -> Subject {
        self.subject_with_waiting(0)
    }

    /// With so many machines that wait.
    pub fn subject_with_waiting(&self, waiting: usize) -> Subject {
        let (place, jail, cell) = (self.data().to_owned(), self.jail.clone(), self.cell.clone());
        let make = move || -> Box<dyn Sandbox> {
            let programs = Programs { guest: programs::GUEST, jail: &jail, cell: &cell };
            let sandbox = MicrovmSandbox::with_programs(&place, programs).unwrap();
            Box::new(sandbox.with_orphan_seconds(conformance::ORPHAN_SECONDS).with_waiting_rooms(waiting))
        };
        Subject::new(Box::new(make), self.data()).of(Isolation::Microvm).with_crowd(CROWD)
    }
}

/// The package where `xtask` puts it.
fn fetched() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/guest-kernel");
    let found = std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    found.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).max()
}
