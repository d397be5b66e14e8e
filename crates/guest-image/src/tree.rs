//! A file tree that a disk is to have, before it is put together: what is where, and from where on the host.
//!
//! Only what everybody may read is taken, with no set-id bits, no devices and no extended attributes: rooms have one user, and a
//! secret of the host that somebody left among a package's files stays out.

use crate::GuestImageError;
use crate::digest::{self, Key};
use crate::ext4::Extent;
use loopd_domain::limits::GUEST_BASE_LAYERS_MAX;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The permission that counts: everybody's to read.
pub(crate) const READABLE: u32 = 0o004;

/// Entries by their path below the root.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory { mode: u32 },
    File { from: PathBuf, mode: u32, bytes: u64, changed: (i64, i64) },
    Text { content: Vec<u8> },
    Link { to: PathBuf },
}

impl Tree {
    /// All of a directory that is somebody's root file system.
    pub(crate) fn of_directory(root: &Path) -> Result<Self, GuestImageError> {
        let mut tree = Tree::default();
        tree.add_all(root, Path::new(""))?;
        Ok(tree)
    }

    /// Layers of one, the uppermost first, as overlayfs would show them.
    pub(crate) fn of_layers(layers: &[PathBuf]) -> Result<Self, GuestImageError> {
        if layers.is_empty() || layers.len() > GUEST_BASE_LAYERS_MAX {
            return Err(GuestImageError::broken(format!(
                "{} layers: 1 to {GUEST_BASE_LAYERS_MAX} are accepted",
                layers.len()
            )));
        }
        let mut tree = Tree::default();
        for layer in layers.iter().rev() {
            tree.lay_over(layer, Path::new(""))?;
        }
        Ok(tree)
    }

    pub(crate) fn contains(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(PathBuf::as_path)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.values().map(Entry::bytes).sum()
    }

    /// Puts an entry there, and directories above it where there are none.
    pub(crate) fn put(&mut self, path: impl Into<PathBuf>, entry: Entry) -> Result<(), GuestImageError> {
        let path = path.into();
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            match self.entries.get(above) {
                Some(Entry::Directory { .. }) => break,
                Some(_) => {
                    return Err(GuestImageError::broken(format!(
                        "`{}`: `{}`, in which it lies, is no directory",
                        path.display(),
                        above.display()
                    )));
                }
                None => drop(self.entries.insert(above.to_owned(), Entry::Directory { mode: 0o755 })),
            }
        }
        crate::within_entries(self.entries.len(), &path)?;
        self.entries.insert(path, entry);
        Ok(())
    }

    /// Takes `from` of the host to `path`, if it is there and of a kind that can be taken.
    pub(crate) fn add(&mut self, from: &Path, path: &Path) -> Result<bool, GuestImageError> {
        match Entry::of(from)? {
            Some(entry) => self.put(path, entry).map(|()| true),
            None => Ok(false),
        }
    }

    /// All below `from` to below `path`.
    pub(crate) fn add_all(&mut self, from: &Path, path: &Path) -> Result<(), GuestImageError> {
        for name in names(from)? {
            let (from, path) = (from.join(&name), path.join(&name));
            let is_taken = self.add(&from, &path)?;
            if is_taken && matches!(self.entries[&path], Entry::Directory { .. }) {
                self.add_all(&from, &path)?;
            }
        }
        Ok(())
    }

    /// Lays a layer over what is there, as overlayfs would (ADR 7).
    fn lay_over(&mut self, layer: &Path, path: &Path) -> Result<(), GuestImageError> {
        for name in names(layer)? {
            let (from, path) = (layer.join(&name), path.join(&name));
            let about = fs::symlink_metadata(&from).map_err(GuestImageError::disk(&from))?;
            if about.file_type().is_char_device() && about.rdev() == 0 {
                self.remove(&path);
                continue;
            }
            let was_directory = matches!(self.entries.get(&path), Some(Entry::Directory { .. }));
            if !(about.is_dir() && was_directory && !is_opaque(&from)?) {
                self.remove(&path);
            }
            if self.add(&from, &path)? && about.is_dir() {
                self.lay_over(&from, &path)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &Path) {
        self.entries.remove(path);
        let below: Vec<PathBuf> = self
            .entries
            .range(path.to_owned()..)
            .map(|(below, _)| below)
            .take_while(|below| below.starts_with(path))
            .cloned()
            .collect();
        for below in below {
            self.entries.remove(&below);
        }
    }

    /// What is in it, as far as that can be told without reading all of it.
    pub(crate) fn key(&self) -> String {
        let Ok(key) = self.key_by(|key, from, mode, (bytes, changed)| {
            key.add(from.as_os_str().as_bytes());
            key.add(format!("file {mode:o} {bytes} {}.{}", changed.0, changed.1).as_bytes());
            Ok::<_, Infallible>(())
        });
        key
    }

    /// The same from what the files hold, for a tree that lies somewhere else each time, as an image does that was just unpacked.
    pub(crate) fn key_of_content(&self) -> Result<String, GuestImageError> {
        self.key_by(|key, from, mode, _| {
            let content = digest::of_file(from).map_err(GuestImageError::disk(from))?;
            key.add(format!("file {mode:o} {content}").as_bytes());
            Ok(())
        })
    }

    /// `file`: as what a file counts, from where it lies, its mode, its bytes and when it was changed.
    fn key_by<E>(&self, file: impl Fn(&mut Key, &Path, u32, (u64, (i64, i64))) -> Result<(), E>) -> Result<String, E> {
        let mut key = Key::default();
        for (path, entry) in &self.entries {
            key.add(path.as_os_str().as_bytes());
            match entry {
                Entry::Directory { mode } => key.add(format!("directory {mode:o}").as_bytes()),
                Entry::File { from, mode, bytes, changed } => file(&mut key, from, *mode, (*bytes, *changed))?,
                Entry::Text { content } => key.add(content),
                Entry::Link { to } => key.add(to.as_os_str().as_bytes()),
            }
        }
        Ok(key.hex())
    }

    pub(crate) fn extent(&self) -> Extent {
        let mut extent = Extent::default();
        for (path, entry) in &self.entries {
            extent.add(entry.bytes());
            // A name in its directory: what a directory takes is not known before it is made.
            extent.bytes += 2 * path.file_name().map_or(0, OsStr::len) as u64 + 32;
        }
        extent
    }

    /// Makes it below `into`, which is an empty directory.
    pub(crate) fn make(&self, into: &Path) -> Result<(), GuestImageError> {
        let mut directories = Vec::new();
        // A directory comes before what is in it.
        for (path, entry) in &self.entries {
            let to = into.join(path);
            let made = match entry {
                Entry::Directory { mode } => {
                    directories.push((to.clone(), *mode));
                    fs::create_dir(&to)
                }
                Entry::File { from, mode, .. } => fs::copy(from, &to)
                    .map_err(|fault| io::Error::new(fault.kind(), format!("copying `{}`: {fault}", from.display())))
                    .and_then(|_| fs::set_permissions(&to, Permissions::from_mode(*mode))),
                Entry::Text { content } => {
                    fs::write(&to, content).and_then(|()| fs::set_permissions(&to, Permissions::from_mode(0o644)))
                }
                Entry::Link { to: target } => symlink(target, &to),
            };
            made.map_err(GuestImageError::disk(to))?;
        }
        // One that its owner may not write to could not be filled.
        for (path, mode) in directories.into_iter().rev() {
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(GuestImageError::disk(path))?;
        }
        Ok(())
    }
}

impl Entry {
    /// `None`: nothing is there, or nothing that is taken.
    fn of(from: &Path) -> Result<Option<Self>, GuestImageError> {
        let about = match fs::symlink_metadata(from) {
            Ok(about) => about,
            Err(fault) if matches!(fault.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(fault) => return Err(GuestImageError::disk(from)(fault)),
        };
        if about.is_symlink() {
            let to = fs::read_link(from).map_err(GuestImageError::disk(from))?;
            return Ok(Some(Entry::Link { to }));
        }
        if about.mode() & READABLE == 0 {
            return Ok(None);
        }
        Ok(match about.is_dir() {
            true => Some(Entry::Directory { mode: about.mode() & 0o1777 | 0o700 }),
            false if about.is_file() => Some(Entry::File {
                from: from.to_owned(),
                mode: about.mode() & 0o777 | 0o400,
                bytes: about.len(),
                changed: (about.mtime(), about.mtime_nsec()),
            }),
            false => None,
        })
    }

    fn bytes(&self) -> u64 {
        match self {
            Entry::Directory { .. } => 1,
            Entry::File { bytes, .. } => *bytes,
            Entry::Text { content } => content.len() as u64,
            Entry::Link { to } => to.as_os_str().len() as u64,
        }
    }
}

fn names(directory: &Path) -> Result<Vec<std::ffi::OsString>, GuestImageError> {
    let entries = fs::read_dir(directory).map_err(GuestImageError::disk(directory))?;
    let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(GuestImageError::disk(directory))?;
    names.sort();
    Ok(names)
}

fn is_opaque(directory: &Path) -> Result<bool, GuestImageError> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(directory, "user.overlay.opaque", &mut value) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(rustix::io::Errno::RANGE) => Ok(false),
        Err(errno) => Err(GuestImageError::disk(directory)(errno.into())),
    }
}
