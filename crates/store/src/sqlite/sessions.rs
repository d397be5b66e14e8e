//! Sessions as a resource: found, listed, changed by their callers, removed.

use super::SqliteStore;
use super::columns::{int, json, read_count, read_id, read_id_opt, read_json, read_time, read_time_opt};
use super::keyset::{Keyset, shelves};
use super::place::{SessionKey, end, place};
use crate::port::{SessionChange, SessionFilter, Sessions, StoreError};
use async_trait::async_trait;
use loopd_domain::session::{Session, SessionAgent, Status};
use loopd_domain::{AgentId, EnvironmentId, Epoch, SessionId, WorkspaceId};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

/// All columns of a session, for [`session`].
const COLUMNS: &str = "s.id, s.workspace, s.agent, s.agent_version, s.environment, s.created_at, s.updated_at,
    s.archived_at, d.title, d.metadata, d.agent AS spec, d.room, j.fold, j.epoch, d.vaults";
const PARTS: &str = "JOIN definitions d ON d.session = s.key JOIN journals j ON j.session = s.key";

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: read_id(row, 0, SessionId::parse)?,
        workspace: read_id(row, 1, WorkspaceId::parse)?,
        agent: SessionAgent {
            id: read_id_opt(row, 2, AgentId::parse)?,
            version: read_count(row, 3)?,
            spec: read_json(row, 10)?,
        },
        environment: read_id_opt(row, 4, EnvironmentId::parse)?,
        created_at: read_time(row, 5)?,
        updated_at: read_time(row, 6)?,
        archived_at: read_time_opt(row, 7)?,
        title: row.get(8)?,
        metadata: read_json(row, 9)?,
        room: read_json(row, 11)?,
        fold: read_json(row, 12)?,
        epoch: Epoch(read_count(row, 13)?),
        vaults: read_json(row, 14)?,
    })
}

pub fn by_key(db: &Connection, key: SessionKey) -> Result<Option<Session>, StoreError> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions s {PARTS} WHERE s.key = ?1"))?;
    Ok(query.query_row([key.0], session).optional()?)
}

fn get(db: &Connection, workspace: &WorkspaceId, id: &SessionId) -> Result<Option<Session>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM sessions s {PARTS} WHERE s.id = ?1 AND s.workspace = ?2");
    let mut query = db.prepare_cached(&sql)?;
    Ok(query.query_row([id.as_str(), workspace.as_str()], session).optional()?)
}

fn list(db: &Connection, filter: SessionFilter) -> Result<Vec<Session>, StoreError> {
    let (sql, values) = query(filter);
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map(params_from_iter(values), session)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A page of sessions, as SQL and its parameters.
fn query(filter: SessionFilter) -> (String, Vec<Value>) {
    let arms = arms(&filter);
    let keyset = Keyset {
        created: filter.created,
        ascending: filter.ascending,
        after: filter.after.map(|(time, id)| (time, id.as_str().to_owned())),
        limit: filter.limit,
    };
    let mut values = keyset.values();
    values.push(Value::Text(filter.workspace.as_str().to_owned()));
    values.extend(filter.agent.map(|id| Value::Text(id.as_str().to_owned())));
    values.extend(filter.agent_version.map(|version| Value::Integer(int(version))));
    let (page, direction) = (keyset.sql("sessions", &arms), keyset.direction());
    let sql = format!(
        "SELECT {COLUMNS} FROM ({page}) p CROSS JOIN sessions s ON s.key = p.key {PARTS}
         ORDER BY p.created_at {direction}, p.id {direction}"
    );
    (sql, values)
}

/// One range of an index for each status, archived and not.
fn arms(filter: &SessionFilter) -> Vec<String> {
    let statuses = if filter.statuses.is_empty() { &Status::ALL[..] } else { &filter.statuses };
    let wanted = |status: &&Status| statuses.contains(status);
    let mut rest = String::from("workspace = ?6");
    let mut next = 7;
    for (column, present) in [("agent", filter.agent.is_some()), ("agent_version", filter.agent_version.is_some())] {
        if present {
            rest.push_str(&format!(" AND {column} = ?{next}"));
            next += 1;
        }
    }
    let shelves = shelves(filter.include_archived);
    let ranges = shelves.iter().flat_map(|shelf| Status::ALL.iter().filter(wanted).map(move |status| (shelf, status)));
    ranges.map(|(shelf, status)| format!("{rest} AND archived = {shelf} AND status = '{}'", status.as_str())).collect()
}

/// A change of a session, serialised. Made on the caller's thread.
pub struct Change {
    change: SessionChange,
    metadata: String,
    spec: String,
}

impl Change {
    pub fn new(change: SessionChange) -> Result<Self, StoreError> {
        Ok(Change { metadata: json(&change.metadata)?, spec: json(&change.agent.spec)?, change })
    }

    /// Runs in the transaction of the append that it belongs to.
    pub fn run(&self, db: &Connection, key: SessionKey) -> Result<(), StoreError> {
        let change = &self.change;
        db.prepare_cached(
            "UPDATE sessions SET agent = ?2, agent_version = ?3, archived = ?4, archived_at = ?5, updated_at = ?6
             WHERE key = ?1",
        )?
        .execute(params![
            key.0,
            change.agent.id.as_ref().map(|id| id.as_str()),
            int(change.agent.version),
            change.archived_at.is_some(),
            change.archived_at.map(|t| t.micros()),
            change.updated_at.micros(),
        ])?;
        db.prepare_cached("UPDATE definitions SET title = ?2, metadata = ?3, agent = ?4 WHERE session = ?1")?
            .execute(params![key.0, change.title, self.metadata, self.spec])?;
        Ok(())
    }
}

/// The rows that belong to a session go with it by the schema's own rule; its entries are a range of their table.
fn delete(db: &Connection, workspace: &WorkspaceId, id: &SessionId) -> Result<bool, StoreError> {
    let mut delete = db.prepare_cached("DELETE FROM sessions WHERE id = ?1 AND workspace = ?2 RETURNING key")?;
    let key = delete.query_row([id.as_str(), workspace.as_str()], |row| row.get(0)).optional()?;
    let Some(key) = key.map(SessionKey) else { return Ok(false) };
    let range = [place(key, 0)?, end(key)];
    db.prepare_cached("DELETE FROM events WHERE place BETWEEN ?1 AND ?2")?.execute(range)?;
    Ok(true)
}

#[async_trait]
impl Sessions for SqliteStore {
    async fn get(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.row(move |db| get(db, &workspace, &id)).await
    }

    async fn list(&self, filter: SessionFilter) -> Result<Vec<Session>, StoreError> {
        self.readers.read(move |db| list(db, filter)).await
    }

    async fn delete(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<bool, StoreError> {
        let (workspace, session) = (workspace.clone(), id.clone());
        let deleted = self.writer.write_always(move |db| delete(db, &workspace, &session)).await?;
        if deleted {
            self.watches.close(id);
        }
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::TimeRange;
    use loopd_domain::Timestamp;

    /// Most pages take a thousand. The dearest walks all entries of an agent's index, four steps each, for the few of one version.
    const STEPS_MAX: i32 = 600_000;
    const ROWS: i64 = 100_000;

    /// A hundred thousand sessions of one agent: every thousandth runs or is archived, the last ten have version 2.
    fn crowded() -> Connection {
        let db = Connection::open_in_memory().expect("memory");
        super::super::migrate::migrate(&db, std::path::Path::new("memory")).expect("a schema");
        let spec = r#"{"name":"a","model":{"id":"builtin/script"}}"#;
        let fold = serde_json::to_string(&loopd_domain::fold::SessionFold::default()).expect("serialises");
        db.execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {ROWS})
             INSERT INTO sessions SELECT n, 'sesn_' || printf('%026d', n), 'wrkspc_default', 'agent_1',
                 iif(n > {ROWS} - 10, 2, 1), NULL, iif(n % 1000 = 0, 'running', 'idle'), n % 1000 = 1, n, n,
                 iif(n % 1000 = 1, n, NULL) FROM n;
             INSERT INTO definitions (session, title, metadata, agent, room) SELECT key, NULL, '{{}}', '{spec}', '{{}}' FROM sessions;
             INSERT INTO journals (session, epoch, last_seq, last_hash, due_at, fold)
                 SELECT key, 1, 0, zeroblob(32), iif(status = 'running', 0, NULL), '{fold}' FROM sessions;
             COMMIT"
        ))
        .expect("filled");
        db
    }

    fn filters() -> Vec<SessionFilter> {
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
        let agent = || AgentId::parse("agent", "agent_1").ok();
        let middle = SessionId::parse("session", &format!("sesn_{:026}", ROWS / 2)).expect("an id");
        let after = Some((Timestamp(ROWS / 2), middle));
        let created =
            TimeRange { gte: Some(Timestamp(ROWS / 3)), lt: Some(Timestamp(ROWS / 2)), ..TimeRange::default() };
        let running = vec![Status::Running];
        let mut filters = vec![
            all.clone(),
            SessionFilter { after: after.clone(), ..all.clone() },
            SessionFilter { agent: agent(), after, ..all.clone() },
            SessionFilter { include_archived: true, statuses: running.clone(), ..all.clone() },
            SessionFilter { agent: agent(), statuses: running, created, ..all.clone() },
            SessionFilter { agent: agent(), agent_version: Some(2), ..all },
        ];
        let upwards: Vec<_> = filters.iter().map(|f| SessionFilter { ascending: true, ..f.clone() }).collect();
        filters.extend(upwards);
        filters
    }

    #[test]
    fn every_list_is_read_along_an_index() {
        let db = Connection::open_in_memory().expect("memory");
        super::super::migrate::migrate(&db, std::path::Path::new("memory")).expect("a schema");
        for filter in filters() {
            let (sql, values) = query(filter.clone());
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepared");
            let steps = plan.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).expect("planned");
            let steps: Vec<_> = steps.map(|s| s.expect("text")).collect();
            let scans = steps.iter().filter(|s| s.starts_with("SCAN") && *s != "SCAN p").count();
            let wanted = if filter.agent.is_some() { "INDEX sessions_by_agent" } else { "INDEX sessions_by_status" };
            assert_eq!(scans, 0, "{steps:#?}");
            assert!(steps.iter().any(|s| s.contains(wanted)), "{steps:#?}");
            // Only the page itself may be sorted, never an arm.
            assert!(steps.iter().filter(|s| s.contains("TEMP B-TREE")).count() <= 1, "{steps:#?}");
        }
    }

    /// Steps of SQLite's machine, which no busy neighbour changes.
    #[test]
    fn a_page_of_a_hundred_thousand_sessions_takes_few_steps() {
        let db = crowded();
        for filter in filters() {
            let (sql, values) = query(filter.clone());
            let mut page = db.prepare(&sql).expect("prepared");
            let rows = page.query_map(params_from_iter(values), |_| Ok(())).expect("listed").count();
            let steps = page.get_status(rusqlite::StatementStatus::VmStep);
            assert!(rows > 0 && steps < STEPS_MAX, "{steps} steps for {rows} rows: {filter:?}");
        }
    }
}
