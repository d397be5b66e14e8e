//! A store that does as it is told: environments and once-records in memory, nothing else, and faults on demand.

use async_trait::async_trait;
use loopd_domain::agent::Agent;
use loopd_domain::chain::Entry;
use loopd_domain::environment::Environment;
use loopd_domain::event::Event;
use loopd_domain::session::Session;
use loopd_domain::{AgentId, EnvironmentId, Epoch, Seq, SessionId, Timestamp, WorkspaceId};
use loopd_store::*;
use std::sync::Mutex;
use tokio::sync::watch;

#[derive(Debug, Clone)]
pub enum Mood {
    Well,
    Fails(StoreError),
    Panics,
}

pub struct MemoryStore {
    pub mood: Mutex<Mood>,
    environments: Mutex<Vec<Environment>>,
    once: Mutex<Vec<OnceRecord>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore { mood: Mutex::new(Mood::Well), environments: Mutex::default(), once: Mutex::default() }
    }
}

impl MemoryStore {
    fn mood(&self) -> Result<(), StoreError> {
        let mood = self.mood.lock().expect("no panic while held").clone();
        match mood {
            Mood::Well => Ok(()),
            Mood::Fails(fault) => Err(fault),
            Mood::Panics => panic!("the store's innermost secret"),
        }
    }
}

impl Store for MemoryStore {
    fn journal(&self) -> &dyn Journal {
        self
    }
    fn sessions(&self) -> &dyn Sessions {
        self
    }
    fn agents(&self) -> &dyn Agents {
        self
    }
    fn environments(&self) -> &dyn Environments {
        self
    }
    fn once(&self) -> &dyn Once {
        self
    }
}

#[async_trait]
impl Environments for MemoryStore {
    async fn create(&self, environment: Environment, once: Option<OnceRecord>) -> Result<(), AppendError> {
        self.mood()?;
        let mut records = self.once.lock().expect("no panic while held");
        if let Some(record) = once {
            let same = |r: &&OnceRecord| r.workspace == record.workspace && r.key == record.key;
            if let Some(first) = records.iter().find(same) {
                return Err(AppendError::Repeated(first.clone()));
            }
            records.push(record);
        }
        self.environments.lock().expect("no panic while held").push(environment);
        Ok(())
    }
    async fn get(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<Option<Environment>, StoreError> {
        self.mood()?;
        let rows = self.environments.lock().expect("no panic while held");
        Ok(rows.iter().find(|e| &e.workspace == workspace && &e.id == id).cloned())
    }
    async fn update(&self, environment: Environment) -> Result<bool, StoreError> {
        self.mood()?;
        let mut rows = self.environments.lock().expect("no panic while held");
        let row = rows.iter_mut().find(|e| e.id == environment.id);
        Ok(row.map(|row| *row = environment).is_some())
    }
    async fn list(&self, filter: ListFilter) -> Result<Vec<Environment>, StoreError> {
        self.mood()?;
        let key = |e: &Environment| (e.created_at, e.id.to_string());
        let mut rows = self.environments.lock().expect("no panic while held").clone();
        rows.retain(|e| e.workspace == filter.workspace && (filter.include_archived || e.archived_at.is_none()));
        rows.sort_by_key(|e| std::cmp::Reverse(key(e)));
        rows.retain(|e| filter.after.as_ref().is_none_or(|after| key(e) < *after));
        rows.truncate(filter.limit);
        Ok(rows)
    }
    async fn delete(&self, workspace: &WorkspaceId, id: &EnvironmentId) -> Result<bool, StoreError> {
        self.mood()?;
        let mut rows = self.environments.lock().expect("no panic while held");
        let before = rows.len();
        rows.retain(|e| &e.workspace != workspace || &e.id != id);
        Ok(rows.len() < before)
    }
}

#[async_trait]
impl Once for MemoryStore {
    async fn find(
        &self,
        workspace: &WorkspaceId,
        key: &str,
        not_before: Timestamp,
    ) -> Result<Option<OnceRecord>, StoreError> {
        let rows = self.once.lock().expect("no panic while held");
        Ok(rows.iter().find(|r| &r.workspace == workspace && r.key == key && r.at >= not_before).cloned())
    }
    async fn expire(&self, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl Sessions for MemoryStore {
    async fn get(&self, _: &WorkspaceId, _: &SessionId) -> Result<Option<Session>, StoreError> {
        self.mood()?;
        Ok(None)
    }
    async fn list(&self, _: SessionFilter) -> Result<Vec<Session>, StoreError> {
        self.mood()?;
        Ok(Vec::new())
    }
    async fn change(&self, _: &SessionId, _: SessionChange) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn delete(&self, _: &WorkspaceId, _: &SessionId) -> Result<bool, StoreError> {
        Ok(false)
    }
}

#[async_trait]
impl Agents for MemoryStore {
    async fn create(&self, _: Agent, _: Option<OnceRecord>) -> Result<(), AppendError> {
        Err(StoreError::Unavailable("this store keeps no agents".to_owned()).into())
    }
    async fn get(&self, _: &WorkspaceId, _: &AgentId, _: Option<u64>) -> Result<Option<Agent>, StoreError> {
        self.mood()?;
        Ok(None)
    }
    async fn update(&self, _: Agent, _: u64) -> Result<(), UpdateError> {
        Err(UpdateError::Absent)
    }
    async fn archive(&self, _: &WorkspaceId, _: &AgentId, _: Timestamp) -> Result<Option<Agent>, StoreError> {
        Ok(None)
    }
    async fn list(&self, _: ListFilter) -> Result<Vec<Agent>, StoreError> {
        Ok(Vec::new())
    }
    async fn versions(&self, _: &WorkspaceId, _: &AgentId, _: Option<u64>, _: usize) -> Result<Vec<Agent>, StoreError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Journal for MemoryStore {
    async fn create(
        &self,
        _: Session,
        _: Vec<Entry>,
        _: &OwnerId,
        _: Timestamp,
        _: Option<OnceRecord>,
    ) -> Result<(), AppendError> {
        Err(StoreError::Unavailable("this store keeps no sessions".to_owned()).into())
    }
    async fn append(&self, _: Append) -> Result<(), AppendError> {
        Err(AppendError::Absent)
    }
    async fn read(&self, _: &SessionId, _: Seq, _: usize) -> Result<Vec<Event>, StoreError> {
        Ok(Vec::new())
    }
    fn watch(&self, _: &SessionId) -> watch::Receiver<Seq> {
        watch::channel(0).1
    }
    async fn claim(&self, _: &SessionId, _: &OwnerId, _: Timestamp, _: Timestamp) -> Result<ClaimOutcome, StoreError> {
        Ok(ClaimOutcome::Absent)
    }
    async fn renew(&self, _: &OwnerId, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
    async fn release(&self, _: &SessionId, _: Epoch) -> Result<(), StoreError> {
        Ok(())
    }
    async fn claimable(&self, _: Timestamp, _: usize) -> Result<Vec<SessionId>, StoreError> {
        Ok(Vec::new())
    }
}
