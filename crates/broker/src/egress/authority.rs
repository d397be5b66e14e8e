//! The certificate authority that rooms trust.
//!
//! Made once for a data directory and kept: a room that outlives its server goes on trusting what the next one shows. The key lies
//! sealed, the certificate beside it in the clear, for rooms to read. It is not constrained to names: which hosts are opened is
//! known only when a credential names them. It signs nothing but the leaves of [`super::leaf`], which live for two days.

use crate::seal::{SealError, Sealer};
use crate::secret::Secret;
use loopd_domain::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KEY_FILE: &str = "egress-authority.key";
const CERTIFICATE_FILE: &str = "egress-authority.pem";
/// What the key is sealed for.
const CONTEXT: &str = "egress-authority";
const COMMON_NAME: &str = "loopd egress";
/// Twenty years: as long as a data directory may live.
const VALID: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Clocks in rooms are the host's; those that verify in a virtual machine may be behind.
pub(super) const EARLIER: Duration = Duration::from_secs(86_400);

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    file: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("`{path}`: {fault}")]
    File { path: String, fault: io::Error },
    #[error(
        "`{path}` does not open: {fault}; accepted: the master key under which it was made, or no such file (rooms that \
             live would then distrust the new authority)"
    )]
    Sealed { path: String, fault: SealError },
    #[error("`{path}` is no key of this authority: {message}")]
    Key { path: String, message: String },
    #[error(
        "`{certificate}` is not the certificate of the key in `{key}`; accepted: the one that was made with it, or none, and \
             it is made again"
    )]
    Mismatch { certificate: String, key: String },
    #[error("the certificate cannot be made: {0}")]
    Certificate(String),
}

impl Authority {
    /// The authority of this data directory; made now if it has none. Reads and writes files: for the start of a server.
    pub fn open(directory: &Path, sealer: &dyn Sealer, now: Timestamp) -> Result<Self, AuthorityError> {
        let (key_file, file) = (directory.join(KEY_FILE), directory.join(CERTIFICATE_FILE));
        let sealed = match read(&key_file)? {
            Some(sealed) => sealed,
            None => make_key(&key_file, sealer)?,
        };
        let secret = sealer.open(CONTEXT, &sealed);
        let secret = secret.map_err(|fault| AuthorityError::Sealed { path: shown(&key_file), fault })?;
        let malformed =
            |fault: rcgen::Error| AuthorityError::Key { path: shown(&key_file), message: fault.to_string() };
        let key = KeyPair::try_from(secret.reveal()).map_err(malformed)?;
        let pem = match read(&file)? {
            Some(pem) => String::from_utf8_lossy(&pem).into_owned(),
            None => make_certificate(&file, &key, now)?,
        };
        let mismatch = || AuthorityError::Mismatch { certificate: shown(&file), key: shown(&key_file) };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| mismatch())?;
        // The public key stands in a certificate as it is.
        let public = key.subject_public_key_info();
        if !der.windows(public.len()).any(|window| window == public.as_slice()) {
            return Err(mismatch());
        }
        Ok(Authority { issuer: Issuer::new(params(now), key), pem, der, file })
    }

    /// The certificate, as rooms are to trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The file that holds it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// The same subject for every certificate of a key: leaves name it as their issuer.
fn params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = Duration::from_micros(now.micros().max(0).unsigned_abs());
    params.not_before = epoch + since.saturating_sub(EARLIER);
    params.not_after = epoch + since + VALID;
    params
}

fn make_key(path: &Path, sealer: &dyn Sealer) -> Result<Vec<u8>, AuthorityError> {
    let key = KeyPair::generate().map_err(|fault| AuthorityError::Certificate(fault.to_string()))?;
    let plain = Secret::new(key.serialize_der());
    let sealed = sealer.seal(CONTEXT, &plain);
    let sealed = sealed.map_err(|fault| AuthorityError::Sealed { path: shown(path), fault })?;
    write_new(path, &sealed, 0o600)
}

fn make_certificate(path: &Path, key: &KeyPair, now: Timestamp) -> Result<String, AuthorityError> {
    let made = params(now).self_signed(key).map_err(|fault| AuthorityError::Certificate(fault.to_string()))?;
    Ok(String::from_utf8_lossy(&write_new(path, made.pem().as_bytes(), 0o644)?).into_owned())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, AuthorityError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(AuthorityError::File { path: shown(path), fault }),
    }
}

/// Puts a whole file in its place, and never in the place of another: who comes second gets what the first wrote.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<Vec<u8>, AuthorityError> {
    let failed = |fault| AuthorityError::File { path: shown(path), fault };
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => fs::read(path),
            Err(fault) => Err(fault),
            Ok(()) => {
                path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())?;
                Ok(bytes.to_vec())
            }
        }
    })();
    let removed = fs::remove_file(&draft);
    let bytes = written.map_err(failed)?;
    removed.map_err(failed)?;
    Ok(bytes)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Opens only what was sealed under the same name.
    pub(crate) struct Named(pub(crate) &'static str);

    impl Named {
        fn mark(&self, context: &str) -> Vec<u8> {
            format!("{}/{context}:", self.0).into_bytes()
        }
    }

    impl Sealer for Named {
        fn seal(&self, context: &str, plain: &Secret) -> Result<Vec<u8>, SealError> {
            let hidden: Vec<u8> = plain.reveal().iter().map(|byte| byte ^ 0x5a).collect();
            Ok([self.mark(context), hidden].concat())
        }

        fn open(&self, context: &str, sealed: &[u8]) -> Result<Secret, SealError> {
            let refused = || SealError::Refused { context: context.to_owned() };
            let hidden = sealed.strip_prefix(self.mark(context).as_slice()).ok_or_else(refused)?;
            Ok(Secret::new(hidden.iter().map(|byte| byte ^ 0x5a).collect()))
        }
    }

    const NOW: Timestamp = Timestamp(1_795_000_000_000_000);

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn it_is_made_once_and_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Authority::open(directory.path(), &Named("a"), NOW).expect("made");
        let second = Authority::open(directory.path(), &Named("a"), NOW.plus_ms(86_400_000)).expect("read");
        assert_eq!(first.pem(), second.pem());
        assert_eq!(first.issuer().key().serialized_der(), second.issuer().key().serialized_der());
        assert_eq!(mode(&directory.path().join(KEY_FILE)), 0o600);
        assert_eq!(mode(first.file()), 0o644);
        let files = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(files, 2, "nothing else is left there");
        let lies = fs::read(directory.path().join(KEY_FILE)).expect("a file");
        let plain = first.issuer().key().serialized_der();
        assert!(!lies.windows(32).any(|window| plain.windows(32).any(|part| part == window)), "the key lies sealed");
    }

    #[test]
    fn a_lost_certificate_is_made_again_for_the_same_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Authority::open(directory.path(), &Named("a"), NOW).expect("made");
        fs::remove_file(first.file()).expect("removed");
        let second = Authority::open(directory.path(), &Named("a"), NOW).expect("made again");
        assert_eq!(first.issuer().key().serialized_der(), second.issuer().key().serialized_der());
    }

    #[test]
    fn a_wrong_key_is_refused_and_nothing_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Authority::open(directory.path(), &Named("a"), NOW).expect("made");
        let before = fs::read(directory.path().join(KEY_FILE)).expect("a file");
        let refused = Authority::open(directory.path(), &Named("b"), NOW);
        assert!(matches!(refused, Err(AuthorityError::Sealed { .. })));
        assert_eq!(fs::read(directory.path().join(KEY_FILE)).expect("a file"), before);

        let other = tempfile::tempdir().expect("a directory");
        let stranger = Authority::open(other.path(), &Named("a"), NOW).expect("made");
        fs::copy(stranger.file(), first.file()).expect("copied");
        let refused = Authority::open(directory.path(), &Named("a"), NOW);
        assert!(matches!(refused, Err(AuthorityError::Mismatch { .. })));
        fs::write(first.file(), "no certificate").expect("written");
        assert!(matches!(Authority::open(directory.path(), &Named("a"), NOW), Err(AuthorityError::Mismatch { .. })));
    }
}
