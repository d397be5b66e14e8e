//! The data directory: can it be held, written, and how long does a durable write take?
//!
//! A directory that is not there is tried in its place and taken away again; one that a server holds is left alone.

use super::check;
use crate::data::{DataDir, DataError};
use loopd_sandbox::port::{Check, CheckVerdict};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Durable writes that are measured, and the size of each.
const WRITES: usize = 32;
const WRITE_BYTES: usize = 4096;
/// A disk slower than this makes every step slow: each step commits about twice.
const FSYNC_SLOW: Duration = Duration::from_millis(20);
const CLEAR_PATIENCE: Duration = Duration::from_secs(3);
const CLEAR_PAUSE: Duration = Duration::from_millis(5);

pub struct Trial {
    path: PathBuf,
    held: Result<DataDir, DataError>,
    /// It was made for this trial.
    ours: bool,
}

impl Trial {
    pub fn new(path: &Path) -> Self {
        let ours = !path.exists();
        Trial { path: path.to_owned(), held: DataDir::open(path), ours }
    }

    /// Where the trial rooms may put their directories.
    pub fn rooms(&self) -> PathBuf {
        let held = self.held.as_ref().map(|data| data.path().to_owned());
        held.unwrap_or_else(|_| std::env::temp_dir().join(format!("loopd-doctor-{}", std::process::id())))
    }

    pub fn checks(&self) -> Vec<Check> {
        match &self.held {
            Ok(data) => vec![self.usable(data), durable(data.path())],
            Err(DataError::InUse { holder, .. }) => {
                let detail = format!("`{}` is in use by process {}", self.path.display(), holder.process.pid);
                let at = holder.url.as_ref().map(|url| format!("; commands reach it with LOOPD_URL={url}"));
                vec![check("writable", CheckVerdict::Works, detail + &at.unwrap_or_default(), "")]
            }
            Err(fault) => {
                let remedy = "choose a directory that this user may write with --data or LOOPD_DATA";
                vec![check("writable", CheckVerdict::Broken, fault.to_string(), remedy)]
            }
        }
    }

    fn usable(&self, data: &DataDir) -> Check {
        let note = if self.ours { " (will be made)" } else { "" };
        check("writable", CheckVerdict::Works, format!("`{}`{note}", data.path().display()), "")
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let made = self.held.as_ref().ok().filter(|_| self.ours).map(|data| data.path().to_owned());
        for leftover in made.into_iter().chain(self.held.is_err().then(|| self.rooms())) {
            if let Err(fault) = clear(&leftover) {
                tracing::warn!(%fault, path = %leftover.display(), "a trial directory stays behind");
            }
        }
    }
}

/// Removes a directory in which the last rooms may still be making or removing something.
fn clear(path: &Path) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match fs::remove_dir_all(path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound && !path.exists() => return Ok(()),
            Err(fault) if begun.elapsed() > CLEAR_PATIENCE => return Err(fault),
            Ok(()) | Err(_) => std::thread::sleep(CLEAR_PAUSE),
        }
    }
}

fn durable(path: &Path) -> Check {
    match measure(&path.join("doctor.tmp")) {
        Ok(median) => {
            let detail =
                format!("{:.2} ms for a durable write of 4 KiB (median of {WRITES})", median.as_secs_f64() * 1e3);
            match median > FSYNC_SLOW {
                true => check("fsync", CheckVerdict::Degraded, detail, "put the data directory on a faster disk"),
                false => check("fsync", CheckVerdict::Works, detail, ""),
            }
        }
        Err(fault) => check("fsync", CheckVerdict::Broken, fault.to_string(), "the disk may be full or read-only"),
    }
}

fn measure(path: &Path) -> io::Result<Duration> {
    let mut file = File::create(path)?;
    let measured = timings(&mut file);
    drop(file);
    fs::remove_file(path)?;
    measured
}

fn timings(file: &mut File) -> io::Result<Duration> {
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let started = Instant::now();
        file.write_all(&[0x6c; WRITE_BYTES])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times[WRITES / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("data");
        let trial = Trial::new(&path);
        let found = trial.checks();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|c| c.verdict != CheckVerdict::Broken), "{found:?}");
        drop(trial);
        assert!(!path.exists());
    }

    #[test]
    fn what_was_there_stays() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("kept"), "x").expect("written");
        drop(Trial::new(root.path()));
        assert!(root.path().join("kept").exists());
        assert!(!root.path().join("doctor.tmp").exists());
    }

    #[test]
    fn one_that_is_in_use_is_left_alone() {
        let root = tempfile::tempdir().expect("a directory");
        let holder = DataDir::open(root.path()).expect("free");
        holder.announce(Some("http://127.0.0.1:1".to_owned())).expect("written");
        let found = Trial::new(root.path()).checks();
        assert!(found[0].detail.contains("LOOPD_URL=http://127.0.0.1:1"), "{found:?}");
    }

    #[test]
    fn an_unusable_one_is_broken() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        fs::write(&path, "").expect("written");
        assert_eq!(Trial::new(&path).checks()[0].verdict, CheckVerdict::Broken);
    }
}
