//! QEMU's command line. It names no path of the host: each file and socket is a descriptor with a number known in advance.
//!
//! What counts for a start, as measured with Debian's 6.1 kernel in software: no PCI, no timers of old but the clock that the kernel
//! asks for the time (it waits two seconds for one that is not there, twice), ACPI alone to find devices, and the rate of the
//! processor's counter told instead of measured. A guest that measures it on a busy host gets it wrong or never comes up.

use super::super::vmm::Shape;
use crate::Accelerator;
use loopd_jail::confine::FIRST;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;

/// Devices that `microvm` has transports for, with its second interrupt controller.
const TRANSPORTS: usize = 24;
/// Of these, what is no disk: serial port and entropy.
const NO_DISKS: usize = 2;
/// Disks of one machine: base, session's, layers.
pub(super) const DISKS_MAX: usize = TRANSPORTS - NO_DISKS;
/// Of the link's port, in the guest.
pub(super) const PORT: &str = "loopd";
/// Megabytes of code that software emulation keeps translated. More is translated anew.
const TRANSLATED_MB: u32 = 128;
/// Says nothing while all goes well, and does not come up again when something does not.
const KERNEL: &str = "console=ttyS0 loglevel=4 panic=-1 reboot=t no_timer_check tsc=reliable pci=off random.trust_cpu=on \
     cryptomgr.notests";

const READ_ONLY: &str = "read-only=on,file.read-only=on";
/// The host's own cache holds what was written; what that may lose, a room's files may lose anyway.
const OF_SESSION: &str = "cache.no-flush=on,file.cache.no-flush=on,discard=unmap,file.discard=unmap";

/// Arguments, and the descriptors that they speak of.
pub(super) struct Command {
    pub arguments: Vec<String>,
    pub descriptors: Vec<OwnedFd>,
}

/// What holds the guest's memory.
pub(super) enum Memory {
    /// The file itself: what the guest writes is in it.
    Shared(OwnedFd),
    /// The file's content; what the guest writes is its own.
    Copied(OwnedFd),
    Own,
}

/// Sockets that listen.
pub(super) struct Sockets {
    pub link: OwnedFd,
    pub control: OwnedFd,
}

/// The kernel's files.
pub(super) struct Kernel {
    pub kernel: OwnedFd,
    /// None in a trial, whose kernel is to get no further.
    pub initramfs: Option<OwnedFd>,
}

impl Command {
    /// What every machine has. `tsc_khz`: rate of the host's counter, which an emulated guest sees.
    pub(super) fn new(accelerator: Accelerator, shape: &Shape) -> Self {
        let mut command = Command { arguments: Vec::new(), descriptors: Vec::new() };
        let machine = "microvm,acpi=on,ioapic2=on,pcie=off,usb=off,pic=off,pit=off,rtc=on,isa-serial=on,dump-guest-core=off,\
             memory-backend=ram";
        command.add(["-M", machine, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        match accelerator {
            Accelerator::Kvm => command.add(["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Emulation => {
                let translator = format!("tcg,thread=multi,tb-size={TRANSLATED_MB}");
                command.add(["-accel", &translator, "-cpu", "max,la57=off"]);
            }
        }
        command.add(["-m", &format!("{}M", megabytes(shape.memory_bytes)), "-smp", &shape.cpus.to_string()]);
        command.add(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
        // A machine that is stopped to be written must run when it is read.
        command.add(["-global", "migration.store-global-state=off"]);
        command
    }

    pub(super) fn memory(&mut self, memory: Memory, shape: &Shape) {
        let size = megabytes(shape.memory_bytes);
        let object = match memory {
            Memory::Own => format!("memory-backend-ram,id=ram,size={size}M"),
            Memory::Shared(file) => self.memory_file(file, size, "on"),
            Memory::Copied(file) => self.memory_file(file, size, "off"),
        };
        self.add(["-object", &object]);
    }

    fn memory_file(&mut self, file: OwnedFd, size: u64, share: &str) -> String {
        // The only files besides the kernel's that QEMU 7.2 takes by path alone; this path leads to the descriptor.
        let path = self.path(file);
        format!("memory-backend-file,id=ram,size={size}M,mem-path={path},share={share}")
    }

    pub(super) fn kernel(&mut self, kernel: Kernel, tsc_khz: Option<u64>) {
        let path = self.path(kernel.kernel);
        self.add(["-kernel", &path]);
        if let Some(initramfs) = kernel.initramfs {
            let path = self.path(initramfs);
            self.add(["-initrd", &path]);
        }
        let mut line = KERNEL.to_owned();
        if let Some(khz) = tsc_khz {
            // Writing to a string cannot fail.
            let _ = write!(line, " tsc_early_khz={khz}");
        }
        self.add(["-append", &line]);
    }

    /// The state is taken in when this is said at birth. Answers the number that the state will have.
    pub(super) fn incoming(&mut self, state: OwnedFd) -> i32 {
        self.add(["-incoming", "defer"]);
        self.give(state)
    }

    /// Connected sockets: a monitor for whoever starts the machine, and the guest's console.
    pub(super) fn voices(&mut self, birth: OwnedFd, console: OwnedFd) {
        let (birth, console) = (self.give(birth), self.give(console));
        self.add(["-chardev", &format!("socket,id=birth,fd={birth}"), "-mon", "chardev=birth,mode=control"]);
        self.add(["-chardev", &format!("socket,id=console,fd={console}"), "-serial", "chardev:console"]);
    }

    /// In the guest's order. The second is the session's, all others are read-only.
    pub(super) fn disks(&mut self, disks: Vec<OwnedFd>) {
        for (number, disk) in disks.into_iter().enumerate() {
            let set = self.set(disk);
            let (name, rest) = match number {
                0 => ("base".to_owned(), READ_ONLY),
                1 => ("session".to_owned(), OF_SESSION),
                _ => (format!("layer{}", number - 2), READ_ONLY),
            };
            self.add([
                "-blockdev",
                &format!("driver=raw,node-name={name},file.driver=file,file.filename={set},{rest}"),
            ]);
            let bus = bus(number + NO_DISKS);
            self.add(["-device", &format!("virtio-blk-device,drive={name},serial={name},bus={bus}")]);
        }
    }

    pub(super) fn devices(&mut self, sockets: Sockets) {
        let listens = "server=on,wait=off";
        let link = self.give(sockets.link);
        self.add(["-chardev", &format!("socket,id=link,fd={link},{listens}")]);
        self.add(["-device", &format!("virtio-serial-device,max_ports=2,bus={}", bus(0))]);
        self.add(["-device", &format!("virtserialport,chardev=link,name={PORT}")]);
        self.add(["-object", "rng-random,id=entropy,filename=/dev/urandom"]);
        self.add(["-device", &format!("virtio-rng-device,rng=entropy,bus={}", bus(1))]);
        let control = self.give(sockets.control);
        self.add([
            "-chardev",
            &format!("socket,id=control,fd={control},{listens}"),
            "-mon",
            "chardev=control,mode=control",
        ]);
    }

    /// Answers the number that a descriptor will have.
    pub(super) fn give(&mut self, descriptor: OwnedFd) -> i32 {
        self.descriptors.push(descriptor);
        FIRST + self.descriptors.len() as i32 - 1
    }

    fn path(&mut self, file: OwnedFd) -> String {
        format!("/proc/self/fd/{}", self.give(file))
    }

    /// What QEMU opens its disks by.
    fn set(&mut self, file: OwnedFd) -> String {
        let number = self.give(file);
        self.add(["-add-fd", &format!("fd={number},set={number}")]);
        format!("/dev/fdset/{number}")
    }

    fn add<const N: usize>(&mut self, arguments: [&str; N]) {
        self.arguments.extend(arguments.map(str::to_owned));
    }
}

/// The guest finds the last transport first.
fn bus(number: usize) -> String {
    format!("virtio-mmio-bus.{}", TRANSPORTS - 1 - number)
}

pub(super) fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
