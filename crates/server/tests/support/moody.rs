//! The real store, with environments that fail or panic on demand.

use async_trait::async_trait;
use loopd_domain::environment::Environment;
use loopd_domain::{EnvironmentId, WorkspaceId};
use loopd_store::sqlite::SqliteStore;
use loopd_store::*;
use std::sync::Mutex;

#[derive(Debug, Clone)]
pub enum Mood {
    Well,
    Fails(StoreError),
    Panics,
}

pub struct MoodyStore {
    real: SqliteStore,
    mood: Mutex<Mood>,
}

impl MoodyStore {
    pub fn new(real: SqliteStore) -> Self {
        MoodyStore { real, mood: Mutex::new(Mood::Well) }
    }

    pub fn feels(&self, mood: Mood) {
        *self.mood.lock().expect("no panic while held") = mood;
    }

    fn mood(&self) -> Result<(), StoreError> {
        let mood = self.mood.lock().expect("no panic while held").clone();
        match mood {
            Mood::Well => Ok(()),
            Mood::Fails(fault) => Err(fault),
            Mood::Panics => panic!("the store's innermost secret"),
        }
    }
}

impl Store for MoodyStore {
    fn journal(&self) -> &dyn Journal {
        self.real.journal()
    }
    fn sessions(&self) -> &dyn Sessions {
        self.real.sessions()
    }
    fn agents(&self) -> &dyn Agents {
        self.real.agents()
    }
    fn environments(&self) -> &dyn Environments {
        self
    }
    fn once(&self) -> &dyn Once {
        self.real.once()
    }
    fn workspaces(&self) -> &dyn Workspaces {
        self.real.workspaces()
    }
    fn api_keys(&self) -> &dyn ApiKeys {
        self.real.api_keys()
    }
    fn audit(&self) -> &dyn AuditLog {
        self.real.audit()
    }
    fn vaults(&self) -> &dyn Vaults {
        self.real.vaults()
    }
    fn is_ours(&self) -> bool {
        self.real.is_ours()
    }
}

#[async_trait]
impl Environments for MoodyStore {
    async fn create(&self, environment: Environment, once: Option<OnceRecord>) -> Result<(), AppendError> {
        self.mood()?;
        self.real.environments().create(environment, once).await
    }
    async fn get(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<Option<Environment>, StoreError> {
        self.mood()?;
        self.real.environments().get(workspace, id).await
    }
    async fn update(&self, environment: Environment) -> Result<bool, StoreError> {
        self.mood()?;
        self.real.environments().update(environment).await
    }
    async fn list(&self, filter: ListFilter) -> Result<Vec<Environment>, StoreError> {
        self.mood()?;
        self.real.environments().list(filter).await
    }
    async fn delete(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<bool, StoreError> {
        self.mood()?;
        self.real.environments().delete(workspace, id).await
    }
}
