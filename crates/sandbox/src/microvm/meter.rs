//! What a guest tells of its room's limits, kept for whoever asks. It is a stranger's word: bounded, and about its own room.

use crate::port::{Reached, RoomMeter};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

pub(super) struct Signals {
    memory: AtomicBool,
    processes: AtomicBool,
    /// Bytes, told last.
    disk: watch::Sender<u64>,
    /// Of the disk: no more can be used.
    disk_bytes: u64,
}

impl Signals {
    pub(super) fn new(disk_bytes: u64) -> Self {
        let (disk, _) = watch::channel(0);
        Signals { memory: AtomicBool::default(), processes: AtomicBool::default(), disk, disk_bytes }
    }

    pub(super) fn reached(&self, memory: bool, processes: bool) {
        self.memory.fetch_or(memory, Ordering::Relaxed);
        self.processes.fetch_or(processes, Ordering::Relaxed);
    }

    pub(super) fn disk_full(&self, bytes: u64) {
        self.disk.send_replace(bytes.min(self.disk_bytes));
    }
}

pub(super) struct Meter {
    signals: Arc<Signals>,
    disk: watch::Receiver<u64>,
}

impl Meter {
    pub(super) fn new(signals: Arc<Signals>) -> Self {
        let disk = signals.disk.subscribe();
        Meter { signals, disk }
    }
}

#[async_trait]
impl RoomMeter for Meter {
    fn reached(&mut self) -> Reached {
        Reached {
            memory: self.signals.memory.swap(false, Ordering::Relaxed),
            processes: self.signals.processes.swap(false, Ordering::Relaxed),
        }
    }

    async fn disk_full(&mut self, _busy: bool) -> u64 {
        // The sender lives as long as this.
        if self.disk.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.disk.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_is_told_is_heard_once_and_no_more_than_there_is() {
        let signals = Arc::new(Signals::new(100));
        let mut meter = Meter::new(Arc::clone(&signals));
        assert_eq!(meter.reached(), Reached::default());
        signals.reached(true, false);
        signals.reached(false, false);
        assert_eq!(meter.reached(), Reached { memory: true, processes: false });
        assert_eq!(meter.reached(), Reached::default());
        let soon = Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, meter.disk_full(true)).await.is_err());
        signals.disk_full(90);
        assert_eq!(meter.disk_full(true).await, 90);
        assert!(tokio::time::timeout(soon, meter.disk_full(false)).await.is_err());
        signals.disk_full(u64::MAX);
        assert_eq!(meter.disk_full(true).await, 100);
    }
}
