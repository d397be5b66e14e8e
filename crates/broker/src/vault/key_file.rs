//! Where this process has its master keys from: a file, or a text that it was started with.
//!
//! ```text
//!  <file>            the key in use
//!  <file>.next       there while data keys are wrapped anew: some of them are under it already
//!  <file>.previous   the key before: what was copied from the store before the rotation is under it
//! ```

use super::envelope::Failed;
use super::kms::{LocalKms, MasterKey, NoMasterKey};
use crate::secret::Secret;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a file that is read as a key; more cannot be one.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// Where the key in use is.
#[derive(Debug, Clone)]
pub enum KeyPlace {
    /// `name` is where it was given, for messages.
    Given { name: &'static str, key: MasterKey },
    /// `makes`: a store without secrets may get a new key there.
    File { path: PathBuf, makes: bool },
}

/// Master keys as they were configured.
#[derive(Debug, Clone)]
pub struct KeySource {
    pub place: KeyPlace,
    /// The key that is to follow, and the name under which it was given.
    pub next: Option<(&'static str, MasterKey)>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("master key `{path}`: {source}")]
    Unusable { path: PathBuf, source: io::Error },
    #[error("master key `{path}`: {fault}")]
    Malformed { path: PathBuf, fault: NoMasterKey },
    #[error(
        "there is no master key `{path}`, and the store has secrets that need {}; put that key back, or set LOOPD_MASTER_KEY \
         (in base64) or LOOPD_MASTER_KEY_FILE. Nothing was changed",
        needed(wanted)
    )]
    Missing { path: PathBuf, wanted: Vec<String> },
    #[error(
        "there is no master key `{path}`; accepted: a file with 32 random bytes in base64, as `openssl rand -base64 32` writes them"
    )]
    Absent { path: PathBuf },
    #[error(transparent)]
    Failed(#[from] Failed),
}

fn needed(wanted: &[String]) -> String {
    let names: Vec<String> = wanted.iter().map(|id| format!("`{id}`")).collect();
    names.join(", ")
}

impl KeySource {
    /// All keys that there are, with the one in use to wrap. `wanted`: ids of the master keys that the store's data keys are
    /// under; a key is only made when there are none.
    pub fn load(&self, wanted: &[String]) -> Result<LocalKms, KeyError> {
        let mut others: Vec<MasterKey> = self.next.iter().map(|(_, key)| key.clone()).collect();
        let current = match &self.place {
            KeyPlace::Given { key, .. } => key.clone(),
            KeyPlace::File { path, makes } => {
                others.extend(read(&beside(path, "next"))?);
                match read(path)? {
                    Some(key) => key,
                    None if !wanted.is_empty() => {
                        return Err(KeyError::Missing { path: path.clone(), wanted: wanted.to_vec() });
                    }
                    None if !makes => return Err(KeyError::Absent { path: path.clone() }),
                    None => make(path)?,
                }
            }
        };
        Ok(LocalKms::new(current, others))
    }

    /// The same for a rotation: the key to come wraps. One that a rotation before left is taken up again; else it is made.
    pub fn load_next(&self, wanted: &[String]) -> Result<LocalKms, KeyError> {
        let current = self.load(wanted)?.into_keys();
        let next = match (&self.next, &self.place) {
            (Some((_, key)), _) => key.clone(),
            (None, KeyPlace::File { path, .. }) => {
                let path = beside(path, "next");
                match read(&path)? {
                    Some(key) => key,
                    None => make(&path)?,
                }
            }
            // The caller has refused this: there is nowhere to put a new key.
            (None, KeyPlace::Given { key, .. }) => key.clone(),
        };
        Ok(LocalKms::new(next, current))
    }

    /// The key to come is the key in use from now on; the one before is kept beside it. What there is to be done by hand, where
    /// this process cannot do it.
    pub fn finish(&self) -> Result<Finish, KeyError> {
        match (&self.place, &self.next) {
            (KeyPlace::Given { name, .. }, Some((next, _))) => Ok(Finish::ByHand { set: name, from: next }),
            (KeyPlace::File { path, .. }, Some((next, _))) => Ok(Finish::Replace { path: path.clone(), from: next }),
            (KeyPlace::Given { name, .. }, None) => Ok(Finish::ByHand { set: name, from: name }),
            (KeyPlace::File { path, .. }, None) => {
                let (next, previous) = (beside(path, "next"), beside(path, "previous"));
                let unusable = |source| KeyError::Unusable { path: path.clone(), source };
                if let Some(old) = read(path)? {
                    write(&previous, &old).map_err(|source| KeyError::Unusable { path: previous.clone(), source })?;
                }
                std::fs::rename(&next, path).and_then(|()| sync_directory_of(path)).map_err(unusable)?;
                Ok(Finish::Done { previous })
            }
        }
    }
}

/// How a rotation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    Done {
        /// Where the key before is kept.
        previous: PathBuf,
    },
    /// The variable `set` must have the value of the variable `from` when loopd is next started.
    ByHand { set: &'static str, from: &'static str },
    /// The file must have the value of the variable `from`.
    Replace { path: PathBuf, from: &'static str },
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

/// `None` when there is no such file.
fn read(path: &Path) -> Result<Option<MasterKey>, KeyError> {
    let unusable = |source| KeyError::Unusable { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(unusable(fault)),
    };
    let mode = file.metadata().map_err(unusable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "other users can read the master key (mode {mode:o}); give it mode 600");
    }
    let mut text = Vec::with_capacity(FILE_BYTES_MAX as usize);
    let read = file.take(FILE_BYTES_MAX).read_to_end(&mut text);
    let text = Secret::new(text);
    read.map_err(unusable)?;
    let key = MasterKey::parse(&text).map_err(|fault| KeyError::Malformed { path: path.to_owned(), fault })?;
    Ok(Some(key))
}

fn make(path: &Path) -> Result<MasterKey, KeyError> {
    let key = MasterKey::random()?;
    write(path, &key).map_err(|source| KeyError::Unusable { path: path.to_owned(), source })?;
    tracing::info!(path = %path.display(), id = key.id(), "a master key was made; without it the secrets in the store are lost");
    Ok(key)
}

/// Whole or not at all, and on disk before anything is sealed under it.
fn write(path: &Path, key: &MasterKey) -> io::Result<()> {
    let draft = beside(path, "draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    // A draft that a crash left may have another mode.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(key.text().reveal())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    sync_directory_of(path)
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::kms::Kms;

    fn source(path: &Path, makes: bool) -> KeySource {
        KeySource { place: KeyPlace::File { path: path.to_owned(), makes }, next: None }
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("master.key");
        (directory, path)
    }

    #[test]
    fn a_key_is_made_once_private_and_only_for_a_store_without_secrets() {
        let (_directory, path) = place();
        let told = source(&path, true).load(&["mk_1".to_owned()]).expect_err("missing").to_string();
        assert!(told.contains("`mk_1`") && told.contains("LOOPD_MASTER_KEY") && told.contains("master.key"), "{told}");
        let told = source(&path, false).load(&[]).expect_err("absent").to_string();
        assert!(told.contains("openssl rand -base64 32"), "{told}");
        assert!(!path.exists());

        let made = source(&path, true).load(&[]).expect("made");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        let again = source(&path, false).load(&[made.key_id().to_owned()]).expect("read");
        assert_eq!(again.key_id(), made.key_id());
    }

    #[test]
    fn what_is_no_key_is_left_as_it_is() {
        let (_directory, path) = place();
        for bad in ["", "hunter2", "dG9vIHNob3J0"] {
            std::fs::write(&path, bad).expect("written");
            let told = source(&path, true).load(&[]).expect_err("no key").to_string();
            assert!(told.contains("master.key") && !told.contains("hunter2"), "{told}");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), bad);
        }
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        assert!(matches!(source(&path, true).load(&[]), Err(KeyError::Unusable { .. })));
    }

    #[test]
    fn a_rotation_that_was_cut_off_is_taken_up_with_the_same_key() {
        let (_directory, path) = place();
        let source = source(&path, true);
        let old = source.load(&[]).expect("made");
        let first = source.load_next(&[]).expect("both");
        assert_ne!(first.key_id(), old.key_id());
        let again = source.load_next(&[]).expect("both");
        assert_eq!(again.known(), [first.key_id(), old.key_id(), first.key_id()]);
        // Meanwhile the server starts with both.
        let meanwhile = source.load(&[]).expect("both");
        assert_eq!(meanwhile.known(), [old.key_id(), first.key_id()]);

        let Finish::Done { previous } = source.finish().expect("done") else { panic!("a file") };
        assert_eq!(source.load(&[]).expect("read").known(), [first.key_id()]);
        assert_eq!(read(&previous).expect("readable").expect("there").id(), old.key_id());
        assert_eq!(previous.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    }
}
