//! Between columns and the domain's types. What does not convert is `Damaged`, with the column's name.

use crate::StoreError;
use loopd_domain::{Invalid, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Error, Result, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// SQLite's integers are signed. Counts that we write stay far below the bound; one beyond it is stored as the bound.
pub fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Damaged(format!("a value does not serialise: {e}")))
}

pub fn read_count(row: &Row<'_>, column: usize) -> Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(column, value))
}

pub fn read_time(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    row.get(column).map(Timestamp)
}

pub fn read_time_opt(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>> {
    row.get::<_, Option<i64>>(column).map(|t| t.map(Timestamp))
}

pub fn read_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|e| unreadable(column, e))?;
    serde_json::from_str(text).map_err(|e| unreadable(column, e))
}

/// Reads an id with its own `parse`.
pub fn read_id<T>(row: &Row<'_>, column: usize, parse: fn(&str, &str) -> Result<T, Invalid>) -> Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|e| unreadable(column, e))?;
    let name = row.as_ref().column_name(column).unwrap_or("id");
    parse(name, text).map_err(|e| unreadable(column, e))
}

pub fn read_id_opt<T>(row: &Row<'_>, column: usize, parse: fn(&str, &str) -> Result<T, Invalid>) -> Result<Option<T>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => read_id(row, column, parse).map(Some),
    }
}

fn unreadable(column: usize, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, Box::new(cause))
}
