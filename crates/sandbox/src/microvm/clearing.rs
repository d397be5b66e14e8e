//! Images, disks of layers and templates that nothing needs any more go. Kept is what
//!
//! - the current image is made of, which `loopd_guest_image` knows;
//! - a machine is made of that lives, sleeps, waits, or is being started: its place says so ([`super::made`], the note of a suspension);
//! - was wanted of late, by whoever is about to start a machine of it, on this server or another one on the same data.
//!
//! A template is nothing without the image that it was made of: one whose files are gone goes as well.

use super::vmm::Shape;
use super::{Machines, made, secrets};
use crate::room::ending;
use crate::room::place::Place;
use crate::room::process::Process;
use crate::room::removal;
use loopd_domain::limits::LAYER_GRACE_MS;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

const GRACE: Duration = Duration::from_millis(LAYER_GRACE_MS);

/// It was wanted now.
pub(super) fn touch(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    // Another server may remove it; then it does not come up, and is made again.
    let _ = rustix::fs::utimensat(CWD, path, &times, AtFlags::empty());
}

/// Whether somebody wanted it a moment ago. What cannot be asked is left alone.
fn is_fresh(path: &Path) -> bool {
    let now = UNIX_EPOCH + Duration::from_nanos(secrets::now_ns());
    match fs::metadata(path).and_then(|about| about.modified()) {
        // A time to come is a clock that was set back.
        Ok(wanted) => now.duration_since(wanted).is_ok_and(|age| age < GRACE),
        Err(_) => true,
    }
}

impl Machines {
    /// Removes what nothing needs. Blocks.
    pub(super) fn clear_images(&self) {
        match self.clear() {
            Ok((0, 0)) => {}
            Ok((images, templates)) => {
                tracing::info!(images, templates, "parts of images that no machine needs were removed");
            }
            Err(fault) => tracing::warn!(%fault, "images of guests could not be cleared up"),
        }
    }

    fn clear(&self) -> io::Result<(usize, usize)> {
        // Where one cannot be read, nothing is known to be needless.
        let used = self.used()?;
        let is_used = |path: &Path| used.contains(path) || is_fresh(path);
        let removed = self.images.collect(&is_used).map_err(io::Error::other)?;
        Ok((removed, self.templates.clear(is_fresh)?))
    }

    /// What machines are made of that are, or can come back.
    fn used(&self) -> io::Result<HashSet<PathBuf>> {
        let mut used = HashSet::new();
        let mut add = |shape: Shape| used.extend(made::files(&shape).cloned());
        for session in self.data.with_places().map_err(io::Error::other)? {
            let place = self.data.place(&session);
            if self.may_live(&place)?
                && let Some(shape) = made::peek(&place)?
            {
                add(shape);
            }
            if let Some(suspension) = self.asleep(&place) {
                add(suspension.shape);
            }
        }
        for place in self.grounds.places()? {
            if let Some(shape) = made::peek(&place)? {
                add(shape);
            }
        }
        Ok(used)
    }

    /// A machine that lives, or is being started.
    fn may_live(&self, place: &Path) -> io::Result<bool> {
        let Some(record) = Place::peek(place)? else { return Ok(false) };
        let is_starting = record.process == Process::UNKNOWN && record.boot == self.boot;
        Ok(is_starting || ending::living(&record, &self.boot)?.is_some())
    }
}

/// The names in a directory, which may not be there.
pub(super) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(absent) if matches!(absent.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        other => other?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Removes templates of which no machine can be made any more, but for those that were wanted, or begun, a moment ago.
pub(super) fn clear_templates(root: &Path, is_fresh: impl Fn(&Path) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for template in list(root)? {
        let is_whole = made::peek(&template)?.is_some_and(|shape| made::files(&shape).all(|path| path.exists()));
        if !is_whole && !is_fresh(&template) {
            removal::remove(&template)?;
            removed += 1;
        }
    }
    Ok(removed)
}
