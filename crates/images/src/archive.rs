//! An image in one file on the host, as `docker save`, `podman save` or `skopeo copy … oci-archive:` write it.
//!
//! The file is read where its entries lie; nothing of it is unpacked but layers that are not there yet. Of the two layouts the
//! one of OCI is preferred where a file has both.

use crate::ImageError;
use crate::digest::{Digest, Hashing};
use crate::document::{Config, Descriptor, Index, Manifest, parse};
use loopd_domain::limits::{IMAGE_ARCHIVE_ENTRIES_MAX, IMAGE_DOCUMENT_BYTES_MAX};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tar::EntryType;

const OCI_INDEX: &str = "index.json";
const DOCKER_MANIFEST: &str = "manifest.json";
/// Indexes that may stand within indexes.
const NESTED_MAX: u32 = 3;

/// An archive that has been looked through.
pub(crate) struct Archive {
    file: File,
    entries: HashMap<String, Entry>,
}

#[derive(Clone)]
enum Entry {
    /// Where its bytes begin, and how many they are.
    File {
        at: u64,
        size: u64,
    },
    Link(String),
}

/// `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    layers: Vec<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

/// What the archive holds.
pub(crate) struct Contents {
    pub config: Config,
    /// Names of the layers' entries, in the order of [`Config::layers`].
    pub layers: Vec<String>,
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let mut file = File::open(path).map_err(|fault| ImageError::unavailable(format!("opening it: {fault}")))?;
        let kind = file.metadata().map_err(|fault| ImageError::unavailable(format!("opening it: {fault}")))?;
        if !kind.is_file() {
            return Err(ImageError::refused("it is not a file"));
        }
        let mut head = [0; 2];
        if file.read_exact(&mut head).is_ok() && head == [0x1f, 0x8b] {
            return Err(ImageError::refused(
                "it is compressed as a whole; accepted: a plain archive, unpack it with `gunzip`",
            ));
        }
        let entries = entries(&mut file).map_err(|fault| ImageError::broken(format!("it is no archive: {fault}")))?;
        Ok(Archive { file, entries })
    }

    pub(crate) fn contents(&self) -> Result<Contents, ImageError> {
        if self.entries.contains_key(OCI_INDEX) {
            return self.oci();
        }
        if self.entries.contains_key(DOCKER_MANIFEST) {
            return self.docker();
        }
        Err(ImageError::broken(format!(
            "it has neither `{OCI_INDEX}` nor `{DOCKER_MANIFEST}`; accepted: an image's archive"
        )))
    }

    fn oci(&self) -> Result<Contents, ImageError> {
        let mut index: Index = parse("index", &self.document(OCI_INDEX, None)?)?;
        for _ in 0..NESTED_MAX {
            let picked = index.pick()?;
            let bytes = self.blob(picked)?;
            if picked.media_type.contains("index") || picked.media_type.contains("manifest.list") {
                index = parse("index", &bytes)?;
                continue;
            }
            let manifest: Manifest = parse("manifest", &bytes)?;
            manifest.check()?;
            let config = Config::parse(&self.blob(&manifest.config)?)?;
            return contents(config, manifest.layers.iter().map(|layer| blob(&layer.digest)).collect());
        }
        Err(ImageError::broken("its indexes are nested too deep"))
    }

    fn docker(&self) -> Result<Contents, ImageError> {
        let images: Vec<DockerImage> = parse("manifest", &self.document(DOCKER_MANIFEST, None)?)?;
        match images.as_slice() {
            [image] => contents(Config::parse(&self.document(&image.config, None)?)?, image.layers.clone()),
            several => {
                let tags = several.iter().flat_map(|image| image.repo_tags.iter().flatten()).take(8);
                let tags = tags.map(|tag| tag.escape_debug().to_string()).collect::<Vec<_>>().join(", ");
                Err(ImageError::refused(format!(
                    "it holds {} images ({tags}); accepted: an archive of one",
                    several.len()
                )))
            }
        }
    }

    fn blob(&self, of: &Descriptor) -> Result<Vec<u8>, ImageError> {
        self.document(&blob(&of.digest), Some(&of.digest))
    }

    /// The whole of a short entry.
    fn document(&self, name: &str, digest: Option<&Digest>) -> Result<Vec<u8>, ImageError> {
        let reader = self.read(name)?;
        if reader.left > IMAGE_DOCUMENT_BYTES_MAX {
            let told = format!("its `{}` has {} bytes; accepted: {IMAGE_DOCUMENT_BYTES_MAX}", shown(name), reader.left);
            return Err(ImageError::broken(told));
        }
        let mut bytes = Vec::new();
        let mut reader = Hashing::new(reader, IMAGE_DOCUMENT_BYTES_MAX);
        let read = |fault: io::Error| ImageError::broken(format!("its `{}`: {fault}", shown(name)));
        reader.read_to_end(&mut bytes).map_err(read)?;
        let found = reader.drain().map_err(read)?;
        match digest {
            Some(wanted) if *wanted != found => {
                Err(ImageError::broken(format!("its `{}` has the digest {found}", shown(name))))
            }
            _ => Ok(bytes),
        }
    }

    /// An entry's bytes. Several may be read at the same time.
    pub(crate) fn read(&self, name: &str) -> Result<Part<'_>, ImageError> {
        let mut name = normal(name);
        // Old archives name a layer that occurs twice by a link.
        for _ in 0..2 {
            match self.entries.get(&name) {
                Some(Entry::File { at, size }) => return Ok(Part { file: &self.file, at: *at, left: *size }),
                Some(Entry::Link(target)) => name = target.clone(),
                None => break,
            }
        }
        Err(ImageError::broken(format!("it has no file `{}`", shown(&name))))
    }
}

fn contents(config: Config, layers: Vec<String>) -> Result<Contents, ImageError> {
    match layers.len() == config.layers.len() {
        true => Ok(Contents { config, layers }),
        false => Err(ImageError::broken(format!(
            "it has {} layers, and its configuration names {}",
            layers.len(),
            config.layers.len()
        ))),
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Characters of a stranger's name that a message shows.
fn shown(name: &str) -> String {
    name.escape_debug().to_string().chars().take(100).collect()
}

/// `./a//b` and `a/c/../b` are `a/b`. A name is only looked up among the entries, so it can lead nowhere else.
fn normal(name: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in name.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

fn entries(file: &mut File) -> io::Result<HashMap<String, Entry>> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut found = HashMap::new();
    let mut archive = tar::Archive::new(file);
    for (number, entry) in archive.entries_with_seek()?.raw(true).enumerate() {
        let entry = entry?;
        if number >= IMAGE_ARCHIVE_ENTRIES_MAX {
            return Err(io::Error::other(format!("it has more than {IMAGE_ARCHIVE_ENTRIES_MAX} entries")));
        }
        let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
        let (at, size) = (entry.raw_file_position(), entry.header().entry_size()?);
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous if at.checked_add(size).is_some_and(|end| end <= length) => {
                Entry::File { at, size }
            }
            EntryType::Regular | EntryType::Continuous => return Err(io::ErrorKind::UnexpectedEof.into()),
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target);
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                Entry::Link(normal(&format!("{parent}/{target}")))
            }
            _ => continue,
        };
        found.insert(name, kind);
    }
    Ok(found)
}

/// A stretch of the file.
pub(crate) struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let length = self.file.read_at(&mut into[..most], self.at)?;
        if length == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}
