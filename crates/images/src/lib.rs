//! Root file systems of rooms: an environment's [`RootSource`] becomes directories that a room can be made of.
//!
//! ```text
//!  Host       ─► the host's own `/usr`: nothing to do
//!  Directory  ─► below what the operator allows, used in place
//!  Image      ─► registry ─► pin (reference → digest, once) ─► layers that are missing: fetch, unpack ─┐
//!  Archive    ─► a file on the host ───────────────────────► layers that are missing: unpack ──────────┴─► layers by digest
//!  packages over any of them ─► a room that installs ([`packages`]) ─► one layer more for each manager
//! ```
//!
//! Layers lie in `<data>/images/`, each under the digest of its content ([`layers`]), and are shared by all images and all rooms;
//! each becomes one lower directory of a room's overlay. What several sessions want at the same time is fetched once, and goes on
//! when those who asked have gone. Everything in an image is a stranger's: see [`unpack`] for what is taken of it.
//!
//! Not here: how a root is mounted, and what a room adds to it (`loopd_jail`); when a session wants one (`loopd_session`).

mod archive;
pub mod digest;
mod document;
mod error;
mod flights;
mod layers;
pub mod packages;
mod pins;
mod registry;
mod settings;
mod telling;
pub mod unpack;

pub use error::{ImageError, ImageErrorKind};
pub use pins::Pin;
pub use settings::{Mirror, Mirrors, REGISTRIES_DEFAULT, Settings};

use archive::{Archive, Contents};
use digest::Digest;
use document::Config;
use flights::Flights;
use layers::Layers;
use loopd_domain::environment::RootSource;
use loopd_domain::limits::{IMAGE_REFERENCE_CHARS_MAX, IMAGES_AT_WORK_MAX, LAYER_GRACE_MS};
use loopd_domain::progress::{Progress, Stage};
use loopd_domain::{Clock, Timestamp};
use loopd_sandbox::RoomRoot;
use loopd_sandbox::progress::Teller;
use oci_spec::distribution::Reference;
use parking_lot::Mutex;
use pins::Pins;
use registry::Registry;
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use telling::{Count, Counted};
use tokio::sync::{Semaphore, SemaphorePermit};
use unpack::Limits;

/// What a room is made of, and what programs in it find in their environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    pub root: RoomRoot,
    /// Of the image. What a room sets itself is not among them.
    pub variables: Vec<(String, String)>,
}

/// All root file systems of a host. Cheap to clone.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    settings: Settings,
    limits: Limits,
    layers: Layers,
    pins: Mutex<Pins>,
    registry: Registry,
    clock: Arc<dyn Clock>,
    flights: Flights,
    at_work: Semaphore,
    packages: packages::Known,
}

/// What clearing up came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    pub removed: usize,
    pub kept: usize,
}

impl Images {
    /// `data`: the host's data directory, of which this has `images/` to itself.
    pub fn open(data: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, ImageError> {
        Self::with_limits(data, settings, clock, Limits::default())
    }

    /// With other limits of a layer: a test's.
    pub fn with_limits(
        data: &Path,
        settings: Settings,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, ImageError> {
        let root = data.join("images");
        fs::create_dir_all(&root).map_err(|fault| ImageError::disk(&root, fault))?;
        settings.keep_apart(data)?;
        let layers = Layers::open(root.clone()).map_err(|fault| ImageError::disk(&root, fault))?;
        let pins = Mutex::new(Pins::open(root.join("pins.json"))?);
        let registry = Registry::new(&settings);
        let at_work = Semaphore::new(IMAGES_AT_WORK_MAX);
        let packages = packages::Known::open(&root)?;
        Ok(Images(Arc::new(Inner {
            settings,
            limits,
            layers,
            pins,
            registry,
            clock,
            flights: Flights::default(),
            at_work,
            packages,
        })))
    }

    /// What an environment's root is, without its packages ([`Images::furnish`]). Fetches and unpacks what is missing; that goes on when nobody waits for it any more.
    /// `teller` hears how far that is.
    pub async fn resolve(&self, source: &RootSource, teller: &Teller) -> Result<Resolved, ImageError> {
        match source {
            RootSource::Host => Ok(Resolved::default()),
            RootSource::Directory { path } => {
                self.directory(path).map_err(|fault| fault.of(&format!("root directory `{path}`")))
            }
            RootSource::Image { reference } => {
                self.image(reference, teller).await.map_err(|fault| fault.of(&format!("image `{reference}`")))
            }
            RootSource::Archive { path } => {
                self.archive(path, teller).await.map_err(|fault| fault.of(&format!("image archive `{path}`")))
            }
        }
    }

    /// Whether this host would try: what an environment says can be read, and its operator allows it. Asks no registry.
    pub fn check(&self, source: &RootSource) -> Result<(), ImageError> {
        let settings = &self.0.settings;
        match source {
            RootSource::Host => Ok(()),
            RootSource::Image { reference } => parse(reference).and_then(|reference| self.0.allow(&reference)),
            RootSource::Directory { path } => self.directory(path).map(drop),
            RootSource::Archive { path } => settings.locate(path).map(drop),
        }
    }

    /// What is known of a root that a living room was made of: nothing is fetched.
    pub fn variables(&self, source: &RootSource) -> Vec<(String, String)> {
        let RootSource::Image { reference } = source else { return Vec::new() };
        let Ok(reference) = parse(reference) else { return Vec::new() };
        self.0.pins.lock().all().get(&reference.whole()).map(|pin| pin.variables.clone()).unwrap_or_default()
    }

    fn directory(&self, path: &str) -> Result<Resolved, ImageError> {
        let path = self.0.settings.locate(path)?;
        match path.is_dir() {
            true => Ok(Resolved { root: RoomRoot::Layers(vec![path]), variables: Vec::new() }),
            false => Err(ImageError::refused("it is not a directory")),
        }
    }

    async fn image(&self, reference: &str, teller: &Teller) -> Result<Resolved, ImageError> {
        let reference = parse(reference)?;
        self.0.allow(&reference)?;
        if let Some(resolved) = self.0.pinned(&reference)? {
            return Ok(resolved);
        }
        let inner = Arc::clone(&self.0);
        let key = reference.whole();
        self.0.flights.join(key, teller, |teller| async move { inner.pull(&reference, false, &teller).await }).await
    }

    async fn archive(&self, path: &str, teller: &Teller) -> Result<Resolved, ImageError> {
        let path = self.0.settings.locate(path)?;
        let inner = Arc::clone(&self.0);
        let key = format!("archive {}", path.display());
        self.0.flights.join(key, teller, |teller| async move { inner.load(path, &teller).await }).await
    }

    /// Asks the registry what a reference means now, and has it here. Rooms that are made from now on are of that.
    /// Answers the whole reference, and what it means.
    pub async fn pull(&self, reference: &str) -> Result<(String, Pin), ImageError> {
        let parsed = parse(reference).and_then(|parsed| self.0.allow(&parsed).map(|()| parsed));
        let parsed = parsed.map_err(|fault| fault.of(&format!("image `{reference}`")))?;
        let (inner, name) = (Arc::clone(&self.0), parsed.whole());
        let work = |teller| async move { inner.pull(&parsed, true, &teller).await };
        let pulled = self.0.flights.join(format!("pull {name}"), &Teller::silent(), work).await;
        pulled.map_err(|fault| fault.of(&format!("image `{reference}`")))?;
        let pin = self.0.pins.lock().all().get(&name).cloned();
        let removed = || ImageError::unavailable(format!("image `{reference}`: it was removed meanwhile"));
        Ok((name, pin.ok_or_else(removed)?))
    }

    /// References and what they mean.
    pub fn list(&self) -> Vec<(String, Pin)> {
        self.0.pins.lock().all().iter().map(|(name, pin)| (name.clone(), pin.clone())).collect()
    }

    /// Forgets what a reference means. Its layers go when nothing else needs them. `false`: it was not known.
    pub fn remove(&self, reference: &str) -> Result<bool, ImageError> {
        self.0.pins.lock().remove(&parse(reference)?.whole())
    }

    /// Removes layers that no pinned image has, that no room in `in_use` is made of, and that nobody has wanted of late.
    /// Blocks.
    pub fn collect(&self, in_use: &[PathBuf]) -> Result<Collected, ImageError> {
        let inner = &self.0;
        let now = inner.clock.now();
        let mut pins = inner.pins.lock();
        pins.expire(now)?;
        let mut pinned: HashSet<Digest> = pins.all().values().flat_map(|pin| pin.layers.iter().cloned()).collect();
        pinned.extend(inner.packages.layers(now)?);
        let fault = |fault| ImageError::disk(inner.layers.root(), fault);
        let mut collected = Collected::default();
        for (digest, wanted) in inner.layers.list().map_err(fault)? {
            let path = inner.layers.path(&digest);
            if pinned.contains(&digest) || in_use.contains(&path) || now.since_ms(wanted) < LAYER_GRACE_MS {
                collected.kept += 1;
                continue;
            }
            inner.layers.remove(&digest).map_err(fault)?;
            collected.removed += 1;
        }
        Ok(collected)
    }
}

impl Inner {
    fn allow(&self, reference: &Reference) -> Result<(), ImageError> {
        let registries = &self.settings.registries;
        match registries.iter().any(|allowed| allowed == reference.registry()) {
            true => Ok(()),
            false => Err(ImageError::refused(format!(
                "registry `{}` is not one that this host asks: `{}`; its operator names them in `[images] allow_registries`",
                reference.registry(),
                registries.join("`, `")
            ))),
        }
    }

    /// An image that is known and whole.
    fn pinned(&self, reference: &Reference) -> Result<Option<Resolved>, ImageError> {
        let now = self.clock.now();
        // Layers are looked at under the lock that whoever clears up holds.
        let mut pins = self.pins.lock();
        let Some(pin) = pins.want(&reference.whole(), now)? else { return Ok(None) };
        match self.all_there(&pin.layers, now)? {
            true => Ok(Some(self.resolved(&pin.layers, pin.variables))),
            false => Ok(None),
        }
    }

    fn all_there(&self, layers: &[Digest], now: Timestamp) -> Result<bool, ImageError> {
        for digest in layers {
            if !self.layers.has(digest, now).map_err(|fault| ImageError::disk(self.layers.path(digest), fault))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The uppermost layer first, and each once: what a lower one says again, an upper one has said.
    fn resolved(&self, layers: &[Digest], variables: Vec<(String, String)>) -> Resolved {
        let mut seen = HashSet::new();
        let paths = layers.iter().rev().filter(|digest| seen.insert(*digest)).map(|digest| self.layers.path(digest));
        Resolved { root: RoomRoot::Layers(paths.collect()), variables }
    }

    /// Finds out what a reference means, unless that is known and will do, and has all its layers here.
    async fn pull(self: Arc<Self>, reference: &Reference, anew: bool, teller: &Teller) -> Result<Resolved, ImageError> {
        let what = format!("image `{}`", reference.whole());
        let _at_work = place(&self.at_work, teller, &what).await?;
        if !anew && let Some(resolved) = self.pinned(reference)? {
            return Ok(resolved);
        }
        let name = reference.whole();
        let login = registry::credentials(self.settings.docker_config.as_deref(), reference.registry())?;
        // What was pinned and has been removed from the cache comes back as what it was.
        let known = if anew { None } else { self.pins.lock().all().get(&name).map(|pin| pin.digest.clone()) };
        let asked = known.map_or_else(|| reference.clone(), |digest| reference.clone_with_digest(digest.to_string()));
        tracing::info!(image = %asked, "asking a registry for an image");
        teller.say(Progress::of(Stage::Find, &what));
        let registry = self.registry.connect(reference, login)?;
        let found = registry.find(&asked).await?;
        let (mut left, parts) = (self.limits.bytes, found.packed.len());
        for (number, (digest, (packed, size))) in found.config.layers.iter().zip(&found.packed).enumerate() {
            if self
                .layers
                .has(digest, self.clock.now())
                .map_err(|fault| ImageError::disk(self.layers.path(digest), fault))?
            {
                continue;
            }
            tracing::info!(image = %asked, layer = number + 1, of = parts, bytes = size, "fetching a layer");
            let work = self.layers.work().map_err(|fault| ImageError::disk(self.layers.root(), fault))?;
            let file = work.path().join("packed");
            let progress = |stage| Progress::of(stage, &what).part(number + 1, parts);
            let count = Count::new(teller.clone(), progress(Stage::Pull), Some(*size));
            registry.fetch(packed, *size, &file, count).await?;
            let count = Count::new(teller.clone(), progress(Stage::Unpack), Some(*size));
            let (inner, digest, limits) = (Arc::clone(&self), digest.clone(), Limits { bytes: left, ..self.limits });
            let added = blocking(move || {
                let packed = File::open(&file).map_err(|fault| ImageError::disk(&file, fault))?;
                let packed = Counted { inner: packed, count };
                let added = inner.layers.add(&digest, packed, &limits, inner.clock.now());
                drop(work);
                added
            });
            left = left.saturating_sub(added.await?.map_or(0, |unpacked| unpacked.bytes));
        }
        let now = self.clock.now();
        let Config { layers, variables } = found.config;
        let pin = Pin { digest: found.digest, layers, variables, pinned_at: now, wanted_at: now };
        self.pins.lock().set(&name, pin.clone())?;
        tracing::info!(image = %name, digest = %pin.digest, layers = pin.layers.len(), "an image is here");
        Ok(self.resolved(&pin.layers, pin.variables))
    }

    /// Has all layers of an archive here.
    async fn load(self: Arc<Self>, path: PathBuf, teller: &Teller) -> Result<Resolved, ImageError> {
        let what = format!("image archive `{}`", path.display());
        let inner = Arc::clone(&self);
        let (archive, contents, is_whole) = blocking(move || {
            let archive = Archive::open(&path)?;
            let contents = archive.contents()?;
            let is_whole = inner.all_there(&contents.config.layers, inner.clock.now())?;
            Ok((archive, contents, is_whole))
        })
        .await?;
        let Contents { config, layers: names } = contents;
        let resolved = self.resolved(&config.layers, config.variables);
        if is_whole {
            return Ok(resolved);
        }
        let _at_work = place(&self.at_work, teller, &what).await?;
        let (inner, teller) = (Arc::clone(&self), teller.clone());
        blocking(move || {
            let mut left = inner.limits.bytes;
            for (number, (digest, name)) in config.layers.iter().zip(&names).enumerate() {
                let limits = Limits { bytes: left, ..inner.limits };
                let progress = Progress::of(Stage::Unpack, &what).part(number + 1, names.len());
                let count = Count::new(teller.clone(), progress, None);
                let packed = Counted { inner: archive.read(name)?, count };
                let added = inner.layers.add(digest, packed, &limits, inner.clock.now())?;
                left = left.saturating_sub(added.map_or(0, |unpacked| unpacked.bytes));
            }
            Ok(())
        })
        .await?;
        Ok(resolved)
    }
}

/// A place among those at work. Whoever has to wait for one says so.
async fn place<'a>(places: &'a Semaphore, teller: &Teller, what: &str) -> Result<SemaphorePermit<'a>, ImageError> {
    if places.available_permits() == 0 {
        teller.say(Progress::of(Stage::Queue, what));
    }
    places.acquire().await.map_err(|closed| ImageError::unavailable(closed.to_string()))
}

fn parse(reference: &str) -> Result<Reference, ImageError> {
    if reference.len() > IMAGE_REFERENCE_CHARS_MAX {
        return Err(ImageError::refused(format!("a reference has up to {IMAGE_REFERENCE_CHARS_MAX} characters")));
    }
    let parsed: Reference = reference.parse().map_err(|fault| {
        ImageError::refused(format!("{fault}; accepted: `debian:12`, `ghcr.io/org/name:tag`, `host/name@sha256:…`"))
    })?;
    match parsed.digest() {
        Some(digest) if Digest::parse(digest).is_none() => {
            Err(ImageError::refused(format!("its digest is `{digest}`; accepted: SHA-256")))
        }
        _ => Ok(parsed),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|stopped| ImageError::unavailable(format!("it was stopped: {stopped}")))?
}

/// Without symbolic links, as [`Settings`] wants it.
pub fn real_directory(path: &Path) -> std::io::Result<PathBuf> {
    let path = fs::canonicalize(path)?;
    match path.is_dir() {
        true => Ok(path),
        false => Err(std::io::ErrorKind::NotADirectory.into()),
    }
}
