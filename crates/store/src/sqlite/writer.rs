//! The one thread that writes. Writes that wait together share one commit, and so one barrier of the disk.
//!
//! ```text
//!   callers ──bounded queue──► take what waits (up to APPENDS_PER_COMMIT_MAX)
//!                                 │ BEGIN; each write in a savepoint of its own; COMMIT
//!                                 ▼
//!                              answer each
//! ```
//!
//! There is no timer: a write that comes alone is committed alone, and those that come while the disk works form the next
//! batch. A write that is refused or fails is rolled back to its savepoint and its neighbours go on; when the commit fails,
//! nobody is told anything else than that. A caller that stops waiting does not stop its write.

use super::checkpoint::Checkpoints;
use super::faults::Faults;
use crate::StoreError;
use crate::hold::Hold;
use loopd_domain::limits::{APPENDS_PER_COMMIT_MAX, APPENDS_QUEUED_MAX};
use rusqlite::Connection;
use std::convert::Infallible;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// What a write comes to: done, refused for a reason that the caller knows (leaving no trace), or impossible.
pub type Outcome<T, R> = Result<Result<T, R>, StoreError>;

pub struct Writer {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Writes nothing, and says of nothing that it was written, once the hold is lost.
    pub fn start(
        db: Connection,
        checkpoints: Checkpoints,
        hold: Arc<Hold>,
        faults: Faults,
    ) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel(APPENDS_QUEUED_MAX);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(&db, jobs, checkpoints, &hold, &faults))
            .map_err(|e| StoreError::Unavailable(format!("cannot start the writer's thread: {e}")))?;
        Ok(Writer { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues `work` and waits until its commit is on disk.
    pub async fn write<T, R, F>(&self, work: F) -> Outcome<T, R>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T, R> + Send + 'static,
    {
        self.write_then(work, |_| ()).await
    }

    /// For work that nothing but a fault can keep from being done.
    pub async fn write_always<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        match self.write(move |db| work(db).map(Ok::<T, Infallible>)).await? {
            Ok(done) => Ok(done),
            Err(never) => match never {},
        }
    }

    /// The same as `write`, and calls `committed` on the writer's thread after the commit, even if the caller has stopped waiting.
    pub async fn write_then<T, R, F, C>(&self, work: F, committed: C) -> Outcome<T, R>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T, R> + Send + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task { work: Some(work), outcome: Err(StoreError::Closed), committed, reply };
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.send(Box::new(task)).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Writer {
    /// Finishes what is queued, then closes the database.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer had panicked");
        }
    }
}

/// One write, whatever its type.
trait Job: Send {
    /// True: keep what it did.
    fn run(&mut self, db: &Connection) -> bool;
    /// After the commit, or instead of it.
    fn answer(self: Box<Self>, commit: Result<(), StoreError>);
}

struct Task<T, R, F, C> {
    work: Option<F>,
    outcome: Outcome<T, R>,
    committed: C,
    reply: oneshot::Sender<Outcome<T, R>>,
}

impl<T, R, F, C> Job for Task<T, R, F, C>
where
    T: Send,
    R: Send,
    F: FnOnce(&Connection) -> Outcome<T, R> + Send,
    C: FnOnce(&T) + Send,
{
    fn run(&mut self, db: &Connection) -> bool {
        if let Some(work) = self.work.take() {
            self.outcome = work(db);
        }
        matches!(self.outcome, Ok(Ok(_)))
    }

    fn answer(self: Box<Self>, commit: Result<(), StoreError>) {
        let outcome = match (self.outcome, commit) {
            // A fault of its own says more than that of the batch.
            (Err(fault), _) | (Ok(_), Err(fault)) => Err(fault),
            (Ok(outcome), Ok(())) => Ok(outcome),
        };
        if let Ok(Ok(done)) = &outcome {
            (self.committed)(done);
        }
        // The caller may have stopped waiting; what it asked for is done all the same.
        let _ = self.reply.send(outcome);
    }
}

fn run(
    db: &Connection,
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
    mut checkpoints: Checkpoints,
    hold: &Hold,
    faults: &Faults,
) {
    let mut batch = Vec::with_capacity(APPENDS_PER_COMMIT_MAX);
    while jobs.blocking_recv_many(&mut batch, APPENDS_PER_COMMIT_MAX) > 0 {
        let size = batch.len();
        let result = commit(db, &mut batch, hold, faults);
        if let Err(fault) = &result {
            tracing::warn!(%fault, writes = size, "a commit failed; nothing of it was acknowledged");
        }
        fail::fail_point!("store::after_commit");
        batch.drain(..).for_each(|job| job.answer(result.clone()));
        checkpoints.after_commit(db, size, jobs.is_empty());
    }
}

/// All of the batch in one transaction. On an error nothing of it is there.
fn commit(db: &Connection, batch: &mut [Box<dyn Job>], hold: &Hold, faults: &Faults) -> Result<(), StoreError> {
    execute(db, "BEGIN IMMEDIATE")?;
    // Within the transaction: whoever takes the directory afterwards cannot write before this is over.
    let result = still_ours(hold).and_then(|()| fill(db, batch)).and_then(|()| {
        faults.before_commit(db)?;
        fail::fail_point!("store::before_commit");
        execute(db, "COMMIT")
    });
    // SQLite itself rolls back on some errors: a full disk, a failed read.
    if result.is_err() && !db.is_autocommit() {
        execute(db, "ROLLBACK")?;
    }
    // Stopped in between and continued: what was written stands, but this process has no right to act on it.
    result.and_then(|()| still_ours(hold))
}

fn still_ours(hold: &Hold) -> Result<(), StoreError> {
    if hold.check() { Ok(()) } else { Err(StoreError::Closed) }
}

fn fill(db: &Connection, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    for job in batch {
        execute(db, "SAVEPOINT write")?;
        let keep = job.run(db);
        if db.is_autocommit() {
            return Err(StoreError::Unavailable("another write of the same commit failed; try again".to_owned()));
        }
        if !keep {
            execute(db, "ROLLBACK TO write")?;
        }
        execute(db, "RELEASE write")?;
    }
    Ok(())
}

fn execute(db: &Connection, sql: &str) -> Result<(), StoreError> {
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::connection;

    fn writer(directory: &tempfile::TempDir) -> (Writer, std::path::PathBuf) {
        let path = directory.path().join("loopd.db");
        let db = connection::open_writer(&path).expect("a database");
        db.execute_batch("CREATE TABLE numbers (n INTEGER PRIMARY KEY)").expect("a table");
        let checkpoints = Checkpoints::start(&path).expect("checkpoints");
        let hold = Hold::take(directory.path(), &Default::default()).expect("free");
        (Writer::start(db, checkpoints, Arc::new(hold), Faults::default()).expect("a writer"), path)
    }

    fn insert(n: i64) -> impl FnOnce(&Connection) -> Outcome<(), &'static str> + Send + 'static {
        move |db| {
            db.execute("INSERT INTO numbers VALUES (?1)", [n])?;
            if n < 0 { Ok(Err("negative")) } else { Ok(Ok(())) }
        }
    }

    async fn numbers(writer: &Writer) -> Vec<i64> {
        let read = |db: &Connection| {
            let mut statement = db.prepare("SELECT n FROM numbers ORDER BY n")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        };
        writer.write_always(read).await.expect("read")
    }

    #[tokio::test]
    async fn a_refused_or_failed_write_leaves_nothing_and_harms_no_neighbour() {
        let directory = tempfile::tempdir().expect("a directory");
        let (writer, _) = writer(&directory);
        let (a, refused, failed, b) = tokio::join!(
            writer.write(insert(1)),
            writer.write(insert(-2)),
            writer.write(insert(1)),
            writer.write(insert(3)),
        );
        a.expect("stored").expect("done");
        assert_eq!(refused.expect("stored").expect_err("refused"), "negative");
        failed.expect_err("a duplicate");
        b.expect("stored").expect("done");
        assert_eq!(numbers(&writer).await, [1, 3]);
    }

    #[tokio::test]
    async fn what_is_queued_when_the_store_closes_is_still_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let (writer, path) = writer(&directory);
        for n in 0..10 {
            let mut write = Box::pin(writer.write(insert(n)));
            // Polled once, so that it is queued, and then abandoned.
            assert!(futures_now(write.as_mut()).is_none());
        }
        drop(writer);
        let db = Connection::open(path).expect("opens");
        let count: i64 = db.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0)).expect("counted");
        assert_eq!(count, 10);
    }

    fn futures_now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }
}
