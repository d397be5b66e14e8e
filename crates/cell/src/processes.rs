//! Every process below the cell: reaping them, and killing them so that none gets away.
//!
//! A process that leaves its session and whose parent ends becomes a child of the cell (PID 1 of the room; outside a room a
//! subreaper), so all that tools ever started is found among the cell's descendants.

use crate::sys;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, wait};
use std::collections::HashSet;
use std::fs;

/// Looks at the process table until no new process shows up. What forks faster than that is killed together with all else.
const ROUNDS_MAX: usize = 16;

/// One row of /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    pid: Pid,
    parent: Option<Pid>,
    ended: bool,
}

/// A child that has ended, if there is one.
pub fn reap() -> Option<(Pid, WaitStatus)> {
    wait(WaitOptions::NOHANG).ok().flatten()
}

/// Kills `leader`'s session and every other descendant of the cell, but not those below `keep`. `leader` must not have been
/// reaped yet.
pub fn kill_session(leader: Pid, keep: &[Pid]) {
    // A process that is gone already is what we want; there is nothing to do about an error here.
    let _ = kill_process_group(leader, Signal::KILL);
    let mut killed = HashSet::new();
    for _ in 0..ROUNDS_MAX {
        let table = table();
        if !table.iter().any(|row| row.pid == leader) {
            break; // /proc does not show what lives: trust nothing it says
        }
        let alive = descendants(getpid(), keep, &table).into_iter().filter(|row| !row.ended);
        let fresh: Vec<Pid> = alive.map(|row| row.pid).filter(|pid| killed.insert(*pid)).collect();
        if fresh.is_empty() {
            return;
        }
        for pid in fresh {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    if is_first() {
        sys::kill_everything();
    }
}

/// Kills every descendant of the cell but those at and below `keep`.
pub fn kill_all_but(keep: &[Pid]) {
    let mut killed = HashSet::new();
    for _ in 0..ROUNDS_MAX {
        let alive = descendants(getpid(), keep, &table()).into_iter().filter(|row| !row.ended);
        let fresh: Vec<Pid> = alive.map(|row| row.pid).filter(|pid| killed.insert(*pid)).collect();
        if fresh.is_empty() {
            return;
        }
        for pid in fresh {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    // What forks faster than that.
    if is_first() {
        sys::kill_everything();
    }
}

/// Kills all that the cell ever started.
pub fn kill_everything() {
    if is_first() {
        return sys::kill_everything();
    }
    for row in descendants(getpid(), &[], &table()) {
        let _ = kill_process(row.pid, Signal::KILL);
    }
}

/// Whether this is PID 1, to which "every process" means the room and not somebody's machine.
pub fn is_first() -> bool {
    getpid() == Pid::INIT
}

/// How a process ended, as the end of a sentence.
pub fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (_, Some(9)) => {
            "was killed by signal 9 (SIGKILL), perhaps because the memory of the sandbox was used up".to_owned()
        }
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

fn descendants(root: Pid, keep: &[Pid], table: &[Row]) -> Vec<Row> {
    let mut found: Vec<Row> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for row in table.iter().filter(|row| row.parent == Some(parent) && !keep.contains(&row.pid)) {
            found.push(*row);
            parents.push(row.pid);
        }
    }
    found
}

fn table() -> Vec<Row> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| row(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// Reads `pid (name) state ppid …`; the name may hold anything, parentheses included.
fn row(stat: &str) -> Option<Row> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let parent: i32 = fields.next()?.parse().ok()?;
    Some(Row { pid: Pid::from_raw(pid)?, parent: Pid::from_raw(parent), ended: matches!(state, "Z" | "X" | "x") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(n: i32) -> Pid {
        Pid::from_raw(n).expect("positive")
    }

    #[test]
    fn names_of_processes_are_not_trusted() {
        let found = row("12 (a) R 1 (x) S 7 12 12 0").expect("a row");
        assert_eq!(found, Row { pid: pid(12), parent: Some(pid(7)), ended: false });
        assert!(row("9 (z) Z 1 9 9").expect("a row").ended);
        assert_eq!(row(""), None);
    }

    #[test]
    fn descendants_leave_out_what_is_to_be_kept() {
        let table: Vec<Row> = [(2, 1), (3, 1), (4, 2), (5, 4), (6, 3), (7, 99)]
            .map(|(p, parent)| Row { pid: pid(p), parent: Some(pid(parent)), ended: false })
            .to_vec();
        let mut found: Vec<i32> = descendants(pid(1), &[pid(3)], &table).iter().map(|r| r.pid.as_raw_pid()).collect();
        found.sort_unstable();
        assert_eq!(found, [2, 4, 5]);
    }

    #[test]
    fn the_own_process_is_in_the_table() {
        assert!(table().iter().any(|row| row.pid == getpid() && !row.ended));
    }
}
