//! One room, built from within: what a child of the launcher does until it is the cell.
//!
//! ```text
//!  park: namespaces, cgroups, mounts of every room ─► waits ─► session's directories, user namespace, powers, filter ─► the cell
//! ```
//!
//! While it waits nothing in it is of any session. Up to [`enter_user_namespace`] the child is still the launcher's own kin and
//! may mount; from there on it has power over nothing but its own two users. No step is undone when a later one fails: the
//! child ends, and its namespaces with it. So it does when its link to the launcher closes before the walls are complete.

use crate::fault::{Fault, While};
use crate::filter::Filter;
use crate::landlock::{Landlock, Rules};
use crate::stage::{self, Stage};
use crate::wire::{Order, Outlet, Root, Start};
use crate::{CHANNEL, channel, ids, mounts, network, root, sys, walls};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// From the child to the launcher: it has nothing to do until a session comes.
pub(crate) const WAITING: &[u8] = b"waiting";
/// From the child to the launcher: it is in its user namespace and needs its id maps.
pub(crate) const IDS_PLEASE: &[u8] = b"ids please";
/// From the launcher to the child: they are written.
pub(crate) const GO_ON: &[u8] = b"go on";

/// What tells the cell where its way out is, see [`mounts::OUTLET`].
const OUTLET: &CStr = c"LOOPD_OUTLET=/run/loopd/socket";

/// What a child has of its own besides its process ids, which it is cloned with, and its users, which come last.
const NAMESPACES: UnshareFlags =
    UnshareFlags::NEWNS.union(UnshareFlags::NEWIPC).union(UnshareFlags::NEWUTS).union(UnshareFlags::NEWNET);

/// What a child inherits to become a room.
pub(crate) struct Plan<'a> {
    pub stage: &'a Stage,
    pub filter: &'a Filter,
    pub landlock: Option<Landlock>,
    pub root: &'a Root,
    pub cell: BorrowedFd<'a>,
    pub cgroups: &'a [OwnedFd],
    /// To the launcher.
    pub link: BorrowedFd<'a>,
}

/// Becomes the cell of the session that comes, or says what failed.
pub(crate) fn build(plan: &Plan<'_>) -> Result<Infallible, Fault> {
    let rules = park(plan)?;
    channel::send(plan.link, WAITING, &[], true).while_doing("saying that it waits")?;
    let Session { start, listener, directories } = wait_for_session(plan.link)?;
    mounts::bring_in(&start, &directories)?;
    walls::limit_resources(&start)?;
    enter_user_namespace(plan.link)?;
    walls::become_cell(&start)?;
    walls::drop_powers(start.ids.is_some())?;
    walls::settle();
    if let Some(rules) = &rules {
        rules.allow_session()?;
        rules.enforce()?;
    }
    hand_over(plan, &start, listener.as_fd())
}

/// Everything that no session needs to be known for. Answers the rules for its files, to which a session's are to be added.
fn park(plan: &Plan<'_>) -> Result<Option<Rules>, Fault> {
    // The launcher's standard input is its control socket: held here too, it would hide the launcher's end from the host.
    place_null("/room/dev/null")?;
    join_cgroups(plan.cgroups)?;
    rustix::process::setsid().while_doing("leaving the launcher's terminal")?;
    sys::unshare(NAMESPACES).while_doing("making namespaces")?;
    rustix::system::sethostname(stage::HOST_NAME.as_bytes()).while_doing("naming the room")?;
    network::loopback_up()?;
    network::open_low_ports()?;
    let place = match plan.root {
        Root::Stage => stage::ROOM,
        Root::Layers(layers) => root::build(layers)?,
        Root::Over(layers) => root::build_over(plan.stage, layers)?,
    };
    mounts::furnish(plan.stage, place)?;
    mounts::move_in(place)?;
    plan.landlock.map(Landlock::rules).transpose()
}

/// Puts the null device of this path in place of the standard three.
fn place_null(path: &str) -> Result<(), Fault> {
    let null =
        rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).while_doing("opening /dev/null")?;
    // The source lies above the places it goes to, see `entry::FIRST_DESCRIPTOR`.
    for number in 0..=2 {
        sys::place(null.as_fd(), number).while_doing("placing /dev/null")?;
    }
    Ok(())
}

/// Joins the room's cgroups, then hides what is above them.
fn join_cgroups(procs: &[OwnedFd]) -> Result<(), Fault> {
    for file in procs {
        rustix::io::write(file, b"0").while_doing("joining the room's cgroup")?;
    }
    sys::unshare(UnshareFlags::NEWCGROUP).while_doing("making a cgroup namespace")
}

/// What a waiting room is given.
struct Session {
    start: Start,
    /// On which its cell listens.
    listener: OwnedFd,
    /// See [`mounts::take`].
    directories: Vec<OwnedFd>,
}

/// Waits for as long as the launcher lives.
fn wait_for_session(link: BorrowedFd<'_>) -> Result<Session, Fault> {
    const DOING: &str = "waiting for a session";
    let Some((packet, descriptors)) = channel::receive(link, true).while_doing(DOING)? else {
        return Err(Fault::new(DOING, Errno::PIPE));
    };
    let mut descriptors = descriptors.into_iter();
    match (Order::decode(&packet), descriptors.next()) {
        (Ok(Order::Start(start)), Some(listener)) => {
            Ok(Session { start, listener, directories: descriptors.collect() })
        }
        _ => Err(Fault::new(DOING, Errno::BADMSG)),
    }
}

/// From here on this process has no power over what it has built.
fn enter_user_namespace(link: BorrowedFd<'_>) -> Result<(), Fault> {
    sys::unshare(UnshareFlags::NEWUSER).while_doing("making a user namespace")?;
    channel::send(link, IDS_PLEASE, &[], true).while_doing("asking for id maps")?;
    match channel::receive(link, true).while_doing("waiting for id maps")? {
        Some((word, _)) if word == GO_ON => Ok(()),
        _ => Err(Fault::new("waiting for id maps", Errno::PIPE)),
    }
}

/// Leaves the cell its four descriptors, the filter, and this process.
fn hand_over(plan: &Plan<'_>, start: &Start, listener: BorrowedFd<'_>) -> Result<Infallible, Fault> {
    // The room's own: the one from before is of the stage.
    place_null("/dev/null")?;
    sys::place(listener, CHANNEL).while_doing("placing the cell's socket")?;
    sys::close_on_exec_from(CHANNEL + 1).while_doing("closing descriptors")?;
    sys::default_signals().while_doing("resetting signals")?;
    sys::install(plan.filter).while_doing("installing the system call filter")?;
    let orphan = CString::new(format!("LOOPD_ORPHAN_SECONDS={}", start.orphan_seconds))
        .map_err(|_| Fault::new("naming how long the cell waits for a host", Errno::INVAL))?;
    let mut environment = vec![
        c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        c"HOME=/home/agent",
        c"LANG=C.UTF-8",
        c"TERM=dumb",
        ids::tool_uid(start.ids),
        &orphan,
    ];
    let ports = start.outlet.as_ref().map(outlet_ports).transpose()?;
    if let Some(ports) = &ports {
        environment.extend([OUTLET, ports]);
    }
    Err(Fault::new("starting the cell", sys::execute(plan.cell, c"loopd-cell", &environment)))
}

fn outlet_ports(outlet: &Outlet) -> Result<CString, Fault> {
    let ports: Vec<String> = outlet.ports.iter().map(u16::to_string).collect();
    CString::new(format!("LOOPD_OUTLET_PORTS={}", ports.join(",")))
        .map_err(|_| Fault::new("naming the ports of the way out", Errno::INVAL))
}
