//! The launcher's loop: orders in, news out, children reaped. One thread, and nothing in it waits for one room.
//!
//! ```text
//!  Park ──► clone ─► Parked ─► child builds ─► Waits
//!  Start ─► forwarded to it ─► child: "ids please" ─► maps written, "go on" ─► child becomes the cell ─► … ─► Ended
//!                                └─► child: what failed, and it ends ───────────────────────────────────────┘
//! ```
//!
//! When the control socket closes, the host is gone, and the launcher ends. Rooms go on without it; children that have not
//! become rooms see their link close, and end.

use crate::fault::{Fault, While};
use crate::filter::Filter;
use crate::landlock::Landlock;
use crate::room::{self, Plan};
use crate::stage::{self, Stage};
use crate::sys::{self, Side};
use crate::wire::{End, News, Order, Root, Start};
use crate::{CHANNEL, channel, entry, ids, mounts};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;

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
    landlock: Option<Landlock>,
    /// By process id.
    children: HashMap<i32, Living>,
    /// News that the host was too slow to take, and the descriptor that goes with it.
    outbox: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

/// A child that has not been reaped.
struct Living {
    room: u64,
    /// Its session's, once there is one.
    ids: Option<u32>,
    /// Until its walls are complete, as far as is known.
    link: Option<OwnedFd>,
    fault: Option<Fault>,
}

/// Gets ready: takes the configuration, sets the stage, says so.
fn open() -> Result<Launcher, Fault> {
    sys::close_from(3).while_doing("closing what was inherited")?;
    entry::fill_low_descriptors()?;
    entry::raise_descriptor_limit()?;
    let control = entry::high(std::io::stdin().as_fd())?;
    let configuration = entry::configuration(&control)?;
    let cell = entry::high(configuration.cell.as_fd())?;
    if !rustix::process::geteuid().is_root() {
        entry::become_root_of_own_namespace()?;
    }
    let stage = stage::set(&configuration)?;
    let signals = sys::child_signals().while_doing("watching for the end of children")?;
    let mut launcher = Launcher {
        control,
        signals,
        cell,
        stage,
        filter: Filter::compile(),
        landlock: Landlock::here(),
        children: HashMap::new(),
        outbox: VecDeque::new(),
    };
    launcher.say(&News::Ready, None)?;
    Ok(launcher)
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
                return Ok(());
            }
        }
    }

    /// Waits for something to do.
    fn wait(&mut self) -> Result<Ready, Fault> {
        let building: Vec<(i32, &OwnedFd)> =
            self.children.iter().filter_map(|(pid, living)| Some((*pid, living.link.as_ref()?))).collect();
        let control = match self.outbox.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::IN | PollFlags::OUT,
        };
        let mut fds = vec![PollFd::new(&self.control, control), PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(building.iter().map(|(_, link)| PollFd::new(*link, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Fault::new("waiting", errno)),
        }
        let gone = PollFlags::HUP | PollFlags::ERR;
        Ok(Ready {
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
        match Order::decode(&packet) {
            Ok(Order::Park { room, root }) => {
                if let Err(fault) = self.park(room, &root, &descriptors) {
                    self.say(&News::Ended { room, end: End::Failed(fault) }, None)?;
                }
            }
            Ok(Order::Start(start)) => self.forward(&start, &packet, &descriptors),
            _ => return Err(Fault::new("reading an order", Errno::BADMSG)),
        }
        Ok(true)
    }

    /// Clones the first process of a room that waits for its session.
    fn park(&mut self, room: u64, root: &Root, cgroups: &[OwnedFd]) -> Result<(), Fault> {
        let (link, child_link) = channel::pair().while_doing("making a link to the room")?;
        // The child makes its other namespaces itself: this thread is every room's.
        match sys::clone(libc::CLONE_NEWPID).while_doing("cloning a process with ids of its own")? {
            Side::Child => {
                let plan = Plan {
                    stage: &self.stage,
                    filter: &self.filter,
                    landlock: self.landlock,
                    root,
                    cell: self.cell.as_fd(),
                    cgroups,
                    link: child_link.as_fd(),
                };
                let Err(fault) = leave_launcher(&plan).and_then(|()| room::build(&plan));
                // Nobody is left to tell when this fails; the launcher then sees an end without a word.
                let _ = channel::send(&child_link, &fault.encode(), &[], true);
                sys::exit_now(1)
            }
            Side::Parent { pid, pidfd } => {
                self.children.insert(pid, Living { room, ids: None, link: Some(link), fault: None });
                self.say(&News::Parked { room, pid: pid as u32 }, Some(pidfd))
            }
        }
    }

    /// Hands a session to the child that waits for one. Of one that has ended the host is told in any case.
    fn forward(&mut self, start: &Start, order: &[u8], descriptors: &[OwnedFd]) {
        let Some((pid, living)) = self.children.iter_mut().find(|(_, living)| living.room == start.room) else {
            return;
        };
        let Some(link) = &living.link else { return };
        living.ids = start.ids;
        let sent = mounts::take(start).and_then(|directories| {
            let all: Vec<_> = descriptors.iter().chain(&directories).map(AsFd::as_fd).collect();
            match channel::send(link, order, &all, false) {
                // It ends by itself, and its last word is still to be read.
                Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
                other => other.while_doing("handing a session to its room"),
            }
        });
        if let Err(fault) = sent {
            living.fault = Some(fault);
            kill(*pid);
        }
    }

    /// Takes one word from a room that is being built.
    fn hear(&mut self, pid: i32) -> Result<(), Fault> {
        let Some(living) = self.children.get_mut(&pid) else { return Ok(()) };
        let Some(link) = &living.link else { return Ok(()) };
        match word_of(link) {
            Ok(Some((word, _))) if word == room::IDS_PLEASE => {
                if let Err(fault) = answer(pid, living.ids, link) {
                    living.fault = Some(fault);
                    living.link = None;
                    kill(pid);
                }
            }
            Ok(Some((word, _))) if word == room::WAITING => {
                let room = living.room;
                self.say(&News::Waits { room }, None)?;
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
            let Some(mut living) = self.children.remove(&pid.as_raw_nonzero().get()) else { continue };
            // Its last words may still lie in the socket.
            while let Some(link) = &living.link
                && let Ok(Some((word, _))) = word_of(link)
            {
                if word != room::WAITING && word != room::IDS_PLEASE {
                    living.fault = Some(unwelcome(&word));
                }
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
}

/// The next word of a room that is being built. Of one that ended with an order unread the kernel tells that first, and only then
/// gives the word that it had said before.
fn word_of(link: &OwnedFd) -> rustix::io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    match channel::receive(link, false) {
        Err(Errno::CONNRESET) => channel::receive(link, false),
        other => other,
    }
}

/// What [`Launcher::wait`] woke up for.
struct Ready {
    control_in: bool,
    control_out: bool,
    signals: bool,
    /// Process ids of rooms that have something to say.
    links: Vec<i32>,
}

/// Lets go, in a child, of everything that is the launcher's: above all its socket and its ends of the links to other rooms,
/// whose closing must tell that the launcher is gone.
fn leave_launcher(plan: &Plan<'_>) -> Result<(), Fault> {
    let mut kept = vec![plan.cell.as_raw_fd(), plan.link.as_raw_fd()];
    kept.extend(plan.cgroups.iter().map(AsRawFd::as_raw_fd));
    sys::leave_open(CHANNEL + 1, kept).while_doing("closing descriptors")
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
