//! What failed: what was being done, and what was said.

use rustix::io::Errno;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A sentence's beginning: `mounting /dev/vdb`.
    pub doing: String,
    pub reason: String,
}

impl Fault {
    pub fn new(doing: impl Into<String>, reason: impl Into<String>) -> Self {
        Fault { doing: doing.into(), reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.reason)
    }
}

/// Names what was being done when something failed.
pub trait While<T> {
    fn while_doing(self, doing: &str) -> Result<T, Fault>;
}

impl<T> While<T> for rustix::io::Result<T> {
    fn while_doing(self, doing: &str) -> Result<T, Fault> {
        self.map_err(|errno: Errno| Fault::new(doing, errno.to_string()))
    }
}

impl<T> While<T> for std::io::Result<T> {
    fn while_doing(self, doing: &str) -> Result<T, Fault> {
        self.map_err(|fault| Fault::new(doing, fault.to_string()))
    }
}
