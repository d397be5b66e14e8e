//! The audit log as the rest of the house writes it: at once where something must not happen without its entry, and through a bounded
//! queue where it has happened already.
//!
//! ```text
//!  use of a credential ── write ──────────────► store, then the credential is used
//!  request that was answered ── note ─► queue ─► store, many at once
//!  request that was refused ── refused ─► [so many in a second] ─► queue;  the others are counted, and the count is written
//! ```
//!
//! A store that does not take writes holds the queue up; what finds it full is counted, and the count is written once the store is
//! back. A process that is killed loses what was queued: some milliseconds of requests, and never the use of a credential.

use super::{Audit, AuditError};
use async_trait::async_trait;
use loopd_domain::audit::{Actor, AuditEntry, AuditRecord, AuditResult};
use loopd_domain::limits::{
    AUDIT_DELETED_AT_ONCE, AUDIT_PER_WRITE_MAX, AUDIT_QUEUED_MAX, AUDIT_REFUSALS_BURST, AUDIT_REFUSALS_PER_SECOND,
};
use loopd_domain::rate::{Bucket, Rate};
use loopd_domain::{AuditId, Clock, IdSource, RequestId, WorkspaceId};
use loopd_store::Store;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

const REFUSALS: Rate = Rate { per_second: AUDIT_REFUSALS_PER_SECOND, burst: AUDIT_REFUSALS_BURST };
/// Between two looks for entries that are too old, and for counts to write.
const SWEEP: Duration = Duration::from_secs(60);
/// Between two tries of a write, doubling up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// How long whoever stops waits for the queue to be written.
const FLUSH: Duration = Duration::from_secs(5);
const DAY_MS: u64 = 24 * 3_600_000;

/// What an audit log is built on.
pub struct TrailParts {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    /// How long entries are kept.
    pub retention_days: u64,
}

#[allow(clippy::large_enum_variant, reason = "nearly all are records")]
enum Item {
    Record(AuditRecord),
    /// Answered when all before it is written.
    Flush(oneshot::Sender<()>),
}

pub struct Trail {
    parts: Arc<TrailParts>,
    queue: mpsc::Sender<Item>,
    counts: Arc<Counts>,
    refusals: Mutex<Bucket>,
}

/// What was not written.
#[derive(Default)]
struct Counts {
    /// There was no room in the queue.
    lost: AtomicU64,
    /// There were too many refusals.
    skipped: AtomicU64,
}

impl Trail {
    /// Starts the task that writes the queue; it ends once the trail is dropped and the queue is empty.
    pub fn start(parts: TrailParts) -> Self {
        let parts = Arc::new(parts);
        let (queue, items) = mpsc::channel(AUDIT_QUEUED_MAX);
        let counts = Arc::new(Counts::default());
        tokio::spawn(Scribe { parts: parts.clone(), counts: counts.clone() }.run(items));
        let refusals = Mutex::new(Bucket::full(REFUSALS, parts.clock.now()));
        Trail { parts, queue, counts, refusals }
    }

    /// Queues an entry of what has happened. Never waits.
    pub fn note(&self, entry: AuditEntry, request: Option<RequestId>) {
        let record = AuditRecord { id: AuditId::generate(self.parts.ids.as_ref()), request, entry };
        if self.queue.try_send(Item::Record(record)).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The same for a request of nobody in particular that was turned away; a flood of them fills the log only so fast.
    pub fn refused(&self, entry: AuditEntry, request: Option<RequestId>) {
        let taken = self.refusals.lock().take(REFUSALS, entry.at);
        match taken {
            Ok(()) => self.note(entry, request),
            Err(_) => _ = self.counts.skipped.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Returns when everything that was noted before is on disk, or when it has waited long enough.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        let all = async {
            // Either end gone means that there is no task to wait for.
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                let _ = written.await;
            }
        };
        if tokio::time::timeout(FLUSH, all).await.is_err() {
            tracing::error!("the audit log could not be written in time; its latest entries are lost");
        }
    }
}

#[async_trait]
impl Audit for Trail {
    async fn write(&self, entry: AuditEntry) -> Result<(), AuditError> {
        let record = AuditRecord { id: AuditId::generate(self.parts.ids.as_ref()), request: None, entry };
        let written = self.parts.store.audit().append(vec![record]).await;
        written.map_err(|fault| AuditError(fault.to_string()))
    }
}

/// Writes the queue, and removes what is too old.
struct Scribe {
    parts: Arc<TrailParts>,
    counts: Arc<Counts>,
}

impl Scribe {
    async fn run(self, mut items: mpsc::Receiver<Item>) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(AUDIT_PER_WRITE_MAX);
        loop {
            tokio::select! {
                taken = items.recv_many(&mut batch, AUDIT_PER_WRITE_MAX) => {
                    if taken == 0 {
                        return;
                    }
                    self.write(&mut batch, &items).await;
                }
                _ = sweep.tick() => {
                    self.write(&mut batch, &items).await;
                    self.expire().await;
                }
            }
        }
    }

    async fn write(&self, batch: &mut Vec<Item>, items: &mpsc::Receiver<Item>) {
        let mut records = Vec::new();
        let mut waiting = Vec::new();
        for item in batch.drain(..) {
            match item {
                Item::Record(record) => records.push(record),
                Item::Flush(done) => waiting.push(done),
            }
        }
        records.extend(self.uncounted("audit.lost", &self.counts.lost, "the queue of the audit log was full"));
        records.extend(self.uncounted("audit.skipped", &self.counts.skipped, "too many requests were refused at once"));
        if !records.is_empty() {
            self.insist(records, items).await;
        }
        for done in waiting {
            // Whoever stopped waiting does not mind.
            let _ = done.send(());
        }
    }

    /// How many there were of what was not written.
    fn uncounted(&self, action: &str, count: &AtomicU64, reason: &str) -> Option<AuditRecord> {
        let count = count.swap(0, Ordering::Relaxed);
        (count > 0).then(|| {
            let entry = AuditEntry {
                at: self.parts.clock.now(),
                workspace: WorkspaceId::default_workspace(),
                actor: Actor::Operator,
                action: action.to_owned(),
                resource: String::new(),
                result: AuditResult::Failed { reason: format!("{count} entries are missing here: {reason}") },
                credential_use: None,
            };
            AuditRecord { id: AuditId::generate(self.parts.ids.as_ref()), request: None, entry }
        })
    }

    /// Until the store takes it, or nobody is there any more who could tell it more.
    async fn insist(&self, records: Vec<AuditRecord>, items: &mpsc::Receiver<Item>) {
        let mut pause = PAUSE_FIRST;
        while let Err(fault) = self.parts.store.audit().append(records.clone()).await {
            let entries = records.len();
            if items.is_closed() {
                tracing::error!(%fault, entries, "entries of the audit log are lost: the store does not take them");
                return;
            }
            tracing::error!(%fault, entries, "the audit log cannot be written; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    async fn expire(&self) {
        let age = i64::try_from(self.parts.retention_days.saturating_mul(DAY_MS)).unwrap_or(i64::MAX);
        let before = loopd_domain::Timestamp::from_millis(self.parts.clock.now().millis().saturating_sub(age));
        loop {
            match self.parts.store.audit().expire(before, AUDIT_DELETED_AT_ONCE).await {
                Ok(0) => return,
                Ok(entries) => tracing::info!(entries, "old entries of the audit log were removed"),
                Err(fault) => {
                    tracing::warn!(%fault, "old entries of the audit log could not be removed; trying again later");
                    return;
                }
            }
        }
    }
}
