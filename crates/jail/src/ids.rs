//! Who a room's processes are, inside and on the host.
//!
//! A session has a few host ids of its own; inside, two of them have names: 0 is the cell, 1000 the tools. Nothing else is
//! mapped, so a file of anybody else belongs to `nobody`. An ordinary user has one id to give, and cell and tools share it.

use crate::fault::{Fault, While};
use std::fmt::Write as _;

/// Uid and gid of the tools inside the room.
pub const AGENT: u32 = 1000;
/// Where the cell is among a session's host ids, counted from the first.
pub const CELL_OFFSET: u32 = 0;
/// Where the tools are.
pub const AGENT_OFFSET: u32 = 1;

/// Directories of a session and whose each is, counted from the session's first id. The workspace comes last: it is the sign
/// that all is done.
pub const PARTS: [(&str, u32); 5] = [
    ("home", AGENT_OFFSET),
    ("outputs", AGENT_OFFSET),
    ("uploads", CELL_OFFSET),
    ("memory", CELL_OFFSET),
    ("workspace", AGENT_OFFSET),
];

/// Uid and gid of the cell inside the room.
pub(crate) fn cell(first: Option<u32>) -> u32 {
    if first.is_some() { 0 } else { AGENT }
}

/// What the cell is told about the uid of tools.
pub(crate) fn tool_uid(first: Option<u32>) -> &'static std::ffi::CStr {
    if first.is_some() { c"LOOPD_TOOL_UID=1000" } else { c"LOOPD_TOOL_UID=same" }
}

/// Writes the id maps of a process that has just entered a user namespace.
pub(crate) fn write_maps(pid: i32, first: Option<u32>) -> Result<(), Fault> {
    let map = map(first);
    std::fs::write(format!("/proc/{pid}/gid_map"), &map).while_doing("writing the map of group ids")?;
    std::fs::write(format!("/proc/{pid}/uid_map"), &map).while_doing("writing the map of user ids")
}

/// Lines of "inside, outside, count".
fn map(first: Option<u32>) -> String {
    let mut map = String::new();
    let lines = match first {
        Some(first) => vec![(0, first + CELL_OFFSET), (AGENT, first + AGENT_OFFSET)],
        // Outside is the launcher's own namespace, in which it is root.
        None => vec![(AGENT, 0)],
    };
    for (inside, outside) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(map, "{inside} {outside} 1");
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_with_ids_keeps_cell_and_tools_apart() {
        assert_eq!(map(Some(7000)), "0 7000 1\n1000 7001 1\n");
        assert_eq!(map(None), "1000 0 1\n");
    }
}
