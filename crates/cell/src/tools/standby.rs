//! A process that waits for the next call of a function: forking, and giving up the rights of the cell, is half of what a small
//! call costs, and is done here while the host is at work.
//!
//! It has the rights of the tools from its first moment, and serves one call. Should a tool have killed it, or the call be too
//! large for its pipe, the call gets a process of its own, as the first one does.

use super::worker::{Fault, Function, answer};
use super::{Ending, function_of};
use crate::sys;
use crate::tool_user::ToolUser;
use loopd_domain::agent::Builtin;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Bytes of the largest order: far below what an empty pipe takes at once.
const ORDER_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub struct Standby {
    pid: Pid,
    orders: OwnedFd,
    answers: OwnedFd,
}

impl Standby {
    pub fn start(user: &ToolUser) -> io::Result<Self> {
        let (order_end, orders) = pipe_with(PipeFlags::CLOEXEC)?;
        let (answers, answer_end) = pipe_with(PipeFlags::CLOEXEC)?;
        for ours in [&orders, &answers] {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        let pid = user.start(|| serve(order_end, answer_end, user.directory()))?;
        Ok(Standby { pid, orders, answers })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Hands a call over: the process that works on it, and where its answer comes from. `None`: it needs one of its own.
    pub fn take(self, builtin: Builtin, input: &Value) -> Option<(Pid, OwnedFd)> {
        let order = serde_json::to_vec(&(builtin, input)).ok().filter(|order| order.len() <= ORDER_BYTES_MAX);
        let frame = order.map(|order| [&(order.len() as u32).to_le_bytes()[..], &order].concat());
        match frame {
            Some(frame) if rustix::io::write(&self.orders, &frame) == Ok(frame.len()) => Some((self.pid, self.answers)),
            _ => {
                // One that is gone already is as good.
                let _ = kill_process(self.pid, Signal::KILL);
                None
            }
        }
    }
}

/// The child: its exit code.
fn serve(orders: OwnedFd, answers: OwnedFd, directory: &Path) -> i32 {
    if close_others(orders.as_raw_fd(), answers.as_raw_fd()).is_err() {
        return 125;
    }
    // Without an order there is nothing to do: the cell has ended.
    let Ok((builtin, input)) = receive(orders) else { return 0 };
    let run = function_of(builtin).unwrap_or(no_function as Function);
    answer(run(&input, directory), answers)
}

fn receive(orders: OwnedFd) -> io::Result<(Builtin, Value)> {
    let mut orders = File::from(orders);
    let mut length = [0; 4];
    orders.read_exact(&mut length)?;
    let mut order = vec![0; (u32::from_le_bytes(length) as usize).min(ORDER_BYTES_MAX)];
    orders.read_exact(&mut order)?;
    Ok(serde_json::from_slice(&order)?)
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
