//! One room, built from within: what a child of the launcher does until it is the cell.
//!
//! Up to [`enter_user_namespace`] the child is still the launcher's own kin and may mount; from there on it has power over
//! nothing but its own two users. No step is undone when a later one fails: the child ends, and its namespaces with it.

use crate::fault::{Fault, While};
use crate::filter::Filter;
use crate::stage::{self, Stage};
use crate::wire::Start;
use crate::{CHANNEL, channel, ids, network, sys, walls};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// From the child to the launcher: it is in its user namespace and needs its id maps.
pub(crate) const IDS_PLEASE: &[u8] = b"ids please";
/// From the launcher to the child: they are written.
pub(crate) const GO_ON: &[u8] = b"go on";

/// A session's directories: name in its directory on the host, path in the room.
const SESSION: [(&str, &str); 5] = [
    ("workspace", "workspace"),
    ("home", "home/agent"),
    ("uploads", "mnt/session/uploads"),
    ("outputs", "mnt/session/outputs"),
    ("memory", "mnt/memory"),
];

/// All that a child needs to become a room.
pub(crate) struct Plan<'a> {
    pub start: &'a Start,
    pub stage: &'a Stage,
    pub filter: &'a Filter,
    pub cell: BorrowedFd<'a>,
    pub channel: BorrowedFd<'a>,
    pub cgroups: &'a [OwnedFd],
    /// To the launcher.
    pub link: BorrowedFd<'a>,
    /// The network namespace is fresh: its loopback interface is still down.
    pub fresh_network: bool,
}

/// Becomes the cell, or says what failed.
pub(crate) fn build(plan: &Plan<'_>) -> Result<Infallible, Fault> {
    join_cgroups(plan.cgroups)?;
    rustix::process::setsid().while_doing("leaving the launcher's terminal")?;
    rustix::system::sethostname(stage::HOST_NAME.as_bytes()).while_doing("naming the room")?;
    if plan.fresh_network {
        network::loopback_up()?;
    }
    furnish(plan)?;
    move_in()?;
    walls::limit_resources(plan.start)?;
    enter_user_namespace(plan.link)?;
    walls::become_cell(plan.start)?;
    walls::drop_powers(plan.start.ids.is_some())?;
    walls::settle()?;
    hand_over(plan)
}

/// Joins the room's cgroups, then hides what is above them.
fn join_cgroups(procs: &[OwnedFd]) -> Result<(), Fault> {
    for file in procs {
        rustix::io::write(file, b"0").while_doing("joining the room's cgroup")?;
    }
    sys::unshare(UnshareFlags::NEWCGROUP).while_doing("making a cgroup namespace")
}

/// Mounts what is this session's own onto the copy of the stage.
fn furnish(plan: &Plan<'_>) -> Result<(), Fault> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    let inert = plain | MountFlags::NOEXEC;
    mount("proc", "/room/proc", "proc", inert, "hidepid=2").while_doing("mounting /proc")?;
    for name in &plan.stage.masked {
        rustix::mount::mount_bind("/room/dev/null", format!("/room/proc/{name}"))
            .while_doing(&format!("masking /proc/{name}"))?;
    }
    rustix::mount::mount_bind("/room/proc/sys", "/room/proc/sys").while_doing("binding /proc/sys")?;
    rustix::mount::mount_remount("/room/proc/sys", MountFlags::BIND | MountFlags::RDONLY | inert, "")
        .while_doing("making /proc/sys read-only")?;
    mount(
        "devpts",
        "/room/dev/pts",
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620",
    )
    .while_doing("mounting /dev/pts")?;
    let memory = format!("mode=1777,size={}", plan.start.tmp_bytes);
    mount("tmp", "/room/tmp", "tmpfs", plain, &memory).while_doing("mounting /tmp")?;
    mount("shm", "/room/dev/shm", "tmpfs", plain, &memory).while_doing("mounting /dev/shm")?;
    let directory = Path::new("/data").join(OsStr::from_bytes(&plan.start.directory));
    for (name, place) in SESSION {
        rustix::mount::mount_bind(directory.join(name), Path::new("/room").join(place))
            .while_doing(&format!("mounting /{place}"))?;
    }
    Ok(())
}

fn mount(source: &str, at: &str, kind: &str, flags: MountFlags, options: &str) -> rustix::io::Result<()> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(source, at, kind, flags, &*options)
}

/// Makes the room the root and lets go of everything else.
fn move_in() -> Result<(), Fault> {
    rustix::process::chdir("/room").while_doing("entering the room")?;
    rustix::process::pivot_root(".", ".").while_doing("making the room the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).while_doing("leaving the stage")?;
    rustix::process::chdir("/workspace").while_doing("entering /workspace")
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
fn hand_over(plan: &Plan<'_>) -> Result<Infallible, Fault> {
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
        .while_doing("opening /dev/null")?;
    // The sources lie above the places they go to, see `launcher::FIRST_DESCRIPTOR`.
    for number in 0..=2 {
        sys::place(null.as_fd(), number).while_doing("placing /dev/null")?;
    }
    sys::place(plan.channel, CHANNEL).while_doing("placing the channel")?;
    sys::close_on_exec_from(CHANNEL + 1).while_doing("closing descriptors")?;
    sys::default_signals().while_doing("resetting signals")?;
    sys::install(plan.filter).while_doing("installing the system call filter")?;
    let environment = [
        c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        c"HOME=/home/agent",
        c"LANG=C.UTF-8",
        c"TERM=dumb",
        ids::tool_uid(plan.start.ids),
    ];
    Err(Fault::new("starting the cell", sys::execute(plan.cell, c"loopd-cell", &environment)))
}
