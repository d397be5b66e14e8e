//! What a room uses up, seen from the host: counters of its cgroups, and the size of its session's directories.
//!
//! The disk has no counter, so it is looked at, time and again, with a rest after each look that is so many times as long as the
//! look took. Few sessions are looked at at the same time. What is written between two looks comes on top of the limit.

use super::disk;
use crate::port::{Reached, RoomMeter};
use crate::room::cgroup::Counters;
use async_trait::async_trait;
use loopd_domain::limits::{DISK_LOOK_EVERY_MS, DISK_LOOK_EVERY_MS_MAX, DISK_LOOK_REST, DISK_LOOKS_MAX};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_millis(DISK_LOOK_EVERY_MS);
const EVERY_MAX: Duration = Duration::from_millis(DISK_LOOK_EVERY_MS_MAX);
/// A room in which no call runs is looked at so many times more seldom.
const IDLE: u32 = 10;

/// Over all sessions of this process: a look costs a thread and open directories.
static LOOKS: Semaphore = Semaphore::const_new(DISK_LOOKS_MAX);

pub(super) struct Meter {
    counters: Counters,
    directory: PathBuf,
    watch: Watch,
    looking: Option<JoinHandle<io::Result<Look>>>,
}

/// A session's directory, and how many bytes may be in there.
pub(super) struct Disk {
    pub files: PathBuf,
    pub limit: u64,
}

struct Look {
    bytes: u64,
    took: Duration,
}

/// When to look, and when to speak.
#[derive(Debug)]
struct Watch {
    limit: u64,
    /// What was told last, as long as it is above the limit.
    told: Option<u64>,
    looked: Instant,
    rest: Duration,
}

impl Meter {
    pub(super) fn new(counters: Counters, disk: Disk) -> Self {
        Meter { counters, directory: disk.files, watch: Watch::new(disk.limit, Instant::now()), looking: None }
    }

    fn look(&self) -> JoinHandle<io::Result<Look>> {
        let directory = self.directory.clone();
        tokio::spawn(async move {
            let _one_of_few = LOOKS.acquire().await.map_err(io::Error::other)?;
            let looked = tokio::task::spawn_blocking(move || {
                let begun = Instant::now();
                disk::used(&directory).map(|bytes| Look { bytes, took: begun.elapsed() })
            });
            Ok(looked.await??)
        })
    }
}

#[async_trait]
impl RoomMeter for Meter {
    fn reached(&mut self) -> Reached {
        self.counters.reached()
    }

    async fn disk_full(&mut self, busy: bool) -> u64 {
        loop {
            let looking = match &mut self.looking {
                Some(looking) => looking,
                None => {
                    tokio::time::sleep_until(self.watch.next(busy)).await;
                    let look = self.look();
                    self.looking.insert(look)
                }
            };
            let looked = looking.await.map_err(io::Error::other).flatten();
            self.looking = None;
            match looked {
                Ok(look) => {
                    if let Some(bytes) = self.watch.saw(look.bytes, look.took, Instant::now()) {
                        return bytes;
                    }
                }
                Err(fault) => {
                    tracing::warn!(directory = %self.directory.display(), %fault, "a session's disk use is unknown");
                    self.watch.missed(Instant::now());
                }
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

impl Watch {
    fn new(limit: u64, now: Instant) -> Self {
        Watch { limit, told: None, looked: now, rest: EVERY }
    }

    fn next(&self, busy: bool) -> Instant {
        self.looked + if busy { self.rest } else { (self.rest * IDLE).min(EVERY_MAX) }
    }

    /// What is to be told, if anything is.
    fn saw(&mut self, bytes: u64, took: Duration, now: Instant) -> Option<u64> {
        self.looked = now;
        self.rest = (took * DISK_LOOK_REST).clamp(EVERY, EVERY_MAX);
        if bytes <= self.limit {
            self.told = None;
            return None;
        }
        // Whoever removes files must be let: told once, it is told again only when it has grown.
        let grew = self.told.is_none_or(|told| bytes > told);
        grew.then(|| *self.told.insert(bytes))
    }

    /// A look failed. The next one is as far away as can be, so that what fails each time costs little.
    fn missed(&mut self, now: Instant) {
        self.looked = now;
        self.rest = EVERY_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn too_much_is_told_once_and_again_when_it_grows() {
        let now = Instant::now();
        let mut watch = Watch::new(100, now);
        let told = [90, 100, 101, 101, 99, 101, 150, 120, 140, 151, 100, 101].map(|bytes| watch.saw(bytes, SHORT, now));
        let expected =
            [None, None, Some(101), None, None, Some(101), Some(150), None, None, Some(151), None, Some(101)];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_longer_a_look_takes_the_longer_it_rests() {
        let now = Instant::now();
        let mut watch = Watch::new(100, now);
        assert_eq!(watch.next(true) - now, EVERY);
        for (took, busy, idle) in
            [(1, 1_000, 10_000), (200, 4_000, 40_000), (1_000, 20_000, 60_000), (9_000, 60_000, 60_000)]
        {
            watch.saw(1, Duration::from_millis(took), now);
            assert_eq!((watch.next(true) - now).as_millis(), busy);
            assert_eq!((watch.next(false) - now).as_millis(), idle);
        }
    }

    #[tokio::test]
    async fn a_directory_that_grows_is_noticed_by_whoever_waits_or_comes_back() {
        let session = tempfile::tempdir().unwrap();
        let workspace = session.path().join("workspace");
        std::fs::create_dir(&workspace).unwrap();
        let mut meter = Meter::new(Counters::default(), Disk { files: session.path().to_owned(), limit: 1 << 20 });
        std::fs::write(workspace.join("large"), vec![1; 3 << 20]).unwrap();
        // Woken for something else again and again, it still comes to its look.
        let bytes = loop {
            if let Ok(bytes) = tokio::time::timeout(Duration::from_millis(20), meter.disk_full(true)).await {
                break bytes;
            }
        };
        assert!((3 << 20..4 << 20).contains(&bytes), "{bytes}");
    }
}
