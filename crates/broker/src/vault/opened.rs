//! Vaults that are open for a moment, and sessions' views of them: so that a request need not read the store.
//!
//! Whatever this process changes shows at once: every change raises the generation, and what was read before that is not kept.
//! What others change shows after [`OPENED_VAULT_MS`].

use super::former::Seen;
use super::session::View;
use super::{VaultError, Vaults, secret_context};
use crate::secret::Secret;
use loopd_domain::limits::{OPENED_SESSIONS_MAX, OPENED_VAULT_MS, OPENED_VAULTS_MAX};
use loopd_domain::vault::Credential;
use loopd_domain::{SessionId, Timestamp, VaultId, WorkspaceId};
use loopd_store::KeyOwner;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One that is not there, or archived, has no credentials.
pub struct OpenedVault {
    pub credentials: Vec<OpenedCredential>,
    /// What it had before.
    pub former: Vec<Seen>,
}

pub struct OpenedCredential {
    pub credential: Credential,
    pub version: u64,
    pub placeholder_chars: usize,
    pub secret: Secret,
}

/// Something that is taken for true until a moment.
struct Kept<T> {
    until: Timestamp,
    value: Arc<T>,
}

type Name = (WorkspaceId, VaultId);

#[derive(Default)]
pub struct Opened {
    generation: AtomicU64,
    vaults: Mutex<HashMap<Name, Kept<OpenedVault>>>,
    views: Mutex<HashMap<SessionId, Kept<View>>>,
}

impl Opened {
    /// Something in this vault was changed, or may have been.
    pub fn forget(&self, workspace: &WorkspaceId, vault: &VaultId) {
        // First: whoever read the store before this keeps nothing of it afterwards.
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.vaults.lock().remove(&(workspace.clone(), vault.clone()));
        self.views.lock().retain(|_, kept| !kept.value.vaults.contains(vault));
    }

    /// To be asked before the store is read for something that is to be kept.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    pub fn view(&self, session: &SessionId, now: Timestamp) -> Option<Arc<View>> {
        self.views.lock().get(session).filter(|kept| now < kept.until).map(|kept| kept.value.clone())
    }

    pub fn keep_view(&self, session: SessionId, view: Arc<View>, read_at: (u64, Timestamp)) {
        self.keep(&self.views, session, view, read_at, OPENED_SESSIONS_MAX);
    }

    fn keep<K: Eq + Hash, T>(
        &self,
        map: &Mutex<HashMap<K, Kept<T>>>,
        key: K,
        value: Arc<T>,
        (generation, now): (u64, Timestamp),
        max: usize,
    ) {
        let mut map = map.lock();
        // Asked under the lock: a change either raised it before this, or removes what is kept here after it.
        if self.generation() != generation {
            return;
        }
        map.retain(|_, kept| now < kept.until);
        if map.len() < max {
            map.insert(key, Kept { until: now.plus_ms(OPENED_VAULT_MS), value });
        }
    }
}

impl Vaults {
    /// The vault as it is, or was a moment ago.
    pub(super) async fn opened(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Arc<OpenedVault>, VaultError> {
        let (generation, now) = (self.opened.generation(), self.clock.now());
        let name = (workspace.clone(), id.clone());
        if let Some(kept) = self.opened.vaults.lock().get(&name)
            && now < kept.until
        {
            return Ok(kept.value.clone());
        }
        let credentials = match self.store.vaults().open(workspace, id).await? {
            None => Vec::new(),
            Some(sealed) => {
                let owner = KeyOwner::Vault { workspace: workspace.clone(), vault: id.clone() };
                let sealing = self.unwrapped(&owner, &sealed.key).await?;
                let mut credentials = Vec::with_capacity(sealed.credentials.len());
                for found in sealed.credentials {
                    let context = secret_context(&found.credential, found.secret.version);
                    let refused = || format!("the secret of credential `{}` does not open", found.credential.id);
                    let opened = sealing.open(&context, &found.secret.bytes);
                    credentials.push(OpenedCredential {
                        secret: opened.ok_or_else(|| VaultError::Sealed(refused()))?,
                        version: found.secret.version,
                        placeholder_chars: found.secret.placeholder_chars as usize,
                        credential: found.credential,
                    });
                }
                credentials
            }
        };
        let former = self.former.learn(name.clone(), &credentials, now);
        let vault = Arc::new(OpenedVault { credentials, former });
        self.opened.keep(&self.opened.vaults, name, vault.clone(), (generation, now), OPENED_VAULTS_MAX);
        Ok(vault)
    }
}
