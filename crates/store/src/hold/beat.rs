//! The holder's sign of life, and its look whether the directory is still its own.

use super::Shared;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that touches the lock's file at an interval, until this is dropped.
pub struct Beat {
    /// `None` only while dropping.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Beat {
    pub(super) fn start(shared: Arc<Shared>, interval: Duration) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("store-beat".to_owned()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
                if !shared.check() {
                    return;
                }
                if let Err(fault) = shared.touch() {
                    tracing::warn!(%fault, "the lock's file could not be touched; others may take this process for gone");
                }
            }
        })?;
        Ok(Beat { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            // Whoever is told of a loss may drop everything, on this very thread.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that shows that this process lives had panicked");
        }
    }
}
