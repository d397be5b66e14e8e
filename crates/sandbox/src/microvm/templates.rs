//! Machines that were frozen while they waited, to be copied: `<data>/guest/templates/<fingerprint>`. One is made for each form when it
//! is first wanted, by the first who wants it; the others wait for that one. A fingerprint stands for all that is in a template, so
//! none is ever changed; those that nobody has wanted for longest are removed.

use super::clearing::{self, touch};
use super::form::Form;
use super::monitor::refused;
use super::raising::{NOBODYS, Raised, Stand};
use super::{Machines, made, sockets};
use crate::SandboxError;
use crate::room::removal;
use loopd_domain::environment::RoomLimits;
use loopd_domain::limits::{TEMPLATE_PAUSE_MS, TEMPLATES_MAX};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(TEMPLATE_PAUSE_MS);

pub(super) struct Templates {
    root: PathBuf,
    flights: Mutex<HashMap<String, Arc<Flight>>>,
}

/// Held by who makes the template.
#[derive(Default)]
struct Flight(tokio::sync::Mutex<Option<Failure>>);

struct Failure {
    at: Instant,
    why: String,
}

impl Templates {
    pub(super) fn below(data: &Path) -> Self {
        Templates { root: data.join("guest").join("templates"), flights: Mutex::default() }
    }

    fn path(&self, fingerprint: &str) -> PathBuf {
        self.root.join(fingerprint)
    }

    fn flight(&self, fingerprint: &str) -> Arc<Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.len() >= TEMPLATES_MAX {
            flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        }
        Arc::clone(flights.entry(fingerprint.to_owned()).or_default())
    }

    /// Removes one of which no machine can be made.
    pub(super) fn discard(&self, fingerprint: &str) {
        let path = self.path(fingerprint);
        tracing::warn!(template = %path.display(), "a template is thrown away");
        if let Err(fault) = removal::remove(&path) {
            tracing::warn!(template = %path.display(), %fault, "a template stays behind");
        }
    }

    /// Removes those that can be used no more. Blocks.
    pub(super) fn clear(&self, is_fresh: impl Fn(&Path) -> bool) -> io::Result<usize> {
        clearing::clear_templates(&self.root, is_fresh)
    }

    /// Removes those above the most that are kept. Blocks.
    fn prune(&self) -> io::Result<()> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            all.push((entry.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
        all.sort();
        let surplus = all.len().saturating_sub(TEMPLATES_MAX);
        for (_, path) in all.into_iter().take(surplus) {
            removal::remove(&path)?;
        }
        Ok(())
    }
}

impl Machines {
    /// The template of a form, made if there is none.
    pub(super) async fn template(self: &Arc<Self>, form: &Form) -> Result<PathBuf, SandboxError> {
        let path = self.templates.path(&form.fingerprint);
        let flight = self.templates.flight(&form.fingerprint);
        let mut failure = flight.0.lock().await;
        if path.is_dir() {
            touch(&path);
            return Ok(path);
        }
        if let Some(Failure { why, .. }) = failure.as_ref().filter(|failure| failure.at.elapsed() < PAUSE) {
            return Err(SandboxError::Machine(format!("its template could not be made: {why}")));
        }
        let (machines, wanted, into) = (Arc::clone(self), form.clone(), path.clone());
        // Whoever asked may give up; what was begun is finished.
        let made = tokio::spawn(async move { machines.make_template(&wanted, into).await }).await;
        let made = made.map_err(|stopped| SandboxError::Machine(format!("making its template: {stopped}")))?;
        *failure = made.as_ref().err().map(|why| Failure { at: Instant::now(), why: why.to_string() });
        made.map(|()| path)
    }

    async fn make_template(self: &Arc<Self>, form: &Form, into: PathBuf) -> Result<(), SandboxError> {
        let fault = |source| SandboxError::Directory { path: into.clone(), source };
        let begun = Instant::now();
        let (machines, wanted) = (Arc::clone(self), form.clone());
        let made = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&machines.templates.root)?;
            machines.ground(&wanted)
        });
        let ground = made.await.map_err(io::Error::other).flatten().map_err(fault)?;
        let stand = Stand { place: &ground.place, disk: &ground.disk, user: ground.user, epoch: NOBODYS };
        let frozen = match self.boot(form, stand, &RoomLimits::default()).await {
            Ok(Raised { machine, link, control, doom, .. }) => {
                // As it is when nobody is connected.
                drop((link, control));
                let socket = sockets::control(&ground.place).map_err(fault)?;
                let frozen = form.vmm.freeze(machine, socket, into.clone()).await.map_err(refused);
                drop(doom);
                // Of no worth without its image, which it does not keep: who clears up must know of which it is.
                frozen.and_then(|()| made::note_template(&into, &form.shape).map_err(fault))
            }
            Err(fault) => Err(fault),
        };
        let machines = Arc::clone(self);
        let cleared = tokio::task::spawn_blocking(move || {
            let removed = ground.remove();
            removed.and_then(|()| machines.templates.prune())
        });
        if let Err(fault) = cleared.await.map_err(io::Error::other).flatten() {
            tracing::warn!(%fault, "what was used to make a template stays behind");
        }
        match frozen {
            Ok(()) => {
                tracing::info!(template = %into.display(), took = ?begun.elapsed(), "a template of a machine was made");
                Ok(())
            }
            // Another server was faster.
            Err(_) if into.is_dir() => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}
