//! Taking a directory: free, or from a holder that shows no sign of life.
//!
//! The next holder prepares a file `lock.next`, locked and complete, and moves it into the place of `lock`. Whoever has that
//! preparation locked is the only one who replaces anybody, and what it decided upon it looks at again afterwards: so of many
//! that come at once one wins, and a holder that was just replaced is not replaced again.
//!
//! A sign of life is any change of the file's time. An age beyond the lease, or a time in the future, only raises a suspicion:
//! a clock that was set forward or back makes one too, and so does a machine that has just woken up. The holder then has
//! half a lease, measured by a clock that nobody sets, to show that it lives; it shows so every third.

use super::{HoldError, Holder, Terms, is_at, read, touch};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Times that the file may turn out to be another one while it is being taken.
const TRIES: usize = 100;
/// Between two looks at a holder that may be gone.
const LOOK: Duration = Duration::from_millis(20);

type Taken = (PathBuf, File, Option<Holder>);

pub(super) fn take(directory: &Path, terms: &Terms) -> Result<Taken, HoldError> {
    let path = directory.join("lock");
    let unusable = |source| HoldError::Unusable { path: path.clone(), source };
    for _ in 0..TRIES {
        let file = open(&path).map_err(unusable)?;
        if locked(&file).map_err(unusable)? {
            match is_at(&file, &path) {
                Some(true) => return Ok((path, file, None)),
                _ => continue,
            }
        }
        let holder = read(&file);
        let held = HoldError::Held { directory: directory.to_owned(), holder: holder.clone() };
        if !terms.replaces {
            return Err(held);
        }
        match replace(&path, &file, terms.lease).map_err(unusable)? {
            Ok(next) => return Ok((path, next, holder)),
            Err(Kept::Alive) => return Err(held),
            Err(Kept::Moved) => {}
        }
    }
    Err(HoldError::Held { directory: directory.to_owned(), holder: None })
}

/// Why a lock's file stays where it is.
enum Kept {
    /// Its holder shows that it lives, or somebody else is about to replace it.
    Alive,
    /// It is free, or another file, by now.
    Moved,
}

/// The new file, in place and locked.
fn replace(path: &Path, current: &File, lease: Duration) -> io::Result<Result<File, Kept>> {
    let next_path = path.with_extension("next");
    let next = open(&next_path)?;
    if !locked(&next)? {
        return Ok(Err(Kept::Alive));
    }
    if is_at(&next, &next_path) != Some(true) {
        return Ok(Err(Kept::Moved));
    }
    match watch(path, current, &next, lease) {
        Ok(None) => {
            fs::rename(&next_path, path)?;
            Ok(Ok(next))
        }
        Ok(Some(kept)) => fs::remove_file(&next_path).map(|()| Err(kept)),
        Err(fault) => Err(fault),
    }
}

/// `None` when the holder shows no sign of life. `stamp` is a file beside the lock, to learn what time it is there.
fn watch(path: &Path, current: &File, stamp: &File, lease: Duration) -> io::Result<Option<Kept>> {
    let seen = time(current)?;
    touch(stamp)?;
    // A time in the future is as suspicious as one that is long past.
    if time(stamp)?.duration_since(seen).is_ok_and(|age| age < lease) {
        return Ok(Some(Kept::Alive));
    }
    let looks = (lease / 2).div_duration_f64(LOOK).ceil() as usize;
    for _ in 0..looks {
        std::thread::sleep(LOOK);
        if is_at(current, path) != Some(true) || locked(current)? {
            return Ok(Some(Kept::Moved));
        }
        if time(current)? != seen {
            return Ok(Some(Kept::Alive));
        }
    }
    Ok(None)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(fault)) => Err(fault),
    }
}

fn time(file: &File) -> io::Result<SystemTime> {
    file.metadata()?.modified()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hold::Hold;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const AGES: Duration = Duration::from_secs(3_600);

    fn terms(lease: Duration) -> Terms {
        Terms { lease, ..Terms::default() }
    }

    fn set_back(directory: &Path) {
        set_time(directory, |now| now - AGES);
    }

    fn set_time(directory: &Path, change: impl Fn(SystemTime) -> SystemTime) {
        let file = File::open(directory.join("lock")).expect("there");
        file.set_modified(change(time(&file).expect("a time"))).expect("set");
    }

    fn refused(directory: &Path, terms: &Terms) -> Option<Holder> {
        match Hold::take(directory, terms).err() {
            Some(HoldError::Held { holder, .. }) => holder,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_at_a_time_and_the_next_is_told_who() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Hold::take(directory.path(), &Terms::default()).expect("free");
        first.say(Some("http://h:1".to_owned()), false).expect("written");
        let told = refused(directory.path(), &Terms::default()).expect("known");
        assert_eq!(
            (told.process.pid, told.url.as_deref(), told.stopping),
            (std::process::id(), Some("http://h:1"), false)
        );
        first.say(None, true).expect("written");
        assert!(refused(directory.path(), &Terms::default()).expect("known").stopping);
        assert!(first.check() && first.replaced().is_none());
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1, "nothing but the lock");
        drop(first);
        assert!(Hold::take(directory.path(), &Terms::default()).expect("free again").replaced().is_none());
    }

    #[test]
    fn a_holder_without_a_sign_of_life_is_replaced_and_finds_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let losses = Arc::new(AtomicUsize::new(0));
        let counted = losses.clone();
        let on_lost = Arc::new(move |_: &Path| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        // Its next sign of life is far away.
        let first = Hold::take(directory.path(), &Terms { lease: AGES, on_lost, ..Terms::default() }).expect("free");
        let short = terms(Duration::from_millis(100));
        let patient = Terms { replaces: false, ..short.clone() };
        // Of the past, then of the future: neither is a sign of life.
        for change in [|now| now - AGES, |now| now + 2 * AGES] {
            set_time(directory.path(), change);
            refused(directory.path(), &patient);
        }
        let second = Hold::take(directory.path(), &short).expect("replaced");
        assert_eq!(second.replaced().map(|h| h.process.pid), Some(std::process::id()));
        assert!(second.check());
        assert_eq!((first.check(), first.check(), losses.load(Ordering::Relaxed)), (false, false, 1));
        drop(first);
        assert!(second.check(), "the old one takes nothing along");
        refused(directory.path(), &terms(AGES));
    }

    #[test]
    fn one_that_lives_keeps_it_whatever_the_clock_says() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Hold::take(directory.path(), &terms(Duration::from_millis(150))).expect("free");
        for change in [|now| now - AGES, |now| now + AGES] {
            set_time(directory.path(), change);
            refused(directory.path(), &terms(Duration::from_secs(4)));
            assert!(first.check());
        }
    }

    #[test]
    fn of_many_that_come_at_once_one_wins() {
        for _ in 0..5 {
            let directory = tempfile::tempdir().expect("a directory");
            let gone = Hold::take(directory.path(), &terms(AGES)).expect("free");
            set_back(directory.path());
            let outcomes: Vec<_> = std::thread::scope(|threads| {
                let take = || Hold::take(directory.path(), &terms(Duration::from_secs(1)));
                let takers: Vec<_> = (0..8).map(|_| threads.spawn(take)).collect();
                takers.into_iter().map(|taker| taker.join().expect("no panic")).collect()
            });
            let winners: Vec<_> = outcomes.iter().flatten().collect();
            assert_eq!(winners.len(), 1);
            assert!(winners[0].check() && !gone.check());
        }
    }
}
