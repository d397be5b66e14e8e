//! `write`: a whole new content, in place of the old at one moment.

use super::Ending;
use super::fields::Fields;
use super::path::{at, refuse_irregular, resolve};
use super::worker::Fault;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub fn run(input: &Value, base: &Path) -> Result<Ending, Fault> {
    let fields = Fields::of(input)?;
    let path = resolve("file_path", fields.filled_text("file_path", "the path of a file")?, base)?;
    let content = fields.text("content", "the whole new content, which may be an empty string")?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| at(parent, e))?;
    }
    replace(&path, content.as_bytes())?;
    Ok(Ending::fine(format!("wrote {} bytes to {}", content.len(), path.display())))
}

/// Puts `content` at `path`: a reader sees the old file or the new one. A symbolic link is followed and stays; the mode of a
/// file that was there stays.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Fault> {
    let target = target(path)?;
    let mode = match fs::metadata(&target) {
        Ok(metadata) => {
            refuse_irregular(&target, &metadata)?;
            Some(metadata.permissions())
        }
        Err(fault) if fault.kind() == ErrorKind::NotFound => None,
        Err(fault) => return Err(at(&target, fault)),
    };
    match create_beside(&target) {
        Ok((temporary, file)) => put(file, &temporary, &target, content, mode).map_err(|fault| {
            // What was half done is of no use to anybody; the fault that is told is the first one.
            let _ = fs::remove_file(&temporary);
            at(&target, fault)
        }),
        // The file may be ours to write even where its directory is not.
        Err(fault) if mode.is_some() && fault.kind() == ErrorKind::PermissionDenied => {
            fs::write(&target, content).map_err(|e| at(&target, e))
        }
        Err(fault) => Err(at(&target, fault)),
    }
}

/// Where a chain of symbolic links ends, whether or not anything is there.
fn target(path: &Path) -> Result<PathBuf, Fault> {
    const LINKS_MAX: usize = 40; // as the kernel has it
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&target) {
            Ok(next) => target = target.parent().unwrap_or(Path::new("/")).join(next),
            Err(_) => return Ok(target), // no link; what else is wrong shows when it is written
        }
    }
    Err(at(path, io::Error::from_raw_os_error(libc::ELOOP)))
}

/// A fresh file in the directory of `target`, so that it can be renamed to it.
fn create_beside(target: &Path) -> io::Result<(PathBuf, File)> {
    let name = target.file_name().ok_or(ErrorKind::IsADirectory)?;
    let mut last = ErrorKind::AlreadyExists.into();
    for attempt in 0..100 {
        let mut temporary = OsString::from(".");
        // A name may have 255 bytes; the end is what we need.
        temporary.push(name.to_string_lossy().chars().take(32).collect::<String>());
        temporary.push(format!(".{}.{attempt}.tmp", rustix::process::getpid()));
        let path = target.with_file_name(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(fault) if fault.kind() == ErrorKind::AlreadyExists => last = fault,
            Err(fault) => return Err(fault),
        }
    }
    Err(last)
}

fn put(mut file: File, temporary: &Path, target: &Path, content: &[u8], mode: Option<Permissions>) -> io::Result<()> {
    file.write_all(content)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode.mode() & 0o7777))?;
    }
    fs::rename(temporary, target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::content::ContentBlock;
    use serde_json::json;
    use std::os::unix::fs::symlink;

    fn write(base: &Path, path: &str, content: &str) -> Result<String, String> {
        let ending = run(&json!({"file_path": path, "content": content}), base).map_err(|fault| fault.to_string())?;
        match ending.content.as_slice() {
            [ContentBlock::Text { text }] => Ok(text.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn makes_directories_and_replaces() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a/b/c.txt");
        assert_eq!(write(dir.path(), "a/b/c.txt", "héllo"), Ok(format!("wrote 6 bytes to {}", path.display())));
        write(dir.path(), "a/b/c.txt", "").expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"");
        let names = fs::read_dir(dir.path().join("a/b")).expect("a directory").count();
        assert_eq!(names, 1, "no temporary file is left");
    }

    #[test]
    fn mode_and_links_stay() {
        let dir = tempfile::tempdir().expect("directory");
        let script = dir.path().join("run.sh");
        fs::write(&script, "old").expect("written");
        fs::set_permissions(&script, Permissions::from_mode(0o751)).expect("mode");
        symlink("run.sh", dir.path().join("link")).expect("link");
        symlink("new.txt", dir.path().join("dangling")).expect("link");
        write(dir.path(), "link", "new").expect("written");
        write(dir.path(), "dangling", "x").expect("written");
        assert_eq!(fs::read_to_string(&script).expect("there"), "new");
        assert_eq!(fs::metadata(&script).expect("there").permissions().mode() & 0o7777, 0o751);
        assert!(fs::symlink_metadata(dir.path().join("link")).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(dir.path().join("new.txt")).expect("there"), "x");
    }

    #[test]
    fn refuses_what_is_no_file() {
        let dir = tempfile::tempdir().expect("directory");
        fs::create_dir(dir.path().join("d")).expect("directory");
        symlink("loop", dir.path().join("loop")).expect("link");
        assert!(write(dir.path(), "d", "x").expect_err("refused").contains("is a directory"));
        assert!(write(dir.path(), "/dev/null", "x").expect_err("refused").contains("is a device"));
        assert!(write(dir.path(), "loop", "x").is_err());
        assert!(write(dir.path(), "", "x").is_err());
        assert!(write(dir.path(), "a/..", "x").is_err());
        let missing = run(&json!({"file_path": "x"}), dir.path()).expect_err("refused").to_string();
        assert!(missing.starts_with("`content` is missing"), "{missing}");
        write(dir.path(), &"n".repeat(255), "x").expect("the longest name");
    }
}
