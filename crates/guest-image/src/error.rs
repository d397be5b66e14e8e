//! Why there is no image.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum GuestImageError {
    /// This machine lacks something; says what, and what to do.
    #[error("{0}")]
    Missing(String),
    /// What was given is not as it should be.
    #[error("{0}")]
    Broken(String),
    #[error("`{program}` failed: {said}")]
    Program { program: String, said: String },
    #[error("`{}`: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

impl GuestImageError {
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        GuestImageError::Missing(message.into())
    }

    pub(crate) fn broken(message: impl Into<String>) -> Self {
        GuestImageError::Broken(message.into())
    }

    pub(crate) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| GuestImageError::Disk { path: path.into(), source }
    }
}
