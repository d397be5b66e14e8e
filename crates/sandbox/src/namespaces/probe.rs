//! What this machine offers to rooms made of namespaces, found out by trying: for `loopd doctor`.
//!
//! The launcher tries the kernel's parts in a process of its own (`loopd-jail probe`); what only the host knows (ids, cgroups)
//! is added; at last a whole room is started, and its cell must be heard.

use super::{NamespaceSandbox, Rooms, disk};
use crate::room::trial::{broken, degraded, hear, works};
use crate::{Check, RoomSpec, Sandbox};
use loopd_domain::environment::RoomLimits;
use loopd_domain::limits::{DISK_LOOK_EVERY_MS, ROOMS_PARKED_MAX, ROOMS_WAITING_MIN};
use loopd_domain::{Epoch, SessionId};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A room that says nothing for so long is not going to.
const PATIENCE: Duration = Duration::from_secs(10);

const ALLOW_NAMESPACES: &str = "run loopd as root, or allow user namespaces: `sysctl -w user.max_user_namespaces=15000`, and \
     where they exist `sysctl -w kernel.unprivileged_userns_clone=1` and \
     `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`; in a container, also allow `unshare` and `mount` in its seccomp profile";
const ALLOW_FILTER: &str = "use a kernel with CONFIG_SECCOMP_FILTER";
const ALLOW_CGROUPS: &str = "run loopd as root, or with a cgroup of its own and nobody else in it: `systemd-run --user --scope -p Delegate=yes loopd serve`; \
     in a container, with its cgroup tree writable (docs/operations.md, Cgroups)";
const ALLOW_CONTROLLER: &str = "use a kernel with CONFIG_CFS_BANDWIDTH and CONFIG_BLK_DEV_THROTTLING, a data directory on a disk, and \
     under systemd hand the controllers down: `Delegate=cpu io memory pids` for user@.service";
const OTHER_DISK: &str = "put the data directory on a local file system such as ext4 or xfs";
const ALLOW_LANDLOCK: &str =
    "use a kernel from 5.19 on with CONFIG_SECURITY_LANDLOCK, and `landlock` in its `lsm=` list";
const BECOME_ROOT: &str = "run loopd as root to give every session ids of its own";

pub(super) async fn run(sandbox: &NamespaceSandbox) -> Vec<Check> {
    let mut checks = match sandbox.rooms.launcher.probe().await {
        Ok(lines) => lines.lines().filter_map(kernel).collect(),
        Err(fault) => vec![broken("launcher", fault.to_string(), ALLOW_NAMESPACES)],
    };
    checks.push(ids(sandbox.rooms.ids.is_some()));
    checks.extend(on_disk(sandbox).await);
    checks.push(parked_rooms(sandbox).await);
    checks.push(whole_room(sandbox).await);
    checks
}

/// What blocks.
async fn on_disk(sandbox: &NamespaceSandbox) -> Vec<Check> {
    let rooms = Arc::clone(&sandbox.rooms);
    let looked = tokio::task::spawn_blocking(move || {
        let mut checks = limits(&rooms);
        checks.push(disk_use(&rooms.data.path, rooms.number()));
        checks
    });
    looked.await.unwrap_or_else(|stopped| vec![broken("limits", format!("trying them: {stopped}"), "")])
}

/// Reads one line of the launcher's report.
fn kernel(line: &str) -> Option<Check> {
    let mut fields = line.splitn(3, '\t');
    let (name, result, detail) = (fields.next()?, fields.next()?, fields.next()?);
    let remedy = match name {
        "system call filter" => ALLOW_FILTER,
        "landlock" => ALLOW_LANDLOCK,
        _ => ALLOW_NAMESPACES,
    };
    Some(match (name, result) {
        (_, "ok") => works(name, detail.to_owned()),
        // A second wall behind mounts that are read-only.
        ("landlock", _) => degraded(name, detail.to_owned(), remedy),
        _ => broken(name, detail.to_owned(), remedy),
    })
}

fn ids(own: bool) -> Check {
    match own {
        true => works("ids per session", "every session has host ids of its own".to_owned()),
        false => {
            let detail = "all rooms, and cell and tools in each, have the user that runs loopd";
            degraded("ids per session", detail.to_owned(), BECOME_ROOT)
        }
    }
}

/// Limits that a cgroup keeps: name, controller, and what there is without it.
const LIMITS: [(&str, &str, &str); 4] = [
    ("memory limit", "memory", "each process is limited, the room is not"),
    ("process limit", "pids", "each user of a room is limited, the room is not"),
    ("processor limit", "cpu", "a room can use all processors"),
    ("disk traffic limit", "io", "a room can use all of the disk's speed"),
];

/// Makes a room's cgroup for each and asks the kernel what it holds.
fn limits(rooms: &Rooms) -> Vec<Check> {
    let told = RoomLimits::default();
    let limit = |(name, controller, instead): &(&str, &str, &str)| {
        let tried = match rooms.cgroups.why_not(controller) {
            None => rooms.cgroups.try_out(rooms.number(), controller, &told),
            Some(why) => Err(why),
        };
        match tried {
            Ok(()) => works(name, format!("by cgroups, {}", rooms.cgroups.version(controller))),
            Err(why) => degraded(name, format!("{instead}: {why}"), remedy(controller, rooms)),
        }
    };
    LIMITS.iter().map(limit).collect()
}

fn remedy(controller: &str, rooms: &Rooms) -> &'static str {
    match (controller, rooms.cgroups.limits("memory")) {
        // The tree is there; the rest is the kernel's or the disk's.
        ("io" | "cpu", true) => ALLOW_CONTROLLER,
        _ => ALLOW_CGROUPS,
    }
}

/// How disk use is limited: looked at, by a look at a session that has written something.
fn disk_use(data: &Path, number: u64) -> Check {
    const NAME: &str = "disk use limit";
    const TRIED_BYTES: usize = 1 << 20;
    // Beside the directories of sessions, and unlike any of theirs.
    let session = data.join(format!("probe-{}-{number}", std::process::id()));
    let tried = || -> std::io::Result<u64> {
        let workspace = session.join("workspace");
        std::fs::create_dir_all(&workspace)?;
        let before = disk::used(&session)?;
        std::fs::write(workspace.join("file"), vec![1; TRIED_BYTES])?;
        Ok(disk::used(&session)?.saturating_sub(before))
    };
    let tried = tried();
    let removed = std::fs::remove_dir_all(&session);
    match tried.and_then(|bytes| removed.map(|()| bytes)) {
        Ok(bytes) if bytes > 0 => {
            works(NAME, format!("looked at every {DISK_LOOK_EVERY_MS} ms at most while a room is at work"))
        }
        Ok(_) => degraded(NAME, "this file system does not say what a file takes on it at once".to_owned(), OTHER_DISK),
        Err(fault) => degraded(NAME, format!("sessions can fill the disk: {fault}"), OTHER_DISK),
    }
}

async fn whole_room(sandbox: &NamespaceSandbox) -> Check {
    const NAME: &str = "a whole room";
    // Unlike any session's, and any other probe's.
    let name = format!("sesn_PROBE{}x{}", std::process::id(), sandbox.rooms.number());
    let session = match SessionId::parse("session", &name) {
        Ok(session) => session,
        Err(fault) => return broken(NAME, fault.to_string(), ""),
    };
    let directory = sandbox.rooms.data.path.join(name);
    let spec = RoomSpec::plain(session, Epoch(1), directory);
    let begun = Instant::now();
    let heard = match sandbox.start(&spec).await {
        Ok(room) => hear(room, &spec, begun, PATIENCE).await,
        Err(fault) => Err(fault.to_string()),
    };
    let removed = sandbox.remove(&spec).await;
    match (heard, removed) {
        (Ok(took), Ok(())) => works(NAME, format!("its cell was heard after {:.1} ms", took.as_secs_f64() * 1e3)),
        (Ok(_), Err(fault)) => degraded(NAME, format!("its directory cannot be removed: {fault}"), ""),
        (Err(fault), _) => broken(NAME, fault, ALLOW_NAMESPACES),
    }
}

/// Whether rooms wait for sessions, without which each starts slower.
async fn parked_rooms(sandbox: &NamespaceSandbox) -> Check {
    const NAME: &str = "rooms in advance";
    let running = match sandbox.rooms.running().await {
        Ok(running) => running,
        Err(fault) => return degraded(NAME, format!("rooms start slower: {fault}"), ALLOW_NAMESPACES),
    };
    let begun = Instant::now();
    loop {
        if let Some(fault) = running.parking_fault() {
            return degraded(NAME, format!("rooms start slower, as none can be kept ready: {fault}"), ALLOW_NAMESPACES);
        }
        let (waiting, is_ready) = {
            let shelves = sandbox.rooms.waiting.shelves();
            (shelves.count(), shelves.is_ready())
        };
        match running.parked() {
            ROOMS_PARKED_MAX.. if is_ready => {
                return works(NAME, format!("{waiting} live and wait for a session, {ROOMS_PARKED_MAX} are parked"));
            }
            _ if begun.elapsed() > PATIENCE => {
                return degraded(
                    NAME,
                    format!("rooms start slower: fewer wait than {ROOMS_WAITING_MIN} and {ROOMS_PARKED_MAX}"),
                    ALLOW_NAMESPACES,
                );
            }
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CheckVerdict;

    #[test]
    fn a_line_that_failed_comes_with_a_remedy() {
        let check = kernel("user namespaces\tfailed\tmaking one: operation not permitted").unwrap();
        assert_eq!(check.verdict, CheckVerdict::Broken);
        assert!(check.detail.contains("not permitted") && check.remedy.contains("sysctl"));
        assert_eq!(kernel("landlock\tok\tversion 7").unwrap().verdict, CheckVerdict::Works);
        assert_eq!(kernel("nonsense"), None);
    }
}
