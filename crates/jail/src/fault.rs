//! What failed while walls were built: what was being done, and what the kernel said.

use rustix::io::Errno;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A sentence's beginning: `mounting /proc`.
    pub doing: String,
    pub errno: i32,
}

impl Fault {
    pub fn new(doing: impl Into<String>, errno: Errno) -> Self {
        Fault { doing: doing.into(), errno: errno.raw_os_error() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.errno).to_string();
        // The standard library adds ` (os error 13)`, which tells a reader nothing more.
        let said = text.split(" (os error").next().unwrap_or(&text);
        write!(f, "{}: {}", self.doing, said.to_lowercase())
    }
}

impl std::error::Error for Fault {}

/// Names what was being done when a system call failed.
pub(crate) trait While<T> {
    fn while_doing(self, doing: &str) -> Result<T, Fault>;
}

impl<T> While<T> for rustix::io::Result<T> {
    fn while_doing(self, doing: &str) -> Result<T, Fault> {
        self.map_err(|errno| Fault::new(doing, errno))
    }
}

impl<T> While<T> for std::io::Result<T> {
    fn while_doing(self, doing: &str) -> Result<T, Fault> {
        self.map_err(|fault| Fault { doing: doing.to_owned(), errno: fault.raw_os_error().unwrap_or(libc::EIO) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_sentence() {
        assert_eq!(Fault::new("mounting /proc", Errno::PERM).to_string(), "mounting /proc: operation not permitted");
    }
}
