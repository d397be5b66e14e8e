//! `loopd-jail probe`: tries, one by one, what rooms need of the kernel, and prints what came of it.
//!
//! Each trial happens in a child of its own, so that none changes the ground under the next. A line is a name, `ok` or
//! `failed`, and a detail, separated by tabs.

use crate::entry::become_root_of_own_namespace;
use crate::fault::{Fault, While};
use crate::filter::Filter;
use crate::sys::{self, Side};
use crate::{channel, landlock, network};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;
use std::process::ExitCode;

/// Name of a kind of namespace, and its flag.
const NAMESPACES: [(&str, UnshareFlags); 6] = [
    ("mount namespaces", UnshareFlags::NEWNS),
    ("process id namespaces", UnshareFlags::NEWPID),
    ("network namespaces", UnshareFlags::NEWNET),
    ("ipc namespaces", UnshareFlags::NEWIPC),
    ("host name namespaces", UnshareFlags::NEWUTS),
    ("cgroup namespaces", UnshareFlags::NEWCGROUP),
];

pub fn main() -> ExitCode {
    report("user namespaces", attempt(user_namespace));
    for (name, flag) in NAMESPACES {
        report(name, attempt(|| namespace(flag)));
    }
    report("system call filter", attempt(filter));
    match (attempt(landlock::trial), sys::landlock_version()) {
        (Ok(()), Ok(version)) => println!("landlock\tok\ttried, version {version}"),
        (result, _) => report("landlock", result),
    }
    ExitCode::SUCCESS
}

fn report(name: &str, result: Result<(), Fault>) {
    match result {
        Ok(()) => println!("{name}\tok\ttried"),
        Err(fault) => println!("{name}\tfailed\t{fault}"),
    }
}

fn user_namespace() -> Result<(), Fault> {
    match rustix::process::geteuid().is_root() {
        true => sys::unshare(UnshareFlags::NEWUSER).while_doing("making a user namespace"),
        false => become_root_of_own_namespace(),
    }
}

fn namespace(flag: UnshareFlags) -> Result<(), Fault> {
    if !rustix::process::geteuid().is_root() {
        become_root_of_own_namespace()?;
    }
    sys::unshare(flag).while_doing("making one")?;
    if flag == UnshareFlags::NEWNET { network::loopback_up() } else { Ok(()) }
}

fn filter() -> Result<(), Fault> {
    rustix::thread::set_no_new_privs(true).while_doing("giving up new privileges")?;
    sys::install(&Filter::compile()).while_doing("installing it")?;
    match sys::unshare(UnshareFlags::NEWUTS) {
        Err(Errno::PERM) => Ok(()),
        _ => Err(Fault::new("it is installed but refuses nothing", Errno::NOTSUP)),
    }
}

/// Runs a trial in a child and waits for its end.
fn attempt(trial: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
    let (here, there) = channel::pair().while_doing("making a socket")?;
    match sys::clone(0).while_doing("starting a process")? {
        Side::Child => {
            let word = trial().err().map_or_else(|| b"ok".to_vec(), |fault| fault.encode());
            let sent = channel::send(&there, &word, &[], true);
            sys::exit_now(i32::from(sent.is_err()))
        }
        Side::Parent { .. } => {
            drop(there);
            let word = channel::receive(&here, true).while_doing("waiting for the trial")?;
            rustix::process::wait(WaitOptions::empty()).while_doing("waiting for the trial")?;
            match word {
                Some((word, _)) if word == b"ok" => Ok(()),
                Some((word, _)) => Err(Fault::decode(&word).unwrap_or_else(|_| Fault::new("trying", Errno::BADMSG))),
                None => Err(Fault::new("the trial ended without a word", Errno::PIPE)),
            }
        }
    }
}
