//! The launcher's loop: orders in, news out, children reaped. One thread, and nothing in it waits for one room.
//!
//! ```text
//!  Start ─► clone ─► Started ─► child: "ids please" ─► maps written, "go on" ─► child becomes the cell ─► … ─► Ended
//!                                 └─► child: what failed, and it ends ───────────────────────────────────────┘
//! ```
//!
//! When the control socket closes, the host is gone: every room is killed and the launcher ends. Should it be killed itself,
//! the kernel kills each room's first process, and with it the room.

use crate::fault::{Fault, While};
use crate::filter::Filter;
use crate::network::Spares;
use crate::room::{self, Plan};
use crate::stage::{self, Stage};
use crate::sys::{self, Side};
use crate::wire::{End, News, Order, Start};
use crate::{CHANNEL, channel, ids};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::UnshareFlags;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

/// Descriptors below this one are the cell's places, so the launcher keeps its own above.
const FIRST_DESCRIPTOR: i32 = CHANNEL + 1;
/// Everything that a room has of its own, but for the network, and the user namespace, which comes last.
const NAMESPACES: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Serves orders from standard input until it closes.
pub fn main() -> ExitCode {
    match open().and_then(|mut launcher| launcher.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Whoever watches the log reads it there; the host reads it as news, if it still listens.
            eprintln!("loopd-jail: {fault}");
            let news = News::Unable(fault).encode();
            match channel::send(std::io::stdin(), &news, &[], false) {
                Ok(()) => ExitCode::FAILURE,
                Err(_) => ExitCode::from(2),
            }
        }
    }
}

struct Launcher {
    control: OwnedFd,
    signals: OwnedFd,
    cell: OwnedFd,
    stage: Stage,
    filter: Filter,
    spares: Spares,
    /// By process id.
    rooms: HashMap<i32, Living>,
    /// News that the host was too slow to take, and the descriptor that goes with it.
    outbox: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

/// A child that has not been reaped.
struct Living {
    room: u64,
    ids: Option<u32>,
    /// While its walls are being built, as far as is known.
    link: Option<OwnedFd>,
    fault: Option<Fault>,
}

/// Gets ready: takes the configuration, sets the stage, says so.
fn open() -> Result<Launcher, Fault> {
    sys::close_from(3).while_doing("closing what was inherited")?;
    fill_low_descriptors()?;
    raise_descriptor_limit()?;
    let control = high(std::io::stdin().as_fd())?;
    let (data, cell) = configuration(&control)?;
    let cell = high(cell.as_fd())?;
    if !rustix::process::geteuid().is_root() {
        become_root_of_own_namespace()?;
    }
    let stage = stage::set(Path::new(OsStr::from_bytes(&data)))?;
    let signals = sys::child_signals().while_doing("watching for the end of children")?;
    let mut launcher = Launcher {
        control,
        signals,
        cell,
        stage,
        filter: Filter::compile(),
        spares: Spares::default(),
        rooms: HashMap::new(),
        outbox: VecDeque::new(),
    };
    launcher.say(&News::Ready, None)?;
    Ok(launcher)
}

/// Makes sure that 0 to 3 are open, so that no descriptor made later lies there.
fn fill_low_descriptors() -> Result<(), Fault> {
    loop {
        let filler = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).while_doing("opening /dev/null")?;
        if std::os::fd::AsRawFd::as_raw_fd(&filler) >= FIRST_DESCRIPTOR {
            return Ok(());
        }
        let _kept = std::os::fd::IntoRawFd::into_raw_fd(filler);
    }
}

/// As many descriptors as this process may have: a room that is being built takes one. Rooms have a limit of their own.
fn raise_descriptor_limit() -> Result<(), Fault> {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
        .while_doing("raising its limit of open files")
}

/// The same thing under a number above the cell's places, closed by an exec.
fn high(descriptor: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, FIRST_DESCRIPTOR).while_doing("moving a descriptor")
}

fn configuration(control: &OwnedFd) -> Result<(Vec<u8>, OwnedFd), Fault> {
    let (packet, descriptors) = channel::receive(control, true)
        .while_doing("waiting for the configuration")?
        .ok_or_else(|| Fault::new("waiting for the configuration", Errno::PIPE))?;
    let mut descriptors = descriptors.into_iter();
    match (Order::decode(&packet), descriptors.next()) {
        (Ok(Order::Configure { data }), Some(cell)) => Ok((data, cell)),
        _ => Err(Fault::new("reading the configuration", Errno::BADMSG)),
    }
}

/// An ordinary user's launcher becomes root of a user namespace, whose only user it is.
pub(crate) fn become_root_of_own_namespace() -> Result<(), Fault> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    sys::unshare(UnshareFlags::NEWUSER).while_doing("making a user namespace")?;
    for (file, map) in [
        // The kernel wants this before it lets somebody without privileges map a group.
        ("setgroups", "deny".to_owned()),
        ("gid_map", format!("0 {} 1", gid.as_raw())),
        ("uid_map", format!("0 {} 1", uid.as_raw())),
    ] {
        std::fs::write(format!("/proc/self/{file}"), map).while_doing(&format!("writing /proc/self/{file}"))?;
    }
    Ok(())
}

impl Launcher {
    fn serve(&mut self) -> Result<(), Fault> {
        loop {
            let ready = self.wait()?;
            if ready.signals {
                self.reap()?;
            }
            for pid in ready.links {
                self.hear(pid)?;
            }
            if ready.control_out {
                self.flush()?;
            }
            if ready.control_in && !self.obey()? {
                self.end_all();
                return Ok(());
            }
            if ready.nothing && self.spares.wants_more() {
                self.spares.make();
            }
        }
    }

    /// Waits for something to do. While network namespaces are to be made it only looks.
    fn wait(&mut self) -> Result<Ready, Fault> {
        let building: Vec<(i32, &OwnedFd)> =
            self.rooms.iter().filter_map(|(pid, room)| Some((*pid, room.link.as_ref()?))).collect();
        let control = match self.outbox.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::IN | PollFlags::OUT,
        };
        let mut fds = vec![PollFd::new(&self.control, control), PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(building.iter().map(|(_, link)| PollFd::new(*link, PollFlags::IN)));
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = (self.spares.wants_more() && building.is_empty()).then_some(&now);
        let count = match poll(&mut fds, timeout) {
            Err(Errno::INTR) => 0,
            other => other.while_doing("waiting")?,
        };
        let gone = PollFlags::HUP | PollFlags::ERR;
        Ok(Ready {
            nothing: count == 0,
            control_in: fds[0].revents().intersects(PollFlags::IN | gone),
            control_out: fds[0].revents().contains(PollFlags::OUT),
            signals: fds[1].revents().contains(PollFlags::IN),
            links: building
                .iter()
                .zip(&fds[2..])
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|((pid, _), _)| *pid)
                .collect(),
        })
    }

    /// Takes one order. `false`: the host is gone.
    fn obey(&mut self) -> Result<bool, Fault> {
        let (packet, descriptors) = match channel::receive(&self.control, false) {
            Ok(Some(order)) => order,
            Ok(None) | Err(Errno::CONNRESET) => return Ok(false),
            Err(Errno::AGAIN) => return Ok(true),
            Err(errno) => return Err(Fault::new("reading an order", errno)),
        };
        let Ok(Order::Start(start)) = Order::decode(&packet) else {
            return Err(Fault::new("reading an order", Errno::BADMSG));
        };
        let room = start.room;
        if let Err(fault) = self.start(start, descriptors) {
            self.say(&News::Ended { room, end: End::Failed(fault) }, None)?;
        }
        Ok(true)
    }

    /// Clones the room's first process.
    fn start(&mut self, start: Start, descriptors: Vec<OwnedFd>) -> Result<(), Fault> {
        let [channel, cgroups @ ..] = &descriptors[..] else {
            return Err(Fault::new("reading an order without a channel", Errno::BADMSG));
        };
        let (link, child_link) = channel::pair().while_doing("making a link to the room")?;
        let fresh_network = !self.spares.enter()?;
        let flags = if fresh_network { NAMESPACES | libc::CLONE_NEWNET } else { NAMESPACES };
        match sys::clone(flags).while_doing("cloning a process with namespaces of its own")? {
            Side::Child => {
                // Else this process would hold both ends, and wait for ever for a launcher that has died.
                drop(link);
                let plan = Plan {
                    start: &start,
                    stage: &self.stage,
                    filter: &self.filter,
                    cell: self.cell.as_fd(),
                    channel: channel.as_fd(),
                    cgroups,
                    link: child_link.as_fd(),
                    fresh_network,
                };
                let Err(fault) = room::build(&plan);
                // Nobody is left to tell when this fails; the launcher then sees an end without a word.
                let _ = channel::send(&child_link, &fault.encode(), &[], true);
                sys::exit_now(1)
            }
            Side::Parent { pid, pidfd } => {
                let living = Living { room: start.room, ids: start.ids, link: Some(link), fault: None };
                self.rooms.insert(pid, living);
                self.say(&News::Started { room: start.room, pid: pid as u32 }, Some(pidfd))
            }
        }
    }

    /// Takes one word from a room that is being built.
    fn hear(&mut self, pid: i32) -> Result<(), Fault> {
        let Some(living) = self.rooms.get_mut(&pid) else { return Ok(()) };
        let Some(link) = &living.link else { return Ok(()) };
        match channel::receive(link, false) {
            Ok(Some((word, _))) if word == room::IDS_PLEASE => {
                if let Err(fault) = answer(pid, living.ids, link) {
                    living.fault = Some(fault);
                    living.link = None;
                    kill(pid);
                }
            }
            Ok(Some((word, _))) => living.fault = Some(unwelcome(&word)),
            Err(Errno::AGAIN) => {}
            // The cell's program has started, or the child has ended.
            Ok(None) | Err(_) => living.link = None,
        }
        Ok(())
    }

    /// Tells the host of every room that has ended.
    fn reap(&mut self) -> Result<(), Fault> {
        let mut drain = [0u8; 1024];
        // Only how often it fired would be in there; which children ended is asked of the kernel below.
        while matches!(rustix::io::read(&self.signals, &mut drain), Ok(1..)) {}
        loop {
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(child)) => child,
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Fault::new("waiting for children", errno)),
            };
            let Some(mut living) = self.rooms.remove(&pid.as_raw_nonzero().get()) else { continue };
            // Its last word may still lie in the socket.
            if let Some(link) = &living.link
                && let Ok(Some((word, _))) = channel::receive(link, false)
                && word != room::IDS_PLEASE
            {
                living.fault = Some(unwelcome(&word));
            }
            let end = match (living.fault, status.exit_status(), status.terminating_signal()) {
                (Some(fault), _, _) => End::Failed(fault),
                (None, Some(code), _) => End::Code(code),
                (None, None, signal) => End::Signal(signal.unwrap_or(0)),
            };
            self.say(&News::Ended { room: living.room, end }, None)?;
        }
    }

    fn say(&mut self, news: &News, descriptor: Option<OwnedFd>) -> Result<(), Fault> {
        self.outbox.push_back((news.encode(), descriptor));
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Fault> {
        while let Some((packet, descriptor)) = self.outbox.front() {
            let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
            match channel::send(&self.control, packet, &descriptors, false) {
                Ok(()) => drop(self.outbox.pop_front()),
                // Full, with packets or with descriptors that the host has not taken: later.
                Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS) => return Ok(()),
                // Seen again, and acted on, when the socket is read.
                Err(Errno::PIPE | Errno::CONNRESET) => self.outbox.clear(),
                Err(errno) => return Err(Fault::new("telling the host", errno)),
            }
        }
        Ok(())
    }

    /// Kills every room. Its processes are gone before this one's end is seen: the kernel waits for none of them, but kills all.
    fn end_all(&self) {
        for pid in self.rooms.keys() {
            kill(*pid);
        }
    }
}

/// What [`Launcher::wait`] woke up for.
struct Ready {
    nothing: bool,
    control_in: bool,
    control_out: bool,
    signals: bool,
    /// Process ids of rooms that have something to say.
    links: Vec<i32>,
}

fn answer(pid: i32, ids: Option<u32>, link: &OwnedFd) -> Result<(), Fault> {
    ids::write_maps(pid, ids)?;
    channel::send(link, room::GO_ON, &[], false).while_doing("telling a room to go on")
}

/// Kills a child that has not been reaped, so that its id can mean nobody else.
fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that has ended by itself cannot be killed, and need not be.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

fn unwelcome(word: &[u8]) -> Fault {
    Fault::decode(word).unwrap_or_else(|_| Fault::new("building the room: it said something unknown", Errno::BADMSG))
}
