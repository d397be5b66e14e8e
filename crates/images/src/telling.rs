//! Bytes that pass are told of: not each, but every now and then.

use loopd_domain::limits::ROOM_PROGRESS_GRAIN_BYTES;
use loopd_domain::progress::Progress;
use loopd_sandbox::progress::Teller;
use std::io::{self, Read};

/// How much of something has passed.
pub(crate) struct Count {
    teller: Teller,
    progress: Progress,
    total: Option<u64>,
    done: u64,
    next: u64,
}

impl Count {
    pub(crate) fn new(teller: Teller, progress: Progress, total: Option<u64>) -> Self {
        let mut count = Count { teller, progress, total, done: 0, next: 0 };
        count.add(0);
        count
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.done >= self.next || Some(self.done) == self.total {
            self.next = self.done + ROOM_PROGRESS_GRAIN_BYTES;
            self.teller.say(self.progress.clone().bytes(self.done, self.total));
        }
    }
}

/// Counts what is read.
pub(crate) struct Counted<R> {
    pub inner: R,
    pub count: Count,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.count.add(read as u64);
        Ok(read)
    }
}
