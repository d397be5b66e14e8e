//! Whether the session's disk is full. The file system is asked now and then, more seldom when nothing changes.

use loopd_domain::limits::{DISK_LOOK_EVERY_MS, DISK_LOOK_EVERY_MS_MAX, GUEST_DISK_FREE_BYTES_MIN};
use std::time::{Duration, Instant};

/// What a file system says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub used_bytes: u64,
    /// For users.
    pub free_bytes: u64,
    pub free_files: u64,
}

pub struct Fullness {
    next: Instant,
    pause: Duration,
    last: Option<Space>,
    is_full: bool,
}

impl Fullness {
    pub fn new(now: Instant) -> Self {
        let pause = Duration::from_millis(DISK_LOOK_EVERY_MS);
        Fullness { next: now + pause, pause, last: None, is_full: false }
    }

    /// When to look again.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Somebody is at work.
    pub fn wake(&mut self, now: Instant) {
        self.pause = Duration::from_millis(DISK_LOOK_EVERY_MS);
        self.next = self.next.min(now + self.pause);
    }

    /// Somebody listens who was told nothing yet.
    pub fn renew(&mut self, now: Instant) {
        self.is_full = false;
        self.next = now;
    }

    /// Takes note of what was seen. Answers the bytes that are used when it is to be told: once, and again each time that it is
    /// full anew.
    pub fn look(&mut self, space: Space, now: Instant) -> Option<u64> {
        self.pause = match self.last == Some(space) {
            true => (self.pause * 2).min(Duration::from_millis(DISK_LOOK_EVERY_MS_MAX)),
            false => Duration::from_millis(DISK_LOOK_EVERY_MS),
        };
        self.next = now + self.pause;
        self.last = Some(space);
        let is_full = space.free_bytes < GUEST_DISK_FREE_BYTES_MIN || space.free_files == 0;
        let was_full = std::mem::replace(&mut self.is_full, is_full);
        (is_full && !was_full).then_some(space.used_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_full_disk_is_told_once_and_again_when_it_had_space() {
        let now = clock::now();
        let mut fullness = Fullness::new(now);
        let space = |free_bytes, free_files| Space { used_bytes: 7, free_bytes, free_files };
        let told: Vec<Option<u64>> = [
            space(1 << 30, 9),
            space(0, 9),
            space(GUEST_DISK_FREE_BYTES_MIN - 1, 9),
            space(GUEST_DISK_FREE_BYTES_MIN, 9),
            space(1 << 30, 0),
            space(0, 0),
        ]
        .map(|space| fullness.look(space, now))
        .into();
        assert_eq!(told, [None, Some(7), None, None, Some(7), None]);
        fullness.renew(now);
        assert_eq!(fullness.next(), now);
        assert_eq!(fullness.look(space(0, 0), now), Some(7), "the next host is told as well");
    }

    #[test]
    fn one_looks_seldom_where_nothing_changes_and_soon_when_somebody_works() {
        let now = clock::now();
        let mut fullness = Fullness::new(now);
        let space = Space { used_bytes: 0, free_bytes: 1 << 30, free_files: 9 };
        let first = Duration::from_millis(DISK_LOOK_EVERY_MS);
        assert_eq!(fullness.next(), now + first);
        for _ in 0..20 {
            fullness.look(space, now);
        }
        assert_eq!(fullness.next(), now + Duration::from_millis(DISK_LOOK_EVERY_MS_MAX));
        fullness.wake(now);
        assert_eq!(fullness.next(), now + first);
        fullness.look(Space { used_bytes: 1, ..space }, now);
        assert_eq!(fullness.next(), now + first);
    }
}
