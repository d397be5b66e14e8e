//! The SQLite backend, put to every rule of a store.

use async_trait::async_trait;
use loopd_store::Store;
use loopd_store::conformance::Backend;
use loopd_store::sqlite::SqliteStore;
use std::sync::Arc;
use tempfile::TempDir;

struct Sqlite(TempDir);

impl Sqlite {
    fn fresh() -> Self {
        Sqlite(tempfile::tempdir().expect("a directory"))
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.0.path().join("loopd.db")).expect("opens"))
    }
}

loopd_store::conformance_suite!(Sqlite::fresh());
