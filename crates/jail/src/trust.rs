//! Whom programs of a room trust: the host's authorities and one of loopd's, whose certificates the way out shows where it puts
//! a secret into a connection.
//!
//! ```text
//!  /etc/ssl/certs/ca-certificates.crt   the host's list, then the authority
//!                /…                     as on the host, copied: hashed names, Java's store
//!  /etc/loopd/ca.crt                    the authority alone
//! ```
//!
//! The directory is copied, not bound and covered: a host that replaces its list would uncover it in every room. Java reads none
//! of it but a store in a format of its own: a program makes one with `keytool -importcert -file /etc/loopd/ca.crt` and names it
//! and its password, `javax.net.ssl.trustStore` and `javax.net.ssl.trustStorePassword`.

use crate::fault::{Fault, While};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// In `/etc`.
pub(crate) const DIRECTORY: &str = "ssl/certs";
/// Where hosts keep their list: Debian, Fedora, openSUSE, Alpine.
const LISTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const LIST: &str = "ca-certificates.crt";
/// Levels, entries and bytes that are copied of the host's directory; what is beyond is no list of certificates.
const DEPTH_MAX: usize = 3;
const ENTRIES_MAX: usize = 4_096;
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Mode bit of a file that everybody may read. Others, a key that lies beside its certificate, are not for rooms either.
const FOR_EVERYBODY: u32 = 0o004;

/// What is to be put on the stage: paths are relative to it.
#[derive(Debug, Default)]
pub(crate) struct Trusted {
    pub links: Vec<(PathBuf, String)>,
    pub files: Vec<(String, Vec<u8>)>,
}

/// `authority`: a certificate in PEM.
pub(crate) fn with_authority(authority: &[u8]) -> Result<Trusted, Fault> {
    let mut trusted = Trusted::default();
    copy(&Path::new("/etc").join(DIRECTORY), &format!("room/etc/{DIRECTORY}"), DEPTH_MAX, &mut trusted)?;
    let mut list = Vec::new();
    for path in LISTS {
        match fs::read(path) {
            Ok(bytes) => {
                list = bytes;
                break;
            }
            Err(fault) if fault.kind() == ErrorKind::NotFound => {}
            Err(fault) => return Err(fault).while_doing(&format!("reading {path}")),
        }
    }
    trusted.files.push((format!("room/etc/{DIRECTORY}/{LIST}"), join(list, authority)));
    trusted.files.push(("room/etc/loopd/ca.crt".to_owned(), authority.to_vec()));
    Ok(trusted)
}

/// A list and one more.
fn join(mut list: Vec<u8>, authority: &[u8]) -> Vec<u8> {
    if list.last().is_some_and(|last| *last != b'\n') {
        list.push(b'\n');
    }
    list.extend_from_slice(authority);
    list
}

/// Takes what lies in a directory, but for the list. Links are taken as links: what they lead to lies in `/usr`, or in here.
fn copy(from: &Path, to: &str, depth: usize, trusted: &mut Trusted) -> Result<(), Fault> {
    let doing = format!("reading {}", from.display());
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(()),
        Err(fault) => return Err(fault).while_doing(&doing),
    };
    for entry in entries {
        let entry = entry.while_doing(&doing)?;
        if trusted.links.len() + trusted.files.len() >= ENTRIES_MAX {
            return Ok(());
        }
        let (path, name) = (entry.path(), entry.file_name());
        // A name that is no text is nobody's certificate.
        let Some(name) = name.to_str().filter(|name| *name != LIST) else { continue };
        let (place, doing) = (format!("{to}/{name}"), format!("reading {}", path.display()));
        let found = fs::symlink_metadata(&path).while_doing(&doing)?;
        if found.is_symlink() {
            trusted.links.push((fs::read_link(&path).while_doing(&doing)?, place));
        } else if found.is_dir() && depth > 1 {
            copy(&path, &place, depth - 1, trusted)?;
        } else if found.is_file() && found.len() <= FILE_BYTES_MAX && found.mode() & FOR_EVERYBODY != 0 {
            trusted.files.push((place, fs::read(&path).while_doing(&doing)?));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_comes_last_on_a_line_of_its_own() {
        assert_eq!(join(b"A".to_vec(), b"B\n"), b"A\nB\n");
        assert_eq!(join(b"A\n".to_vec(), b"B\n"), b"A\nB\n");
        assert_eq!(join(Vec::new(), b"B\n"), b"B\n", "a host without a list");
    }

    #[test]
    fn what_is_copied_is_bounded_and_links_stay_links() {
        let place = std::env::temp_dir().join(format!("loopd-trust-{}", std::process::id()));
        fs::create_dir_all(place.join("java/a/b/too-deep")).unwrap();
        for (name, text) in [("own.pem", "P"), (LIST, "L"), ("java/cacerts", "J"), ("java/a/b/too-deep/x", "X")] {
            fs::write(place.join(name), text).unwrap();
        }
        fs::write(place.join("own.key"), "K").unwrap();
        fs::set_permissions(place.join("own.key"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("own.pem", place.join("12345678.0")).unwrap();
        let mut trusted = Trusted::default();
        copy(&place, "t", DEPTH_MAX, &mut trusted).unwrap();
        trusted.files.sort();
        let expected = [("t/java/cacerts".to_owned(), b"J".to_vec()), ("t/own.pem".to_owned(), b"P".to_vec())];
        assert_eq!(trusted.files, expected);
        assert_eq!(trusted.links, [(PathBuf::from("own.pem"), "t/12345678.0".to_owned())]);
        fs::remove_dir_all(&place).unwrap();
        let mut nothing = Trusted::default();
        copy(&place, "t", DEPTH_MAX, &mut nothing).unwrap();
        assert!(nothing.files.is_empty() && nothing.links.is_empty());
    }
}
