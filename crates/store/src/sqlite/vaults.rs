//! Vaults, their credentials and their data keys. Rows hold the objects as JSON, secrets and keys as sealed bytes.

use super::SqliteStore;
use super::columns::{int, json, read_count, read_id, read_json};
use super::keyset::{Keyset, shelves};
use super::{fault, once, redact};
use crate::port::{AppendError, ListFilter, OnceRecord, StoreError};
use crate::vaults::{CredentialError, KeyOwner, SealedCredential, SealedSecret, SealedVault, Vaults, WrappedKey};
use async_trait::async_trait;
use loopd_domain::limits::CREDENTIALS_MAX;
use loopd_domain::vault::{Credential, Vault};
use loopd_domain::{CredentialId, Timestamp, VaultId, WorkspaceId};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

/// Where a vault that exists already stands, for the conflict that its twin meets: it has no versions.
const FIRST: u64 = 1;
/// Owner of the data key that is no vault's. Keys of rows begin at 1.
const HOUSE: i64 = 0;

/// A vault's row.
#[derive(Clone, Copy)]
struct VaultKey(i64);

fn find(db: &Connection, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<(VaultKey, Vault)>, StoreError> {
    let mut query = db.prepare_cached("SELECT key, body FROM vaults WHERE id = ?1 AND workspace = ?2")?;
    let row = |row: &Row<'_>| Ok((VaultKey(row.get(0)?), read_json(row, 1)?));
    Ok(query.query_row([id.as_str(), workspace.as_str()], row).optional()?)
}

fn create(
    db: &Connection,
    vault: &Vault,
    body: &str,
    key: &WrappedKey,
    record: Option<&OnceRecord>,
) -> Result<(), AppendError> {
    if let Some(record) = record {
        once::insert(db, record)?;
    }
    let sql = "INSERT INTO vaults (id, workspace, archived, created_at, body) VALUES (?1, ?2, ?3, ?4, ?5)";
    let inserted = db.prepare_cached(sql).map_err(StoreError::from)?.execute(params![
        vault.id.as_str(),
        vault.workspace.as_str(),
        vault.archived_at.is_some(),
        vault.created_at.micros(),
        body,
    ]);
    match inserted {
        Ok(_) => Ok(insert_key(db, db.last_insert_rowid(), key)?),
        Err(e) if fault::is_duplicate(&e) => Err(AppendError::Conflict { actual: FIRST }),
        Err(e) => Err(AppendError::Store(e.into())),
    }
}

fn insert_key(db: &Connection, owner: i64, key: &WrappedKey) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO data_keys (owner, master, bytes) VALUES (?1, ?2, ?3)")?
        .execute(params![owner, key.master, key.bytes])?;
    Ok(())
}

/// The time of creation orders lists and stays what it was.
fn update(db: &Connection, vault: &Vault, body: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE vaults SET body = ?3 WHERE id = ?1 AND workspace = ?2 AND archived = 0";
    Ok(db.prepare_cached(sql)?.execute(params![vault.id.as_str(), vault.workspace.as_str(), body])? == 1)
}

fn archive(db: &Connection, workspace: &WorkspaceId, id: &VaultId, at: Timestamp) -> Result<Option<Vault>, StoreError> {
    let Some((key, vault)) = find(db, workspace, id)? else { return Ok(None) };
    if vault.archived_at.is_some() {
        return Ok(Some(vault));
    }
    let vault = Vault { archived_at: Some(at), updated_at: at, ..vault };
    db.prepare_cached("UPDATE vaults SET archived = 1, body = ?2 WHERE key = ?1")?
        .execute(params![key.0, json(&vault)?])?;
    db.prepare_cached("DELETE FROM data_keys WHERE owner = ?1")?.execute([key.0])?;
    let mut active = db.prepare_cached("SELECT key, body FROM credentials WHERE vault = ?1 AND archived = 0")?;
    let rows = active.query_map([key.0], |row| Ok((row.get(0)?, read_json(row, 1)?)))?;
    for (row, credential) in rows.collect::<Result<Vec<(i64, Credential)>, _>>()? {
        purge(db, row, credential, at)?;
    }
    Ok(Some(vault))
}

/// The secret goes, and the name is free.
fn purge(db: &Connection, row: i64, credential: Credential, at: Timestamp) -> Result<Credential, StoreError> {
    let credential = Credential { archived_at: Some(at), updated_at: at, ..credential };
    let sql = "UPDATE credentials SET archived = 1, name = NULL, sealed = NULL, body = ?2 WHERE key = ?1";
    db.prepare_cached(sql)?.execute(params![row, json(&credential)?])?;
    Ok(credential)
}

fn delete(db: &Connection, workspace: &WorkspaceId, id: &VaultId) -> Result<bool, StoreError> {
    let mut delete = db.prepare_cached("DELETE FROM vaults WHERE id = ?1 AND workspace = ?2 RETURNING key")?;
    let key: Option<i64> = delete.query_row([id.as_str(), workspace.as_str()], |row| row.get(0)).optional()?;
    let Some(key) = key else { return Ok(false) };
    db.prepare_cached("DELETE FROM data_keys WHERE owner = ?1")?.execute([key])?;
    Ok(true)
}

fn list(db: &Connection, filter: ListFilter) -> Result<Vec<Vault>, StoreError> {
    let arms: Vec<String> =
        shelves(filter.include_archived).iter().map(|shelf| format!("workspace = ?6 AND archived = {shelf}")).collect();
    let owner = Value::Text(filter.workspace.as_str().to_owned());
    page(db, "vaults", &arms, filter, owner)
}

fn credentials(db: &Connection, vault: &VaultId, filter: ListFilter) -> Result<Vec<Credential>, StoreError> {
    let Some((key, _)) = find(db, &filter.workspace, vault)? else { return Ok(Vec::new()) };
    let arms: Vec<String> =
        shelves(filter.include_archived).iter().map(|shelf| format!("vault = ?6 AND archived = {shelf}")).collect();
    page(db, "credentials", &arms, filter, Value::Integer(key.0))
}

/// A page of the bodies of a table, newest first. `owner` is the arms' parameter 6.
fn page<T: serde::de::DeserializeOwned>(
    db: &Connection,
    table: &str,
    arms: &[String],
    filter: ListFilter,
    owner: Value,
) -> Result<Vec<T>, StoreError> {
    let keyset = Keyset { created: filter.created, ascending: false, after: filter.after, limit: filter.limit };
    let mut values = keyset.values();
    values.push(owner);
    let page = keyset.sql(table, arms);
    let sql = format!(
        "SELECT t.body FROM ({page}) p CROSS JOIN {table} t ON t.key = p.key ORDER BY p.created_at DESC, p.id DESC"
    );
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map(params_from_iter(values), |row| read_json(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn add(
    db: &Connection,
    new: &SealedCredential,
    body: &str,
    record: Option<&OnceRecord>,
) -> Result<(), CredentialError> {
    let credential = &new.credential;
    if let Some(record) = record {
        once::insert(db, record)?;
    }
    let (vault, owner) = find(db, &credential.workspace, &credential.vault)?.ok_or(CredentialError::Absent)?;
    if owner.archived_at.is_some() {
        return Err(CredentialError::Archived);
    }
    let name = credential.auth.key();
    let taken: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM credentials WHERE vault = ?1 AND name = ?2)")
        .and_then(|mut query| query.query_row(params![vault.0, name], |row| row.get(0)))
        .map_err(StoreError::from)?;
    if taken {
        return Err(CredentialError::KeyTaken);
    }
    let active: i64 = db
        .prepare_cached("SELECT count(*) FROM credentials WHERE vault = ?1 AND archived = 0")
        .and_then(|mut query| query.query_row([vault.0], |row| row.get(0)))
        .map_err(StoreError::from)?;
    if active >= int(CREDENTIALS_MAX as u64) {
        return Err(CredentialError::Full { max: CREDENTIALS_MAX });
    }
    let sql =
        "INSERT INTO credentials (id, vault, archived, created_at, name, body, version, placeholder_chars, sealed)
        VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8)";
    let inserted = db.prepare_cached(sql).map_err(StoreError::from)?.execute(params![
        credential.id.as_str(),
        vault.0,
        credential.created_at.micros(),
        name,
        body,
        int(new.secret.version),
        int(new.secret.placeholder_chars),
        new.secret.bytes,
    ]);
    match inserted {
        Ok(_) => Ok(()),
        Err(e) if fault::is_duplicate(&e) => Err(AppendError::Conflict { actual: FIRST }.into()),
        Err(e) => Err(StoreError::from(e).into()),
    }
}

/// Columns of a credential, for [`sealed_row`].
const SEALED: &str = "c.body, c.version, c.placeholder_chars, c.sealed";

fn sealed_row(row: &Row<'_>) -> rusqlite::Result<SealedCredential> {
    let (version, placeholder_chars) = (read_count(row, 1)?, read_count(row, 2)?);
    let secret = SealedSecret { version, placeholder_chars, bytes: row.get(3)? };
    Ok(SealedCredential { credential: read_json(row, 0)?, secret })
}

fn sealed(
    db: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    id: &CredentialId,
) -> Result<Option<SealedCredential>, StoreError> {
    let sql = format!(
        "SELECT {SEALED} FROM credentials c JOIN vaults v ON v.key = c.vault
         WHERE c.id = ?1 AND v.id = ?2 AND v.workspace = ?3 AND c.sealed IS NOT NULL"
    );
    let mut query = db.prepare_cached(&sql)?;
    Ok(query.query_row([id.as_str(), vault.as_str(), workspace.as_str()], sealed_row).optional()?)
}

fn credential(
    db: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    id: &CredentialId,
) -> Result<Option<(i64, Credential)>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT c.key, c.body FROM credentials c JOIN vaults v ON v.key = c.vault
         WHERE c.id = ?1 AND v.id = ?2 AND v.workspace = ?3",
    )?;
    let row = |row: &Row<'_>| Ok((row.get(0)?, read_json(row, 1)?));
    Ok(query.query_row([id.as_str(), vault.as_str(), workspace.as_str()], row).optional()?)
}

fn change(db: &Connection, new: &SealedCredential, body: &str, expected: u64) -> Result<(), CredentialError> {
    let Credential { id, vault, workspace, .. } = &new.credential;
    let (row, found) = credential(db, workspace, vault, id)?.ok_or(CredentialError::Absent)?;
    if found.archived_at.is_some() {
        return Err(CredentialError::Archived);
    }
    let changed = db
        .prepare_cached("UPDATE credentials SET body = ?3, version = ?4, sealed = ?5 WHERE key = ?1 AND version = ?2")
        .and_then(|mut update| {
            update.execute(params![row, int(expected), body, int(new.secret.version), new.secret.bytes])
        })
        .map_err(StoreError::from)?;
    if changed == 1 {
        return Ok(());
    }
    let current = db
        .prepare_cached("SELECT version FROM credentials WHERE key = ?1")
        .and_then(|mut query| query.query_row([row], |row| read_count(row, 0)))
        .map_err(StoreError::from)?;
    Err(CredentialError::Moved { current })
}

fn archive_credential(
    db: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    id: &CredentialId,
    at: Timestamp,
) -> Result<Option<Credential>, StoreError> {
    match credential(db, workspace, vault, id)? {
        None => Ok(None),
        Some((_, found)) if found.archived_at.is_some() => Ok(Some(found)),
        Some((row, found)) => purge(db, row, found, at).map(Some),
    }
}

fn delete_credential(
    db: &Connection,
    workspace: &WorkspaceId,
    vault: &VaultId,
    id: &CredentialId,
) -> Result<bool, StoreError> {
    let Some((row, _)) = credential(db, workspace, vault, id)? else { return Ok(false) };
    Ok(db.prepare_cached("DELETE FROM credentials WHERE key = ?1")?.execute([row])? == 1)
}

/// One transaction: a vault that is archived in between is either whole or gone.
fn open(db: &Connection, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<SealedVault>, StoreError> {
    let moment = db.unchecked_transaction()?;
    let Some((key, _)) = find(&moment, workspace, id)? else { return Ok(None) };
    let Some(data_key) = wrapped(&moment, key.0)? else { return Ok(None) };
    let sql =
        format!("SELECT {SEALED} FROM credentials c WHERE c.vault = ?1 AND c.archived = 0 ORDER BY c.created_at, c.id");
    let mut query = moment.prepare_cached(&sql)?;
    let credentials = query.query_map([key.0], sealed_row)?.collect::<Result<_, _>>()?;
    Ok(Some(SealedVault { key: data_key, credentials }))
}

fn wrapped(db: &Connection, owner: i64) -> Result<Option<WrappedKey>, StoreError> {
    let mut query = db.prepare_cached("SELECT master, bytes FROM data_keys WHERE owner = ?1")?;
    let row = |row: &Row<'_>| Ok(WrappedKey { master: row.get(0)?, bytes: row.get(1)? });
    Ok(query.query_row([owner], row).optional()?)
}

fn owner_row(db: &Connection, owner: &KeyOwner) -> Result<Option<i64>, StoreError> {
    match owner {
        KeyOwner::House => Ok(Some(HOUSE)),
        KeyOwner::Vault { workspace, vault } => Ok(find(db, workspace, vault)?.map(|(key, _)| key.0)),
    }
}

fn keys_not_under(db: &Connection, master: &str, limit: usize) -> Result<Vec<(KeyOwner, WrappedKey)>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT k.master, k.bytes, k.owner, v.workspace, v.id FROM data_keys k LEFT JOIN vaults v ON v.key = k.owner
         WHERE k.master <> ?1 LIMIT ?2",
    )?;
    let row = |row: &Row<'_>| {
        let key = WrappedKey { master: row.get(0)?, bytes: row.get(1)? };
        let owner = match row.get::<_, i64>(2)? {
            HOUSE => KeyOwner::House,
            _ => KeyOwner::Vault {
                workspace: read_id(row, 3, WorkspaceId::parse)?,
                vault: read_id(row, 4, VaultId::parse)?,
            },
        };
        Ok((owner, key))
    };
    Ok(query.query_map(params![master, int(limit as u64)], row)?.collect::<Result<_, _>>()?)
}

fn masters(db: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    let mut query = db.prepare_cached("SELECT master, count(*) FROM data_keys GROUP BY master ORDER BY master")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, read_count(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn rewrap(db: &Connection, owner: &KeyOwner, old: &WrappedKey, new: &WrappedKey) -> Result<bool, StoreError> {
    let Some(owner) = owner_row(db, owner)? else { return Ok(false) };
    let sql = "UPDATE data_keys SET master = ?4, bytes = ?5 WHERE owner = ?1 AND master = ?2 AND bytes = ?3";
    let changed = db.prepare_cached(sql)?.execute(params![owner, old.master, old.bytes, new.master, new.bytes])?;
    Ok(changed == 1)
}

/// What the writer keeps is `Ok(Ok(_))`; a refusal is told, a fault of the store is one.
fn told<T>(outcome: Result<T, CredentialError>) -> Result<Result<T, CredentialError>, StoreError> {
    match outcome {
        Err(CredentialError::Append(AppendError::Store(fault))) => Err(fault),
        outcome => Ok(outcome),
    }
}

#[async_trait]
impl Vaults for SqliteStore {
    async fn create(&self, vault: Vault, key: WrappedKey, record: Option<OnceRecord>) -> Result<(), AppendError> {
        let body = json(&vault)?;
        let work = move |db: &Connection| match create(db, &vault, &body, &key, record.as_ref()) {
            Err(AppendError::Store(fault)) => Err(fault),
            outcome => Ok(outcome),
        };
        self.writer.write(work).await?
    }

    async fn get(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<Vault>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.read(move |db| Ok(find(db, &workspace, &id)?.map(|(_, vault)| vault))).await
    }

    async fn update(&self, vault: Vault) -> Result<bool, StoreError> {
        let body = json(&vault)?;
        self.writer.write_always(move |db| update(db, &vault, &body)).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<Vault>, StoreError> {
        self.readers.read(move |db| list(db, filter)).await
    }

    async fn archive(&self, workspace: &WorkspaceId, id: &VaultId, at: Timestamp) -> Result<Option<Vault>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer.write_always(move |db| archive(db, &workspace, &id, at)).await
    }

    async fn delete(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<bool, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.writer.write_always(move |db| delete(db, &workspace, &id)).await
    }

    async fn add(&self, new: SealedCredential, record: Option<OnceRecord>) -> Result<(), CredentialError> {
        let body = json(&new.credential)?;
        self.writer.write(move |db| told(add(db, &new, &body, record.as_ref()))).await?
    }

    async fn credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Option<Credential>, StoreError> {
        let (workspace, vault, id) = (workspace.clone(), vault.clone(), id.clone());
        self.readers.read(move |db| Ok(credential(db, &workspace, &vault, &id)?.map(|(_, found)| found))).await
    }

    async fn sealed(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Option<SealedCredential>, StoreError> {
        let (workspace, vault, id) = (workspace.clone(), vault.clone(), id.clone());
        self.readers.read(move |db| sealed(db, &workspace, &vault, &id)).await
    }

    async fn credentials(&self, vault: &VaultId, filter: ListFilter) -> Result<Vec<Credential>, StoreError> {
        let vault = vault.clone();
        self.readers.read(move |db| credentials(db, &vault, filter)).await
    }

    async fn change(&self, new: SealedCredential, expected: u64) -> Result<(), CredentialError> {
        let body = json(&new.credential)?;
        self.writer.write(move |db| told(change(db, &new, &body, expected))).await?
    }

    async fn archive_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        at: Timestamp,
    ) -> Result<Option<Credential>, StoreError> {
        let (workspace, vault, id) = (workspace.clone(), vault.clone(), id.clone());
        self.writer.write_always(move |db| archive_credential(db, &workspace, &vault, &id, at)).await
    }

    async fn delete_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<bool, StoreError> {
        let (workspace, vault, id) = (workspace.clone(), vault.clone(), id.clone());
        self.writer.write_always(move |db| delete_credential(db, &workspace, &vault, &id)).await
    }

    async fn open(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<SealedVault>, StoreError> {
        let (workspace, id) = (workspace.clone(), id.clone());
        self.readers.read(move |db| open(db, &workspace, &id)).await
    }

    async fn key(&self, owner: &KeyOwner) -> Result<Option<WrappedKey>, StoreError> {
        let owner = owner.clone();
        self.readers.read(move |db| owner_row(db, &owner)?.map_or(Ok(None), |row| wrapped(db, row))).await
    }

    async fn found(&self, key: WrappedKey) -> Result<bool, StoreError> {
        let work = move |db: &Connection| match wrapped(db, HOUSE)? {
            Some(_) => Ok(false),
            None => insert_key(db, HOUSE, &key).map(|()| true),
        };
        self.writer.write_always(work).await
    }

    async fn keys_not_under(&self, master: &str, limit: usize) -> Result<Vec<(KeyOwner, WrappedKey)>, StoreError> {
        let master = master.to_owned();
        self.readers.read(move |db| keys_not_under(db, &master, limit)).await
    }

    async fn masters(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.readers.read(masters).await
    }

    async fn rewrap(&self, owner: &KeyOwner, old: WrappedKey, new: WrappedKey) -> Result<bool, StoreError> {
        let owner = owner.clone();
        self.writer.write_always(move |db| rewrap(db, &owner, &old, &new)).await
    }

    async fn purge(&self) -> Result<bool, StoreError> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || redact::purge(&path)).await.unwrap_or(Err(StoreError::Closed))
    }
}
