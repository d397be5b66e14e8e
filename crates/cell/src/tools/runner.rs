//! A process that runs functions, one call after the other, with the rights of the tools from its first moment: forking and
//! giving up rights for each call would be most of what a small call costs.
//!
//! ```text
//!  start ─► waits ── order ─► runs ── answer ─► waits …        no more orders (the cell let go of it, or ended) ─► ends
//! ```
//!
//! Orders and answers are frames: four bytes of length, little-endian, then JSON. A runner that dies, or is killed, takes its
//! one call with it.

use super::worker::{Fault, Function};
use super::{Ending, function_of};
use crate::sys;
use crate::tool_user::ToolUser;
use loopd_domain::agent::Builtin;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Bytes of the largest order: far below what an empty pipe takes at once. A larger call is given a process of its own.
pub const ORDER_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub struct Runner {
    pub pid: Pid,
    orders: OwnedFd,
    pub answers: OwnedFd,
}

impl Runner {
    pub fn start(user: &ToolUser) -> io::Result<Self> {
        let (order_end, orders) = pipe_with(PipeFlags::CLOEXEC)?;
        let (answers, answer_end) = pipe_with(PipeFlags::CLOEXEC)?;
        for ours in [&orders, &answers] {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        let pid = user.start(|| serve(order_end, answer_end, user.directory()))?;
        Ok(Runner { pid, orders, answers })
    }

    /// Hands an order over. False: it takes none any more, and is gone.
    pub fn order(&self, order: &[u8]) -> bool {
        let frame = [&(order.len() as u32).to_le_bytes()[..], order].concat();
        let taken = rustix::io::write(&self.orders, &frame) == Ok(frame.len());
        if !taken {
            // One that is gone already is as good.
            let _ = kill_process(self.pid, Signal::KILL);
        }
        taken
    }
}

/// A call as a runner is told of it; `None` when it is too large for one.
pub fn order(builtin: Builtin, input: &Value) -> Option<Vec<u8>> {
    serde_json::to_vec(&(builtin, input)).ok().filter(|order| order.len() <= ORDER_BYTES_MAX)
}

/// What has arrived of an answer, if it is whole.
pub fn whole(received: &[u8]) -> Option<&[u8]> {
    let (head, body) = received.split_first_chunk::<4>()?;
    (body.len() >= u32::from_le_bytes(*head) as usize).then_some(body)
}

/// The child: its exit code.
fn serve(orders: OwnedFd, answers: OwnedFd, directory: &Path) -> i32 {
    if close_others(orders.as_raw_fd(), answers.as_raw_fd()).is_err() {
        return 125;
    }
    let (mut orders, mut answers) = (File::from(orders), File::from(answers));
    // Without a next order there is nothing to do.
    while let Ok((builtin, input)) = receive(&mut orders) {
        let run = function_of(builtin).unwrap_or(no_function as Function);
        if let Err(code) = answer(run(&input, directory), &mut answers) {
            return code;
        }
    }
    0
}

fn receive(orders: &mut File) -> io::Result<(Builtin, Value)> {
    let mut length = [0; 4];
    orders.read_exact(&mut length)?;
    let mut order = vec![0; (u32::from_le_bytes(length) as usize).min(ORDER_BYTES_MAX)];
    orders.read_exact(&mut order)?;
    Ok(serde_json::from_slice(&order)?)
}

/// Writes what a function came to; the exit code when it cannot.
pub fn answer(came: Result<Ending, Fault>, to: &mut File) -> Result<(), i32> {
    let ending = came.unwrap_or_else(|fault| Ending::error(fault.to_string()));
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, &ending).map_err(|_| 124)?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| 124)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&frame).map_err(|_| 123)
}

/// The channel, and the pipes of other calls, are none of this process's business.
fn close_others(one: RawFd, other: RawFd) -> io::Result<()> {
    let (low, high) = (one.min(other), one.max(other));
    sys::close_fds(3, low - 1)?;
    sys::close_fds(low + 1, high - 1)?;
    sys::close_fds(high + 1, i32::MAX)
}

fn no_function(_: &Value, _: &Path) -> Result<Ending, Fault> {
    Err(Fault::Refused("this tool is no function".to_owned()))
}
