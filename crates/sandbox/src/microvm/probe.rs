//! What this machine offers to rooms with a kernel of their own, found out by trying: for `loopd doctor`.
//!
//! Whether virtual machines work at all is the VMM's to say; then the guest's image must be there, a template of the usual machine be made,
//! and a whole room be started, whose cell must be heard.

use super::qemu::Qemu;
use super::{KIND, Machines};
use crate::room::trial::{broken, degraded, hear, works};
use crate::{Check, CheckVerdict, RoomRoot, RoomSpec, SandboxError};
use loopd_domain::environment::RoomLimits;
use loopd_domain::{Epoch, SessionId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A room that says nothing for so long is not going to.
const PATIENCE: Duration = Duration::from_secs(60);
const BUILD: &str = "run `loopd image build`";
const ALLOW_CGROUPS: &str = "run loopd as root, or with a cgroup of its own and nobody else in it: `systemd-run --user --scope -p Delegate=yes loopd serve`; \
     in a container, with its cgroup tree writable (docs/operations.md, Cgroups)";
/// Limits of the whole machine that the host keeps: name, controller, and what there is without it.
const LIMITS: [(&str, &str, &str); 2] = [
    ("processor limit", "cpu", "a room can use all of the machine's processors"),
    ("disk traffic limit", "io", "a room can use all of the disk's speed"),
];

pub(super) async fn run(machines: &Arc<Machines>) -> Vec<Check> {
    let image = image(machines).await;
    let kernel = image.as_ref().ok().cloned();
    let mut checks = Vec::new();
    if !machines.monitor.is_given() {
        checks.push(Qemu::check(&machines.data.path, kernel.as_deref()).await);
    }
    let has_image = image.is_ok();
    checks.push(match image {
        Ok(kernel) => works("guest image", format!("its kernel is `{}`", kernel.display())),
        Err(fault) => broken("guest image", fault.to_string(), BUILD),
    });
    if has_image && checks.iter().all(|check| check.verdict != CheckVerdict::Broken) {
        checks.push(template(machines).await);
        checks.push(whole_room(machines).await);
    }
    checks.extend(limits(machines).await);
    checks
}

async fn image(machines: &Arc<Machines>) -> Result<std::path::PathBuf, SandboxError> {
    let blocking = Arc::clone(machines);
    let found = tokio::task::spawn_blocking(move || blocking.image()).await;
    found.map_err(|stopped| SandboxError::Machine(stopped.to_string()))?.map(|image| image.kernel)
}

async fn template(machines: &Arc<Machines>) -> Check {
    const NAME: &str = "machine template";
    let begun = Instant::now();
    let made = match machines.form(&RoomLimits::default(), &RoomRoot::Host).await {
        Ok(form) => machines.template(&form).await,
        Err(fault) => Err(fault),
    };
    match made {
        Ok(_) => works(NAME, format!("there after {:.0} ms; rooms start as copies of it", ms(begun.elapsed()))),
        Err(fault) => degraded(NAME, format!("rooms boot, which is slower: {fault}"), ""),
    }
}

/// Memory, processes and disk are limited by the guest's kernel, whatever the host offers.
async fn limits(machines: &Arc<Machines>) -> Vec<Check> {
    let by_guest = |name: &str| works(name, "by the guest's kernel".to_owned());
    let mut checks: Vec<Check> =
        ["memory limit", "process limit", "disk use limit"].into_iter().map(by_guest).collect();
    let blocking = Arc::clone(machines);
    let tried = tokio::task::spawn_blocking(move || {
        let told = RoomLimits::default();
        LIMITS.map(|(_, controller, _)| match blocking.cgroups.why_not(controller) {
            None => blocking.cgroups.try_out(blocking.number(), controller, &told),
            Some(why) => Err(why),
        })
    });
    match tried.await {
        Ok(tried) => checks.extend(LIMITS.iter().zip(tried).map(|((name, controller, instead), tried)| match tried {
            Ok(()) => works(name, format!("by cgroups, {}", machines.cgroups.version(controller))),
            Err(why) => degraded(name, format!("{instead}: {why}"), ALLOW_CGROUPS),
        })),
        Err(stopped) => checks.push(broken("processor limit", format!("trying it: {stopped}"), "")),
    }
    checks
}

async fn whole_room(machines: &Arc<Machines>) -> Check {
    const NAME: &str = "a whole room";
    // Unlike any session's, and any other probe's.
    let name = format!("sesn_PROBE{}x{}", std::process::id(), machines.number());
    let session = match SessionId::parse("session", &name) {
        Ok(session) => session,
        Err(fault) => return broken(NAME, fault.to_string(), ""),
    };
    let directory = machines.data.path.join(name);
    let spec = RoomSpec { isolation: KIND, ..RoomSpec::plain(session, Epoch(1), directory) };
    let begun = Instant::now();
    let heard = match machines.start(&spec).await {
        Ok(room) => hear(room, &spec, begun, PATIENCE).await,
        Err(fault) => Err(fault.to_string()),
    };
    let removed = machines.remove(&spec).await;
    match (heard, removed) {
        (Ok(took), Ok(())) => works(NAME, format!("its cell was heard after {:.1} ms", ms(took))),
        (Ok(_), Err(fault)) => degraded(NAME, format!("its directory cannot be removed: {fault}"), ""),
        (Err(fault), _) => broken(NAME, fault, ""),
    }
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
