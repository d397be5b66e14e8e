//! Which content a reference means. A tag is asked for once; from then on it means what it meant, until the operator asks again.

use crate::ImageError;
use crate::digest::Digest;
use crate::layers::sync;
use loopd_domain::Timestamp;
use loopd_domain::limits::{IMAGE_DOCUMENT_BYTES_MAX, IMAGE_PINS_MAX, IMAGE_UNUSED_MS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Wanted this much later, the time of the last want is written down again.
const WANTED_STEP_MS: u64 = 3_600_000;
/// Pins are written with generous room for each.
const BYTES_MAX: u64 = IMAGE_PINS_MAX as u64 * (IMAGE_DOCUMENT_BYTES_MAX >> 4);

/// What a reference means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Of the manifest, or of the index that led to it.
    pub digest: Digest,
    /// From the lowest up.
    pub layers: Vec<Digest>,
    pub variables: Vec<(String, String)>,
    pub pinned_at: Timestamp,
    pub wanted_at: Timestamp,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    images: BTreeMap<String, Pin>,
}

const VERSION: u32 = 1;

/// All pins, in memory and in a file that is always whole.
pub(crate) struct Pins {
    path: PathBuf,
    images: BTreeMap<String, Pin>,
}

impl Pins {
    pub(crate) fn open(path: PathBuf) -> Result<Self, ImageError> {
        let images = match fs::metadata(&path) {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(fault) => return Err(ImageError::disk(path, fault)),
            Ok(found) if found.len() > BYTES_MAX => {
                return Err(ImageError::disk(
                    path,
                    io::Error::other("it is too long; remove it, and images are fetched again"),
                ));
            }
            Ok(_) => {
                let bytes = fs::read(&path).map_err(|fault| ImageError::disk(&path, fault))?;
                let told = |fault: String| {
                    ImageError::disk(
                        &path,
                        io::Error::other(format!("{fault}; remove it, and images are fetched again")),
                    )
                };
                let document: Document = serde_json::from_slice(&bytes).map_err(|fault| told(fault.to_string()))?;
                if document.version != VERSION {
                    return Err(told(format!("it is of version {}; accepted: {VERSION}", document.version)));
                }
                document.images
            }
        };
        Ok(Pins { path, images })
    }

    pub(crate) fn all(&self) -> &BTreeMap<String, Pin> {
        &self.images
    }

    /// What a reference means, wanted now.
    pub(crate) fn want(&mut self, reference: &str, now: Timestamp) -> Result<Option<Pin>, ImageError> {
        let Some(pin) = self.images.get_mut(reference) else { return Ok(None) };
        let is_old = now.since_ms(pin.wanted_at) >= WANTED_STEP_MS;
        if is_old {
            pin.wanted_at = now;
        }
        let pin = pin.clone();
        if is_old {
            self.write()?;
        }
        Ok(Some(pin))
    }

    pub(crate) fn set(&mut self, reference: &str, pin: Pin) -> Result<(), ImageError> {
        self.images.insert(reference.to_owned(), pin);
        while self.images.len() > IMAGE_PINS_MAX {
            let oldest = self.images.iter().min_by_key(|(_, pin)| pin.wanted_at).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.images.remove(&name));
        }
        self.write()
    }

    pub(crate) fn remove(&mut self, reference: &str) -> Result<bool, ImageError> {
        let was = self.images.remove(reference).is_some();
        if was {
            self.write()?;
        }
        Ok(was)
    }

    /// Forgets what nobody has wanted for long.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Result<(), ImageError> {
        let before = self.images.len();
        self.images.retain(|_, pin| now.since_ms(pin.wanted_at) < IMAGE_UNUSED_MS);
        if self.images.len() < before { self.write() } else { Ok(()) }
    }

    fn write(&self) -> Result<(), ImageError> {
        let document = Document { version: VERSION, images: self.images.clone() };
        let written =
            serde_json::to_vec(&document).map_err(io::Error::other).and_then(|bytes| replace(&self.path, &bytes));
        written.map_err(|fault| ImageError::disk(&self.path, fault))
    }
}

/// Replaces a file's content whole, durably.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), sync)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(at: i64) -> Pin {
        let (digest, at) = (Digest::of(b"m"), Timestamp::from_millis(at));
        Pin { digest, layers: vec![Digest::of(b"l")], variables: Vec::new(), pinned_at: at, wanted_at: at }
    }

    #[test]
    fn a_pin_stays_through_a_restart_and_goes_when_nobody_wants_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pins.json");
        let mut pins = Pins::open(path.clone()).unwrap();
        pins.set("docker.io/library/a:1", pin(0)).unwrap();
        pins.set("docker.io/library/b:1", pin(0)).unwrap();
        let late = Timestamp::default().plus_ms(IMAGE_UNUSED_MS - 1);
        assert_eq!(pins.want("docker.io/library/a:1", late).unwrap().unwrap().wanted_at, late);
        let mut pins = Pins::open(path.clone()).unwrap();
        assert_eq!(pins.all().len(), 2);
        pins.expire(late.plus_ms(1)).unwrap();
        assert_eq!(pins.all().keys().collect::<Vec<_>>(), ["docker.io/library/a:1"]);
        assert_eq!(Pins::open(path.clone()).unwrap().all().len(), 1);
        assert!(pins.remove("docker.io/library/a:1").unwrap() && !pins.remove("docker.io/library/a:1").unwrap());
        fs::write(&path, "{").unwrap();
        assert!(Pins::open(path).err().unwrap().to_string().contains("remove it, and images are fetched again"));
    }

    #[test]
    fn there_is_a_most_of_pins() {
        let place = tempfile::tempdir().unwrap();
        let mut pins = Pins::open(place.path().join("pins.json")).unwrap();
        pins.images = (0..IMAGE_PINS_MAX).map(|n| (format!("r{n}"), pin(n as i64 + 1))).collect();
        pins.set("new", pin(9_999_999)).unwrap();
        assert_eq!(pins.all().len(), IMAGE_PINS_MAX);
        assert!(pins.all().contains_key("new") && !pins.all().contains_key("r0"));
    }
}
