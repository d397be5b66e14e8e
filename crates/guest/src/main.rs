//! The first process of a virtual machine that is a session's room (ADR 8).
//!
//! It makes of the machine a small host: it mounts the disks, and has the same launcher as on a host, `loopd-jail`, build the same
//! room around the same cell. To the real host it talks over one port, on which [`loopd_protocol::link`] has many streams.
//!
//! ```text
//!  host ══ port ══► link ─┬─ Control ──────► prepare, bind, wake (machine/)
//!                         ├─ Cell ─────────► relay ─► the cell's socket          (what the cell says waits for the disk: sync)
//!                         ├─ Outlet ◄────── relay ◄─ the room's way out
//!                         └─ Read/WriteFiles ► relay ─► a worker, a process of this program
//!  launcher ─► room's end ─► disk synced ─► power off
//! ```
//!
//! One thread polls and never waits for one thing; what can take long (syncing, files) is done beside it. Nothing here outlives
//! the machine, and the machine does not outlive its room.
//!
//! Not here: what a room's walls are (`loopd-jail`), which sessions exist, who may use what (the host).

mod cgroup;
mod clock;
mod control;
mod disk;
mod fault;
mod full;
mod ground;
mod identity;
mod launcher;
mod machine;
mod modules;
mod outlet;
mod port;
mod relay;
mod session;
mod sync;
mod sys;
mod worker;

use fault::Fault;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(job) = std::env::args().nth(1) {
        return worker::main(&job);
    }
    if std::process::id() != 1 {
        eprintln!("loopd-guest: this is the first process of a virtual machine, and nothing else");
        return ExitCode::from(2);
    }
    std::panic::set_hook(Box::new(|panic| {
        sys::say(&format!("{panic}"));
        sys::power_off();
    }));
    if let Err(fault) = live() {
        sys::say(&fault.to_string());
    }
    sys::power_off()
}

/// From the kernel's hand-over to the room's end.
fn live() -> Result<(), Fault> {
    let ground = ground::rise()?;
    machine::Machine::new(ground)?.run()
}
