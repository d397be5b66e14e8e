//! Paths as the model writes and reads them, and files that can be trusted to be files.

use super::worker::Fault;
use loopd_domain::Invalid;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A relative path starts at `base`.
pub fn resolve(field: &str, text: &str, base: &Path) -> Result<PathBuf, Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new(field, text.replace('\0', "␀"), "a path without a NUL character"));
    }
    Ok(base.join(text))
}

/// As short as it can be written for the next call: relative when it lies in `base`.
pub fn shown<'a>(path: &'a Path, base: &Path) -> std::borrow::Cow<'a, str> {
    let path = path.strip_prefix(base).unwrap_or(path);
    path.strip_prefix(".").unwrap_or(path).to_string_lossy()
}

/// Opens a regular file for reading, and nothing else: opening a FIFO or a device can wait for ever or do something.
pub fn open_file(path: &Path) -> Result<(File, Metadata), Fault> {
    let at = |source: io::Error| at(path, source);
    refuse_irregular(path, &std::fs::metadata(path).map_err(at)?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(at)?;
    // It may have been replaced meanwhile.
    let metadata = file.metadata().map_err(at)?;
    refuse_irregular(path, &metadata)?;
    Ok((file, metadata))
}

pub fn refuse_irregular(path: &Path, metadata: &Metadata) -> Result<(), Fault> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory (list it with bash or glob)",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => "something else",
    };
    Err(Fault::Refused(format!("`{}` is {what}; accepted: a regular file", path.display())))
}

/// The operating system's words about a path.
pub fn at(path: &Path, source: io::Error) -> Fault {
    Fault::File { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_at_the_base() {
        let base = Path::new("/workspace");
        assert_eq!(resolve("path", "a/b", base).expect("valid"), Path::new("/workspace/a/b"));
        assert_eq!(resolve("path", "/etc/x", base).expect("valid"), Path::new("/etc/x"));
        assert!(resolve("path", "a\0b", base).is_err());
        assert_eq!(shown(Path::new("/workspace/a/b"), base), "a/b");
        assert_eq!(shown(Path::new("/etc/x"), base), "/etc/x");
    }
}
