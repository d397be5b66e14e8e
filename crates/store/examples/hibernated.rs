//! What a great many resting sessions cost: makes them in a new store, then times what a server does when it starts and when
//! somebody lists them.
//!
//! `cargo run --release -p loopd-store --example hibernated -- [sessions] [directory]`. The directory is kept and can be served:
//! it is a data directory.
#![allow(clippy::disallowed_methods, reason = "it measures")]

use loopd_domain::agent::{AgentSpec, Metadata};
use loopd_domain::chain::{Entry, GENESIS};
use loopd_domain::content::ContentBlock;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::event::{Event, EventBody};
use loopd_domain::fold::SessionFold;
use loopd_domain::session::{Session, SessionAgent, Status, StopReason, TurnSettings};
use loopd_domain::{AgentId, Epoch, EventId, IdSource, SessionId, Timestamp, WorkspaceId};
use loopd_store::sqlite::SqliteStore;
use loopd_store::{SessionFilter, Store, TimeRange};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

const SESSIONS: usize = 100_000;
/// Sessions that are written at the same time: they share commits.
const WRITERS: usize = 256;
/// Size of the messages in each journal.
const MESSAGE_BYTES: usize = 400;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

struct Ids(AtomicU64, u64);

impl IdSource for Ids {
    fn ulid(&self) -> u128 {
        u128::from(self.1) << 80 | u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let sessions = arguments.next().map_or(Ok(SESSIONS), |n| n.parse())?;
    let directory = arguments.next().map_or_else(|| std::env::temp_dir().join("loopd-hibernated"), PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("loopd.sqlite");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    if !path.exists() {
        let begin = Instant::now();
        fill(&path, sessions, now).await?;
        println!("made {sessions} sessions in {:.1} s", begin.elapsed().as_secs_f64());
    }
    let (store, took) = timed(|| SqliteStore::open(&path))?;
    println!("{:<44} {:>9.2} ms", "open", took.as_secs_f64() * 1e3);
    let now = Timestamp::from_millis(i64::try_from(now.as_millis())?);
    for _ in 0..2 {
        measure("claimable", store.journal().claimable(now, 256)).await?;
        measure("next due", store.journal().next_due(now)).await?;
    }
    for (name, filter) in filters(now) {
        measure(name, store.sessions().list(filter)).await?;
    }
    drop(store);
    let bytes: u64 = std::fs::read_dir(&directory)?.filter_map(|f| Some(f.ok()?.metadata().ok()?.len())).sum();
    println!("{:<44} {:>9} bytes a session", "on disk, log included", bytes / sessions.max(1) as u64);
    println!("{}", directory.display());
    Ok(())
}

fn timed<T, E>(work: impl FnOnce() -> std::result::Result<T, E>) -> std::result::Result<(T, Duration), E> {
    let begin = Instant::now();
    Ok((work()?, begin.elapsed()))
}

async fn measure<T, E: Error + Send + Sync + 'static>(
    name: &str,
    work: impl Future<Output = std::result::Result<T, E>>,
) -> Result<()> {
    let begin = Instant::now();
    work.await?;
    println!("{name:<44} {:>9.2} ms", begin.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn agent_id() -> Result<AgentId> {
    Ok(AgentId::parse("agent", "agent_hibernated").map_err(|e| e.to_string())?)
}

fn filters(now: Timestamp) -> Vec<(&'static str, SessionFilter)> {
    let all = SessionFilter {
        workspace: WorkspaceId::default_workspace(),
        agent: None,
        agent_version: None,
        statuses: vec![],
        include_archived: false,
        created: TimeRange::default(),
        ascending: false,
        after: None,
        limit: 20,
    };
    let created = TimeRange { lt: Some(Timestamp(now.micros() - 1)), ..TimeRange::default() };
    let agent = agent_id().ok();
    vec![
        ("first page", all.clone()),
        ("first page, again", all.clone()),
        ("first page, oldest first", SessionFilter { ascending: true, ..all.clone() }),
        ("first page of 1000", SessionFilter { limit: 1_000, ..all.clone() }),
        ("idle ones", SessionFilter { statuses: vec![Status::Idle], ..all.clone() }),
        ("running ones (there is none)", SessionFilter { statuses: vec![Status::Running], ..all.clone() }),
        ("of an agent, archived too", SessionFilter { agent: agent.clone(), include_archived: true, ..all.clone() }),
        ("of a version that no session has", SessionFilter { agent, agent_version: Some(9), ..all.clone() }),
        ("made before now", SessionFilter { created, ..all }),
    ]
}

async fn fill(path: &Path, sessions: usize, now: Duration) -> Result<()> {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(path)?);
    let ids = Arc::new(Ids(AtomicU64::new(1), u64::try_from(now.as_millis())?));
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..sessions {
        if writers.len() >= WRITERS
            && let Some(done) = writers.join_next().await
        {
            done??;
        }
        let (store, ids) = (store.clone(), ids.clone());
        let at = Timestamp(i64::try_from(now.as_micros())? + i64::try_from(n)?);
        writers.spawn(async move { make(store.as_ref(), ids.as_ref(), at).await });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

/// A session with one turn behind it.
async fn make(store: &dyn Store, ids: &Ids, at: Timestamp) -> Result<()> {
    let spec: AgentSpec = serde_json::from_str(r#"{"name":"hibernated","model":{"id":"builtin/shell"}}"#)?;
    let content = || vec![ContentBlock::text("x".repeat(MESSAGE_BYTES))];
    let bodies = [
        EventBody::UserMessage { content: content() },
        EventBody::StatusRunning { turn: 1, settings: TurnSettings::default() },
        EventBody::SystemMessage { content: content() },
        EventBody::StatusIdle { stop_reason: StopReason::EndTurn, stop_details: None },
    ];
    let (mut fold, mut hash, mut entries) = (SessionFold::default(), GENESIS, Vec::new());
    for body in bodies {
        let event = Event { seq: fold.last_seq + 1, id: EventId::generate(ids), at, body };
        fold.apply(&event)?;
        let entry = Entry::seal(&hash, &event)?;
        hash = entry.hash;
        entries.push(entry);
    }
    let session = Session {
        id: SessionId::generate(ids),
        workspace: WorkspaceId::default_workspace(),
        agent: SessionAgent { id: Some(agent_id()?), version: 1, spec },
        environment: None,
        vaults: Vec::new(),
        room: EnvironmentConfig::default(),
        title: None,
        metadata: Metadata::new(),
        created_at: at,
        updated_at: at,
        archived_at: None,
        fold,
        epoch: Epoch(1),
    };
    Ok(store.journal().create(session, entries, None, None).await?)
}
