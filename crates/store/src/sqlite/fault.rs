//! What SQLite's errors mean for a caller of the store: it may pass, or data cannot be read.

use crate::StoreError;
use rusqlite::{Error, ErrorCode, ffi};

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match &error {
            Error::SqliteFailure(failure, text) => of_failure(failure, text.as_deref(), &error),
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..) => StoreError::Damaged(error.to_string()),
            _ => StoreError::Unavailable(error.to_string()),
        }
    }
}

fn of_failure(failure: &ffi::Error, text: Option<&str>, error: &Error) -> StoreError {
    match (failure.code, failure.extended_code) {
        (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => StoreError::Damaged(error.to_string()),
        (ErrorCode::DiskFull, _) => {
            StoreError::Unavailable("the disk is full; make space, then the next write succeeds".to_owned())
        }
        (ErrorCode::ReadOnly, _) => StoreError::Unavailable("the disk or the file is read-only".to_owned()),
        // The one failure whose effect is not known: the bytes may be on disk and the barrier not.
        (_, ffi::SQLITE_IOERR_FSYNC) => StoreError::Unavailable(
            "the disk did not confirm the write; it may or may not be there after a restart".to_owned(),
        ),
        _ => StoreError::Unavailable(format!("{} (sqlite {})", text.unwrap_or("failure"), failure.extended_code)),
    }
}

/// A uniqueness rule of the schema was about to be broken.
pub fn is_duplicate(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::{Connection, OpenFlags};

    #[test]
    fn a_file_that_cannot_be_written_is_said_to_be_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.db");
        Connection::open(&path).and_then(|db| db.execute_batch("CREATE TABLE a (x)")).expect("made");
        let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
        let fault = db.execute("INSERT INTO a VALUES (1)", []).expect_err("refused");
        assert_eq!(
            StoreError::from(fault).to_string(),
            "the store is not available: the disk or the file is read-only"
        );
    }
}
