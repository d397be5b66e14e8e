//! Environments. A row holds the whole object as JSON; the columns beside it are what lists need.

use super::SqliteStore;
use super::columns::{json, read_json};
use super::keyset::{Keyset, shelves};
use super::{fault, once};
use crate::port::{AppendError, Environments, ListFilter, OnceRecord, StoreError};
use async_trait::async_trait;
use loopd_domain::environment::Environment;
use loopd_domain::{EnvironmentId, WorkspaceId};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

/// Where an environment that exists already stands, for the conflict that its twin meets: it has no versions.
const FIRST: u64 = 1;

fn create(
    db: &Connection,
    environment: &Environment,
    body: &str,
    once: Option<&OnceRecord>,
) -> Result<(), AppendError> {
    if let Some(record) = once {
        once::insert(db, record)?;
    }
    let mut insert = db
        .prepare_cached(
            "INSERT INTO environments (id, workspace, archived, created_at, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .map_err(StoreError::from)?;
    let inserted = insert.execute(params![
        environment.id.as_str(),
        environment.workspace.as_str(),
        environment.archived_at.is_some(),
        environment.created_at.micros(),
        body,
    ]);
    match inserted {
        Ok(_) => Ok(()),
        Err(e) if fault::is_duplicate(&e) => Err(AppendError::Conflict { actual: FIRST }),
        Err(e) => Err(AppendError::Store(e.into())),
    }
}

fn get(db: &Connection, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<Option<Environment>, StoreError> {
    let mut query = db.prepare_cached("SELECT body FROM environments WHERE id = ?1 AND workspace = ?2")?;
    Ok(query.query_row([id.as_str(), workspace.as_str()], |row| read_json(row, 0)).optional()?)
}

/// The time of creation orders lists and stays what it was.
fn update(db: &Connection, environment: &Environment, body: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE environments SET archived = ?3, body = ?4 WHERE id = ?1 AND workspace = ?2";
    let changed = db.prepare_cached(sql)?.execute(params![
        environment.id.as_str(),
        environment.workspace.as_str(),
        environment.archived_at.is_some(),
        body
    ])?;
    Ok(changed == 1)
}

fn delete(db: &Connection, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<bool, StoreError> {
    let mut delete = db.prepare_cached("DELETE FROM environments WHERE id = ?1 AND workspace = ?2")?;
    Ok(delete.execute([id.as_str(), workspace.as_str()])? == 1)
}

fn list(db: &Connection, filter: ListFilter) -> Result<Vec<Environment>, StoreError> {
    let arms: Vec<String> =
        shelves(filter.include_archived).iter().map(|shelf| format!("workspace = ?6 AND archived = {shelf}")).collect();
    let keyset = Keyset { created: filter.created, ascending: false, after: filter.after, limit: filter.limit };
    let mut values = keyset.values();
    values.push(Value::Text(filter.workspace.as_str().to_owned()));
    let page = keyset.sql("environments", &arms);
    let sql = format!(
        "SELECT e.body FROM ({page}) p CROSS JOIN environments e ON e.key = p.key ORDER BY p.created_at DESC, p.id DESC"
    );
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map(params_from_iter(values), |row| read_json(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[async_trait]
impl Environments for SqliteStore {
    async fn create(&self, environment: Environment, record: Option<OnceRecord>) -> Result<(), AppendError> {
        let body = json(&environment)?;
        let work = move |db: &Connection| match create(db, &environment, &body, record.as_ref()) {
            Err(AppendError::Store(fault)) => Err(fault),
            outcome => Ok(outcome),
        };
        self.writer.write(work).await?
    }

    async fn get(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<Option<Environment>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.row(move |db| get(db, &workspace, &id)).await
    }

    async fn update(&self, environment: Environment) -> Result<bool, StoreError> {
        let body = json(&environment)?;
        self.writer.write_always(move |db| update(db, &environment, &body)).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<Environment>, StoreError> {
        self.readers.read(move |db| list(db, filter)).await
    }

    async fn delete(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<bool, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer.write_always(move |db| delete(db, &workspace, &id)).await
    }
}
