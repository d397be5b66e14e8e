//! Packages become layers: what a package manager installs over a root, kept and shared like a layer of an image.
//!
//! ```text
//!  root ─► apt? ─► npm? ─► pip? ─► cargo? ─► gem? ─► go? ─► root with up to six layers more
//!            │ known (packages.json) ─► the layer
//!            └ not known ─► [`Installer`]: a room on the root so far ─► archive ─► unpacked as a stranger's layer ─► known
//! ```
//!
//! An installation is known by its key: manager, names, the root below, where the packages come from, and the version of the
//! script. It is known only when its layer is there: the file that says so is replaced whole, so whoever is killed in the middle
//! leaves nothing that counts. What many want is installed once. What failed is not tried again for a while.
//!
//! Not here: the room, and the way out of it (`loopd_session`).

mod script;

use crate::digest::Digest;
use crate::flights::Flights;
use crate::pins::{Pin, Pins};
use crate::telling::{Count, Counted};
use crate::{ImageError, Images, Resolved, blocking, place};
use async_trait::async_trait;
use loopd_domain::environment::{Packages, RootSource};
use loopd_domain::limits::{
    PACKAGE_BUILDS_MAX, PACKAGES_FAILED_MAX, PACKAGES_LOG_BYTES_MAX, PACKAGES_LOG_LINES, PACKAGES_LOGS_MAX,
    PACKAGES_PAUSE_MS, PACKAGES_STATUS_BYTES_MAX,
};
use loopd_domain::packages::Manager;
use loopd_domain::progress::{Progress, Stage};
use loopd_domain::{SessionId, Timestamp};
use loopd_sandbox::RoomRoot;
use loopd_sandbox::progress::Teller;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Where the host says what it is, and which packages are installed.
const HOST_RELEASE: &str = "/etc/os-release";
const HOST_STATUS: &str = "/var/lib/dpkg/status";
/// Characters of a line of a log that an error repeats.
const LINE_CHARS_MAX: usize = 200;

/// Runs a script in a room.
#[async_trait]
pub trait Installer: Send + Sync {
    /// `Err`: there was no room, or it was lost; whether the packages can be installed is not known.
    async fn install(&self, order: Order) -> Result<Installed, ImageError>;
}

/// What is to be done in a room, which has a way out to package registries and to `hosts`, and nowhere else.
#[derive(Debug)]
pub struct Order {
    pub root: RoomRoot,
    pub variables: Vec<(String, String)>,
    /// For `sh`. It leaves [`LAYER`] and [`LOG`] in the session's outputs, and ends well or not.
    pub script: String,
    /// In the workspace when it starts: names and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// Beside the registries that everybody knows, and ports beside the usual ones.
    pub hosts: Vec<String>,
    pub ports: Vec<u16>,
    /// What is installed, and who is told how far that is.
    pub what: String,
    pub teller: Teller,
}

/// Of the outputs of an installation: what was installed, a tar archive, and what was printed meanwhile.
pub const LAYER: &str = "layer.tar";
pub const LOG: &str = "log";

/// What came of it. What the room wrote is a stranger's.
#[derive(Debug)]
pub struct Installed {
    /// `None`: it ended well.
    pub failure: Option<String>,
    pub log: Option<File>,
    pub layer: Option<File>,
}

/// What is known of installations.
pub(crate) struct Known {
    pins: Mutex<Pins>,
    failed: Mutex<HashMap<String, (Timestamp, ImageError)>>,
    flights: Flights,
    at_work: Semaphore,
    logs: PathBuf,
    /// Rooms in which something is installed: sessions that no store knows.
    rooms: Mutex<HashSet<SessionId>>,
}

impl Known {
    pub(crate) fn open(root: &Path) -> Result<Self, ImageError> {
        let logs = root.join("logs");
        fs::create_dir_all(&logs).map_err(|fault| ImageError::disk(&logs, fault))?;
        Ok(Known {
            pins: Mutex::new(Pins::open(root.join("packages.json"))?),
            failed: Mutex::default(),
            flights: Flights::default(),
            at_work: Semaphore::new(PACKAGE_BUILDS_MAX),
            logs,
            rooms: Mutex::default(),
        })
    }

    /// Layers that are needed although no image has them.
    pub(crate) fn layers(&self, now: Timestamp) -> Result<HashSet<Digest>, ImageError> {
        let mut pins = self.pins.lock();
        pins.expire(now)?;
        Ok(pins.all().values().flat_map(|pin| pin.layers.iter().cloned()).collect())
    }

    /// What failed of late.
    fn failed(&self, key: &str, now: Timestamp) -> Option<ImageError> {
        let mut failed = self.failed.lock();
        failed.retain(|_, (at, _)| now.since_ms(*at) < PACKAGES_PAUSE_MS);
        failed.get(key).map(|(_, fault)| fault.clone())
    }

    fn fail(&self, key: &str, now: Timestamp, fault: &ImageError) {
        let mut failed = self.failed.lock();
        if failed.len() < PACKAGES_FAILED_MAX {
            failed.insert(key.to_owned(), (now, fault.clone()));
        }
    }
}

/// A room in which something is installed, for as long as this lives.
pub struct Building {
    images: Images,
    session: SessionId,
}

impl Drop for Building {
    fn drop(&mut self) {
        self.images.0.packages.rooms.lock().remove(&self.session);
    }
}

impl Images {
    /// Says that this session's room is one in which something is installed, and nobody's orphan.
    pub fn building(&self, session: &SessionId) -> Building {
        self.0.packages.rooms.lock().insert(session.clone());
        Building { images: self.clone(), session: session.clone() }
    }

    pub fn is_building(&self, session: &SessionId) -> bool {
        self.0.packages.rooms.lock().contains(session)
    }

    /// `base`, which is what `source` was resolved to, with packages in it. Installs what is missing; that goes on when nobody
    /// waits for it any more.
    pub async fn furnish(
        &self,
        base: Resolved,
        source: &RootSource,
        packages: &Packages,
        installer: &Arc<dyn Installer>,
        teller: &Teller,
    ) -> Result<Resolved, ImageError> {
        let mut resolved = base;
        let release = match source {
            RootSource::Host => fs::read(HOST_RELEASE).unwrap_or_default(),
            _ => Vec::new(),
        };
        for manager in Manager::ALL {
            let mut names = manager.of(packages).to_vec();
            names.sort_unstable();
            names.dedup();
            if !names.is_empty() {
                let key = self.key(manager, &names, &resolved.root, &release);
                let installed = self.installed(manager, names, key, resolved.clone(), installer, teller).await;
                resolved = installed.map_err(|fault| fault.of(&what(manager)))?;
            }
        }
        Ok(resolved)
    }

    fn key(&self, manager: Manager, names: &[String], root: &RoomRoot, release: &[u8]) -> String {
        let from = self.0.settings.mirrors.of(manager).map(|mirror| mirror.url.as_str());
        let said = format!("{} {} {names:?} {root:?} {from:?} {release:?}", script::VERSION, manager.name());
        Digest::of(said.as_bytes()).hex().to_owned()
    }

    async fn installed(
        &self,
        manager: Manager,
        names: Vec<String>,
        key: String,
        base: Resolved,
        installer: &Arc<dyn Installer>,
        teller: &Teller,
    ) -> Result<Resolved, ImageError> {
        if let Some(resolved) = self.known(manager, &key, &base)? {
            return Ok(resolved);
        }
        let (images, installer, flight) = (self.clone(), Arc::clone(installer), key.clone());
        let work = |teller| async move { images.install(manager, &names, &key, base, installer, teller).await };
        self.0.packages.flights.join(flight, teller, work).await
    }

    fn known(&self, manager: Manager, key: &str, base: &Resolved) -> Result<Option<Resolved>, ImageError> {
        let now = self.0.clock.now();
        // Layers are looked at under the lock that whoever clears up holds.
        let _clearing = self.0.pins.lock();
        let Some(pin) = self.0.packages.pins.lock().want(key, now)? else { return Ok(None) };
        let is_there = self.0.all_there(&pin.layers, now)?;
        Ok(is_there.then(|| self.over(manager, base, &pin.layers)))
    }

    fn over(&self, manager: Manager, base: &Resolved, layers: &[Digest]) -> Resolved {
        let mut paths: Vec<PathBuf> = layers.iter().map(|digest| self.0.layers.path(digest)).collect();
        paths.extend(base.root.layers().iter().filter(|path| !paths.contains(path)).cloned().collect::<Vec<_>>());
        let root = match base.root {
            RoomRoot::Layers(_) => RoomRoot::Layers(paths),
            RoomRoot::Host | RoomRoot::HostWith(_) => RoomRoot::HostWith(paths),
        };
        let mut variables = base.variables.clone();
        for (name, value) in script::variables(manager) {
            if variables.iter().all(|(known, _)| known != name) {
                variables.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        Resolved { root, variables }
    }

    async fn install(
        &self,
        manager: Manager,
        names: &[String],
        key: &str,
        base: Resolved,
        installer: Arc<dyn Installer>,
        teller: Teller,
    ) -> Result<Resolved, ImageError> {
        let known = &self.0.packages;
        let _at_work = place(&known.at_work, &teller, &what(manager)).await?;
        if let Some(resolved) = self.known(manager, key, &base)? {
            return Ok(resolved);
        }
        if let Some(fault) = known.failed(key, self.0.clock.now()) {
            return Err(fault);
        }
        tracing::info!(manager = manager.name(), packages = ?names, key, "installing packages; sessions that want them wait");
        teller.say(Progress::of(Stage::Install, what(manager)));
        let order = self.order(manager, names, &base, teller.clone()).await?;
        let Installed { failure, log, layer } = installer.install(order).await?;
        let (images, name) = (self.clone(), key.to_owned());
        let (path, tail) = blocking(move || images.keep_log(&name, log)).await?;
        let (failure, layer) = match (failure, layer) {
            (None, Some(layer)) => (None, Some(layer)),
            (None, None) => (Some("it left nothing".to_owned()), None),
            (Some(why), _) => (Some(why), None),
        };
        if let Some(why) = failure {
            let told = format!("{why}; its log, `images/logs/{key}.log` in the data directory, ends:\n{tail}");
            tracing::warn!(manager = manager.name(), packages = ?names, log = %path.display(), why, "packages could not be installed");
            let fault = ImageError::packages(told);
            known.fail(key, self.0.clock.now(), &fault);
            return Err(fault);
        }
        let Some(layer) = layer else { return Err(ImageError::packages("it left nothing")) };
        let images = self.clone();
        let total = layer.metadata().ok().map(|about| about.len());
        let count = Count::new(teller, Progress::of(Stage::Unpack, what(manager)), total);
        let layer = Counted { inner: layer, count };
        let digest = blocking(move || {
            let Images(inner) = &images;
            inner.layers.take(layer, &inner.limits, inner.clock.now())
        });
        let digest = digest.await?;
        let now = self.0.clock.now();
        let pin =
            Pin { digest: digest.clone(), layers: vec![digest], variables: Vec::new(), pinned_at: now, wanted_at: now };
        known.pins.lock().set(key, pin.clone())?;
        tracing::info!(manager = manager.name(), packages = ?names, digest = %pin.digest, "packages are installed");
        Ok(self.over(manager, &base, &pin.layers))
    }

    async fn order(
        &self,
        manager: Manager,
        names: &[String],
        base: &Resolved,
        teller: Teller,
    ) -> Result<Order, ImageError> {
        let mirror = self.0.settings.mirrors.of(manager);
        let is_hosts = matches!(base.root, RoomRoot::Host | RoomRoot::HostWith(_));
        let mut files = Vec::new();
        // A room on the host's root does not see what is installed there.
        if manager == Manager::Apt && is_hosts {
            files.push((script::STATUS.to_owned(), blocking(host_status).await?));
        }
        Ok(Order {
            root: base.root.clone(),
            variables: base.variables.clone(),
            script: script::of(manager, names, mirror),
            files,
            hosts: mirror.map(|mirror| mirror.host.clone()).into_iter().collect(),
            ports: mirror.map(|mirror| mirror.port).into_iter().collect(),
            what: what(manager),
            teller,
        })
    }

    /// Keeps what was printed, and answers where, and how it ends. Blocks.
    fn keep_log(&self, key: &str, log: Option<File>) -> Result<(PathBuf, String), ImageError> {
        let logs = &self.0.packages.logs;
        let path = logs.join(format!("{key}.log"));
        let fault = |fault| ImageError::disk(&path, fault);
        let mut bytes = Vec::new();
        if let Some(log) = log {
            log.take(PACKAGES_LOG_BYTES_MAX).read_to_end(&mut bytes).map_err(fault)?;
        }
        fs::write(&path, &bytes).map_err(fault)?;
        make_room(logs).map_err(fault)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().rev().filter(|line| !line.trim().is_empty()).map(shown).collect();
        Ok((path.clone(), lines.into_iter().take(PACKAGES_LOG_LINES).rev().collect::<Vec<_>>().join("\n")))
    }
}

fn what(manager: Manager) -> String {
    format!("packages by {}", manager.name())
}

/// A stranger's line, for a message.
fn shown(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_CHARS_MAX).collect()
}

/// Removes the oldest logs above the number that is kept.
fn make_room(logs: &Path) -> std::io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(logs)? {
        let entry = entry?;
        found.push((entry.metadata()?.modified()?, entry.path()));
    }
    found.sort();
    let more = found.len().saturating_sub(PACKAGES_LOGS_MAX);
    found.into_iter().take(more).try_for_each(|(_, path)| fs::remove_file(path))
}

fn host_status() -> Result<Vec<u8>, ImageError> {
    let mut status = Vec::new();
    match File::open(HOST_STATUS) {
        Ok(file) => file.take(PACKAGES_STATUS_BYTES_MAX).read_to_end(&mut status).map(drop),
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => {
            return Err(ImageError::refused("this host is no Debian; accepted: a root that is an image of one"));
        }
        Err(fault) => Err(fault),
    }
    .map_err(|fault| ImageError::disk(HOST_STATUS, fault))?;
    Ok(status)
}
