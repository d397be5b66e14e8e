//! Control groups as a tree of files that answer back: what this backend asks of them, so that tests can play the kernel.

use std::fs;
use std::io;
use std::path::Path;

pub(super) trait Files {
    fn make(&self, directory: &Path) -> io::Result<()>;
    fn remove(&self, directory: &Path) -> io::Result<()>;
    fn read(&self, file: &Path) -> io::Result<String>;
    fn write(&self, file: &Path, value: &str) -> io::Result<()>;
}

/// The kernel's own.
pub(super) struct Kernel;

impl Files for Kernel {
    fn make(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir(directory)
    }

    fn remove(&self, directory: &Path) -> io::Result<()> {
        fs::remove_dir(directory)
    }

    fn read(&self, file: &Path) -> io::Result<String> {
        fs::read_to_string(file)
    }

    /// One call is one setting; a file that is not there is not made.
    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(file)?;
        rustix::io::write(&file, value.as_bytes())?;
        Ok(())
    }
}
