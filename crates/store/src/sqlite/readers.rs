//! A few connections that only read. In write-ahead mode they never wait for the writer, nor it for them.

use super::connection::open_reader;
use crate::StoreError;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Reads at the same time. More would not be faster: they are short, and of the disk there is one.
const CONNECTIONS: usize = 4;

pub struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connections = (0..CONNECTIONS).map(|_| open_reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Readers { idle: Arc::new(Mutex::new(connections)), permits: Arc::new(Semaphore::new(CONNECTIONS)) })
    }

    /// Reads a row by its key, here and now. That takes some microseconds, where handing it to another thread and back takes a hundred;
    /// a page that nobody has read lately costs one read of the disk. When all connections are in use it waits like any other.
    pub async fn row<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else { return self.read(work).await };
        let db = self.idle.lock().pop().ok_or(StoreError::Closed)?;
        let result = work(&db);
        self.idle.lock().push(db);
        drop(permit);
        result
    }

    /// Runs `work` on a thread that may block. What it reads with one statement is one moment of the store.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let idle = self.idle.clone();
        let task = tokio::task::spawn_blocking(move || {
            let db = idle.lock().pop().ok_or(StoreError::Closed)?;
            let result = work(&db);
            idle.lock().push(db);
            drop(permit);
            result
        });
        task.await.unwrap_or(Err(StoreError::Closed))
    }
}
