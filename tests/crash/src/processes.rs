//! Processes below this one, as the kernel shows them: rooms, launchers, and what is left over.
//!
//! The lane adopts what loses its parent (child subreaper), so everything that a server ever started is below it, whoever was
//! killed in between; and nothing that is not below it is ever signalled.

use crate::room::Isolation;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    parent: i32,
    is_zombie: bool,
    pub name: String,
    /// Pid namespace; processes of one room share it.
    namespace: PathBuf,
    /// The first process of a pid namespace that is not ours.
    is_first: bool,
}

/// From now on what loses its parent becomes a child of this process.
pub fn adopt_orphans() -> Result<()> {
    set_child_subreaper(Some(rustix::process::getpid())).context("orphans cannot be adopted")
}

/// Everything alive below this process. `except` are children that somebody else waits for.
pub fn living(except: &[u32]) -> Result<Vec<Process>> {
    let all = all()?;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut below: HashSet<i32> = HashSet::from([own]);
    loop {
        let more: Vec<i32> =
            all.values().filter(|p| below.contains(&p.parent) && !below.contains(&p.pid)).map(|p| p.pid).collect();
        if more.is_empty() {
            break;
        }
        below.extend(more);
    }
    below.remove(&own);
    for zombie in all.values().filter(|p| p.is_zombie && p.parent == own && !except.contains(&(p.pid as u32))) {
        // Another thread may have been quicker.
        let _ = waitpid(Pid::from_raw(zombie.pid), WaitOptions::NOHANG);
    }
    let mut living: Vec<Process> = all.into_values().filter(|p| below.contains(&p.pid) && !p.is_zombie).collect();
    living.sort_by_key(|p| p.pid);
    Ok(living)
}

/// The first processes of rooms of sessions: cells. Those of rooms that wait for one have no place among the records.
pub fn cells(living: &[Process], data: &Path, isolation: Isolation) -> Vec<Process> {
    let places = std::fs::read_dir(data.join("rooms")).into_iter().flatten().flatten();
    let recorded: HashSet<i32> = places.filter_map(|place| first_of(&place.path().join("record"))).collect();
    let cells = living.iter().filter(|p| isolation.is_room(&p.name) && recorded.contains(&p.pid));
    cells.cloned().collect()
}

/// `None`: it was just removed, or nothing was ever written there.
fn first_of(record: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(record).ok()?;
    text.lines().find_map(|line| line.strip_prefix("process ")?.split(' ').next()?.parse().ok())
}

pub fn launchers(living: &[Process]) -> Vec<Process> {
    living.iter().filter(|p| !p.is_first && p.name == "loopd-jail").cloned().collect()
}

/// All that runs in the room of `cell`, the cell last.
pub fn of_room(living: &[Process], cell: &Process) -> Vec<Process> {
    let mut members: Vec<Process> =
        living.iter().filter(|p| p.namespace == cell.namespace && p.pid != cell.pid).cloned().collect();
    members.push(cell.clone());
    members
}

/// False: it was gone already.
pub fn signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

fn all() -> Result<HashMap<i32, Process>> {
    let own_namespace = std::fs::read_link("/proc/self/ns/pid").context("this process's pid namespace")?;
    let mut found = HashMap::new();
    for entry in std::fs::read_dir("/proc").context("`/proc`")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
        // What ends while it is looked at is not there.
        if let Some(process) = look(pid, &own_namespace) {
            found.insert(pid, process);
        }
    }
    Ok(found)
}

fn look(pid: i32, own_namespace: &PathBuf) -> Option<Process> {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).ok();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let parent = field("PPid")?.parse().ok()?;
    let is_zombie = field("State")?.starts_with(['Z', 'X']);
    let command = read("cmdline").unwrap_or_default();
    let name = command.split(|b| *b == 0).next().map(|b| String::from_utf8_lossy(b).into_owned());
    let namespace = std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap_or_default();
    let is_first = namespace != *own_namespace && field("NSpid")?.split_whitespace().last() == Some("1");
    Some(Process { pid, parent, is_zombie, name: name.unwrap_or_default(), namespace, is_first })
}
