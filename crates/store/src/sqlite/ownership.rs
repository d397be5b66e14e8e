//! Who may write which journal: claims raise the epoch, leases say when somebody else may claim.

use super::append::head;
use super::columns::{int, read_id, read_time_opt};
use super::sessions;
use crate::StoreError;
use crate::port::{Claim, ClaimOutcome, OwnerId};
use loopd_domain::{Epoch, SessionId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

/// Takes ownership, or says why not.
pub fn claim(
    db: &Connection,
    session: &SessionId,
    owner: &OwnerId,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<ClaimOutcome, StoreError> {
    let Some(head) = head(db, session)? else { return Ok(ClaimOutcome::Absent) };
    let holder: Option<(String, i64)> = db
        .prepare_cached("SELECT owner, until FROM leases WHERE session = ?1")?
        .query_row([head.key.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((holder, until)) = &holder
        && *holder != owner.0
        && *until > now.micros()
    {
        return Ok(ClaimOutcome::Held { until: Timestamp(*until) });
    }
    db.prepare_cached("UPDATE journals SET epoch = ?2 WHERE session = ?1")?
        .execute([head.key.0, int(head.epoch.0 + 1)])?;
    db.prepare_cached("REPLACE INTO leases (session, owner, until) VALUES (?1, ?2, ?3)")?.execute(params![
        head.key.0,
        owner.0,
        lease_until.micros()
    ])?;
    let handed_over = holder.is_none();
    match sessions::by_key(db, head.key)? {
        Some(session) => Ok(ClaimOutcome::Claimed(Box::new(Claim { session, last_hash: head.hash, handed_over }))),
        None => Err(StoreError::Damaged(format!("session `{session}` has no definition"))),
    }
}

/// Never shortens a lease: after the clock has gone back, the longer one stands.
pub fn renew(db: &Connection, owner: &OwnerId, lease_until: Timestamp) -> Result<u64, StoreError> {
    let mut update = db.prepare_cached("UPDATE leases SET until = max(until, ?2) WHERE owner = ?1")?;
    Ok(update.execute(params![owner.0, lease_until.micros()])? as u64)
}

pub fn release(db: &Connection, session: &SessionId, epoch: Epoch) -> Result<(), StoreError> {
    if let Some(head) = head(db, session)?
        && head.epoch == epoch
    {
        db.prepare_cached("DELETE FROM leases WHERE session = ?1")?.execute([head.key.0])?;
    }
    Ok(())
}

/// Sessions are numbered as they are made, so the key's order is the order of age.
pub fn claimable(db: &Connection, now: Timestamp, limit: usize) -> Result<Vec<SessionId>, StoreError> {
    let mut query = db.prepare_cached(
        "SELECT s.id FROM journals j INDEXED BY journals_due
         JOIN sessions s ON s.key = j.session LEFT JOIN leases l ON l.session = j.session
         WHERE j.due_at <= ?1 AND (l.until IS NULL OR l.until <= ?1) ORDER BY j.due_at, j.session LIMIT ?2",
    )?;
    let rows = query.query_map([now.micros(), int(limit as u64)], |row| read_id(row, 0, SessionId::parse))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub fn next_due(db: &Connection, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let mut query = db.prepare_cached("SELECT min(due_at) FROM journals INDEXED BY journals_due WHERE due_at > ?1")?;
    Ok(query.query_row([now.micros()], |row| read_time_opt(row, 0))?)
}
