//! What a process gives up on its way to becoming the cell.

use crate::fault::{Fault, While};
use crate::ids;
use crate::wire::Start;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid};

/// What the cell keeps, within its user namespace: it starts tools under their own ids and ends them.
const CELL_POWERS: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::KILL);
/// Bits above the last capability that this kernel knows are refused with EINVAL; there are at most 64.
const CAPABILITIES: u32 = 64;

/// Limits of each process. Lowered only, so that an ordinary user may do it too.
pub(crate) fn limit_resources(start: &Start) -> Result<(), Fault> {
    limit(Resource::Nofile, start.open_files).while_doing("limiting open files")?;
    limit(Resource::Fsize, start.file_bytes).while_doing("limiting the size of files")?;
    if let Some(most) = start.memory_bytes {
        // Of what a process has mapped only this counts: address space that it merely reserves, as language runtimes do by the
        // gigabyte, costs nothing.
        limit(Resource::Data, most).while_doing("limiting memory")?;
    }
    limit(Resource::Core, 0).while_doing("switching core files off")
}

fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let most = Some(most.min(hard));
    rustix::process::setrlimit(resource, Rlimit { current: most, maximum: most })
}

/// Becomes the cell's user. In a user namespace whose maps have been written.
pub(crate) fn become_cell(start: &Start) -> Result<(), Fault> {
    if start.ids.is_some() {
        rustix::thread::set_thread_groups(&[]).while_doing("leaving all groups")?;
    }
    let (uid, gid) = (Uid::from_raw(ids::cell(start.ids)), Gid::from_raw(ids::cell(start.ids)));
    rustix::thread::set_thread_res_gid(gid, gid, gid).while_doing("taking the cell's group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).while_doing("taking the cell's user")?;
    if let Some(most) = start.processes {
        // Counted per uid and user namespace, hence not before this process has entered its own.
        limit(Resource::Nproc, most).while_doing("limiting processes")?;
    }
    Ok(())
}

/// Gives up every capability but the cell's own, now and for every program to come.
pub(crate) fn drop_powers(keep: bool) -> Result<(), Fault> {
    let kept = if keep { CELL_POWERS } else { CapabilitySet::empty() };
    let bits = CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits).while_doing("locking the rules of capabilities")?;
    forgo(kept)?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).while_doing("dropping capabilities")?;
    rustix::thread::set_no_new_privs(true).while_doing("giving up new privileges")
}

/// No program to come can have others than these.
fn forgo(kept: CapabilitySet) -> Result<(), Fault> {
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(Fault::new("dropping capabilities for good", errno)),
        }
    }
    Ok(())
}

/// Limits of a machine's monitor. `processes`: of its user, where it has one of its own.
pub(crate) fn limit_monitor(open_files: u64, file_bytes: u64, processes: Option<u64>) -> Result<(), Fault> {
    limit(Resource::Nofile, open_files).while_doing("limiting open files")?;
    limit(Resource::Fsize, file_bytes).while_doing("limiting the size of files")?;
    if let Some(most) = processes {
        limit(Resource::Nproc, most).while_doing("limiting processes")?;
    }
    limit(Resource::Core, 0).while_doing("switching core files off")
}

/// Becomes a user of the host with no power at all. `None`: stays the only user of its namespace, and has no power in it either.
/// `group`: one more group that the user is to be in.
pub(crate) fn become_monitor(user: Option<u32>, group: Option<u32>) -> Result<(), Fault> {
    forgo(CapabilitySet::empty())?;
    if let Some(user) = user {
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
        rustix::thread::set_thread_groups(group.map(Gid::from_raw).as_slice()).while_doing("leaving all groups")?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).while_doing("taking the machine's group")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).while_doing("taking the machine's user")?;
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .while_doing("dropping capabilities")?;
    rustix::thread::set_no_new_privs(true).while_doing("giving up new privileges")
}

/// Makes files that others may read.
pub(crate) fn settle() {
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
}
