//! Brings a database file to the schema of this program, and refuses files that are not ours to touch.
//!
//! To change the schema: a new numbered file in `migrations/`, and its row in [`MIGRATIONS`]. A file that was released is
//! never edited. Each migration is one transaction, together with the number that says it was done.

use crate::StoreError;
use rusqlite::Connection;
use std::path::Path;

/// In the file's header: `loop` in ASCII. A database with another number is somebody else's.
const APPLICATION_ID: i64 = 0x6c6f_6f70;

const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_sessions_agents_environments.sql"),
    include_str!("migrations/0002_due.sql"),
    include_str!("migrations/0003_vaults.sql"),
    include_str!("migrations/0004_keys_audit.sql"),
    include_str!("migrations/0005_required_isolation.sql"),
];

/// Applies what is missing. Reads first and writes only to a file that is empty or ours.
pub fn migrate(db: &Connection, path: &Path) -> Result<(), StoreError> {
    migrate_with(db, path, MIGRATIONS)
}

fn migrate_with(db: &Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    let known = migrations.len();
    let version = version_of(db, path)?;
    if version > known {
        return Err(StoreError::Unavailable(format!(
            "`{}` has schema {version}, and this loopd knows schemas up to {known}; use the newer loopd that wrote it",
            path.display()
        )));
    }
    if version == 0 {
        // Must be set before the first table is made; see docs/adr/0002-sqlite-and-postgres.md for the choice.
        db.pragma_update(None, "page_size", super::connection::PAGE_BYTES)?;
    }
    for (done, sql) in migrations.iter().enumerate().skip(version) {
        let script = format!(
            "BEGIN IMMEDIATE; {sql}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}; COMMIT",
            done + 1
        );
        if let Err(fault) = db.execute_batch(&script) {
            if !db.is_autocommit() {
                db.execute_batch("ROLLBACK")?;
            }
            return Err(fault.into());
        }
    }
    Ok(())
}

/// Number of migrations that the file has had.
fn version_of(db: &Connection, path: &Path) -> Result<usize, StoreError> {
    let foreign = |what: String| {
        let path = path.display();
        StoreError::Damaged(format!(
            "`{path}` is not a loopd store ({what}); it was left as it is, choose another path"
        ))
    };
    let number = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = match number("application_id") {
        Ok(id) => id,
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            return Err(foreign("not a database".to_owned()));
        }
        Err(e) => return Err(e.into()),
    };
    let version = number("user_version")?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (application, version, tables) == (0, 0, 0) {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(foreign(format!("a database with application id {application}")));
    }
    usize::try_from(version).map_err(|_| foreign(format!("schema {version}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Connection {
        Connection::open_in_memory().expect("memory")
    }

    #[test]
    fn applies_each_once_and_in_order() {
        let db = memory();
        let path = Path::new("a.db");
        migrate_with(&db, path, &["CREATE TABLE a (x)"]).expect("first");
        migrate_with(&db, path, &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y"]).expect("second");
        migrate_with(&db, path, &["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y"]).expect("nothing to do");
        db.execute("INSERT INTO a VALUES (1, 2)", []).expect("both columns");
    }

    #[test]
    fn a_migration_that_fails_leaves_the_schema_before_it() {
        let db = memory();
        let path = Path::new("a.db");
        migrate_with(&db, path, &["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"])
            .expect_err("twice a");
        assert_eq!(version_of(&db, path).expect("readable"), 1);
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).expect("counted");
        assert_eq!(tables, 1);
    }

    #[test]
    fn a_newer_schema_is_refused_with_both_numbers() {
        let db = memory();
        migrate(&db, Path::new("a.db")).expect("new");
        db.pragma_update(None, "user_version", 9).expect("set");
        let told = migrate(&db, Path::new("a.db")).expect_err("newer").to_string();
        assert!(told.contains("schema 9") && told.contains(&format!("up to {}", MIGRATIONS.len())), "{told}");
    }

    #[test]
    fn sessions_of_the_first_schema_keep_their_need_of_an_owner() {
        let db = memory();
        let path = Path::new("a.db");
        migrate_with(&db, path, &MIGRATIONS[..1]).expect("the first");
        db.execute_batch(
            "INSERT INTO sessions (key, id, workspace, agent_version, status, archived, created_at, updated_at)
                 SELECT value, 'sesn_' || value, 'w', 1, 'idle', 0, 0, 0 FROM json_each('[1,2,3]');
             INSERT INTO journals SELECT key, 1, 0, zeroblob(32), key = 2, '{}' FROM sessions;
             INSERT INTO leases VALUES (1, '', 0), (2, 'own_a', 9)",
        )
        .expect("rows of the first schema");
        migrate(&db, path).expect("brought up to date");
        let due = db.prepare("SELECT due_at FROM journals ORDER BY session").and_then(|mut query| {
            query.query_map([], |row| row.get::<_, Option<i64>>(0))?.collect::<Result<Vec<_>, _>>()
        });
        assert_eq!(due.expect("readable"), [None, Some(0), None]);
        let holders: String =
            db.query_row("SELECT group_concat(owner) FROM leases", [], |row| row.get(0)).expect("one");
        assert_eq!(holders, "own_a");
    }

    #[test]
    fn workspaces_that_were_there_require_no_more_than_before() {
        let db = memory();
        let path = Path::new("a.db");
        migrate_with(&db, path, &MIGRATIONS[..4]).expect("the first four");
        db.execute("INSERT INTO workspaces (id, name, created_at) VALUES ('wrkspc_1', 'team', 7)", []).expect("a row");
        migrate(&db, path).expect("brought up to date");
        let required = db
            .prepare("SELECT DISTINCT require_isolation FROM workspaces")
            .and_then(|mut query| query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>());
        assert_eq!(required.expect("readable"), ["namespaces"]);
    }

    #[test]
    fn the_shipped_migrations_apply() {
        let db = memory();
        migrate(&db, Path::new("a.db")).expect("new");
        assert_eq!(version_of(&db, Path::new("a.db")).expect("readable"), MIGRATIONS.len());
    }
}
