//! Why there is no root file system.

use crate::digest::Digest;
use crate::unpack::UnpackError;
use loopd_domain::Invalid;
use std::io;
use std::path::PathBuf;

#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    message: String,
    kind: ImageErrorKind,
}

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageErrorKind {
    /// The environment says something that this host does not take. It stays so until one of them changes.
    Refused,
    /// The image, the archive or the directory is not as it should be.
    Broken,
    /// It could not be fetched or written now.
    Unavailable,
    /// A package manager failed.
    Packages,
}

impl ImageError {
    pub(crate) fn new(kind: ImageErrorKind, message: impl Into<String>) -> Self {
        ImageError { message: message.into(), kind }
    }

    pub fn kind(&self) -> ImageErrorKind {
        self.kind
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(ImageErrorKind::Refused, message)
    }

    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self::new(ImageErrorKind::Broken, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ImageErrorKind::Unavailable, message)
    }

    pub(crate) fn disk(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::unavailable(format!("`{}`: {source}", path.into().display()))
    }

    /// Says first whose fault it is.
    pub(crate) fn of(self, what: &str) -> Self {
        ImageError { message: format!("{what}: {}", self.message), ..self }
    }

    pub(crate) fn layer(digest: &Digest, fault: UnpackError) -> Self {
        let kind = match fault {
            UnpackError::Write { .. } => ImageErrorKind::Unavailable,
            _ => ImageErrorKind::Broken,
        };
        Self::new(kind, format!("layer {digest}: {fault}"))
    }
}

impl From<Invalid> for ImageError {
    fn from(fault: Invalid) -> Self {
        Self::refused(fault.to_string())
    }
}
