//! Vaults: secrets at rest, and how they are opened.
//!
//! [`Vaults`] is made once, by the composition root. It writes what the interface wants (secrets go in and never come out
//! there), and opens for a session what the session was given: to egress as [`crate::Credentials`], to the session's driver as
//! [`crate::Placeholders`], and to the tools that the host runs for it as
//! [`crate::Bearers`].
//!
//! - `kms`, `key_file`: the master key, which is never in the store. - `envelope`, `house`: what is sealed under what.
//! - `opened`: vaults that are open for a moment. - `session`: a session's view of its vaults.
//! - `forms`, `mask`, `former`: secrets in what comes back, also those that were. - `rotate`: another master key.

mod envelope;
mod former;
mod forms;
mod house;
pub mod key_file;
mod kms;
mod mask;
pub mod mcp_url;
mod opened;
mod rotate;
mod session;

pub use envelope::Failed;
pub use key_file::{Finish, KeyError, KeyPlace, KeySource};
pub use kms::{Kms, KmsError, LocalKms, MasterKey, NoMasterKey};
pub use mask::Masking;
pub use rotate::{RotateError, rotate};

use crate::seal::{SealError, Sealer};
use crate::secret::Secret;
use envelope::{Sealing, context};
use former::Former;
use house::House;
use loopd_domain::limits::{CREDENTIAL_TRIES_MAX, PLACEHOLDER_CHARS_MIN, SECRET_BYTES_MAX};
use loopd_domain::vault::{Credential, Vault};
use loopd_domain::{Clock, CredentialId, Timestamp, VaultId, WorkspaceId};
use loopd_store::{
    AppendError, CredentialError, KeyOwner, OnceRecord, SealedCredential, SealedSecret, Store, StoreError, WrappedKey,
};
use opened::Opened;
use std::sync::Arc;

/// All vaults of a store, under one master key.
pub struct Vaults {
    store: Arc<dyn Store>,
    kms: Arc<dyn Kms>,
    house: House,
    opened: Opened,
    former: Former,
    clock: Arc<dyn Clock>,
}

/// Why the vaults stay closed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the secrets in the store need another master key: {}; the configured one is {}. Put the right key back (LOOPD_MASTER_KEY, \
         LOOPD_MASTER_KEY_FILE, or `master.key` in the data directory); where a rotation was cut off, both are needed: run \
         `loopd keys rotate-master` again",
        counted(wanted),
        named(found)
    )]
    OtherKey { wanted: Vec<(String, u64)>, found: Vec<String> },
    #[error("the secrets in the store do not open: {0}")]
    Kms(#[from] KmsError),
    #[error(
        "the secrets in the store do not open: it has keys of vaults and no key of its own; restore the store from a copy"
    )]
    NoHouse,
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn counted(wanted: &[(String, u64)]) -> String {
    let all: Vec<String> = wanted.iter().map(|(id, count)| format!("`{id}` (for {count} of its keys)")).collect();
    all.join(", ")
}

fn named(ids: &[String]) -> String {
    let all: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
    all.join(", ")
}

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("no such vault or credential")]
    Absent,
    #[error("it is archived")]
    Archived,
    #[error("the vault has an active credential for this already")]
    KeyTaken,
    #[error("the vault has {max} active credentials already")]
    Full { max: usize },
    /// Others change the same credential all the time.
    #[error("the credential is being changed by others; try again")]
    Busy,
    /// What is stored does not open, or the master key is out of reach. The message names no secret.
    #[error("{0}")]
    Sealed(String),
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<StoreError> for VaultError {
    fn from(fault: StoreError) -> Self {
        VaultError::Append(fault.into())
    }
}

impl From<KmsError> for VaultError {
    fn from(fault: KmsError) -> Self {
        VaultError::Sealed(fault.to_string())
    }
}

impl From<Failed> for VaultError {
    fn from(fault: Failed) -> Self {
        VaultError::Sealed(fault.to_string())
    }
}

impl From<CredentialError> for VaultError {
    fn from(fault: CredentialError) -> Self {
        match fault {
            CredentialError::Absent => VaultError::Absent,
            CredentialError::Archived => VaultError::Archived,
            CredentialError::KeyTaken => VaultError::KeyTaken,
            CredentialError::Full { max } => VaultError::Full { max },
            CredentialError::Moved { .. } => VaultError::Busy,
            CredentialError::Append(fault) => VaultError::Append(fault),
        }
    }
}

/// What a data key is bound to, whichever master key it is under.
fn key_context(owner: &KeyOwner) -> Vec<u8> {
    match owner {
        KeyOwner::House => context(&["house"]),
        KeyOwner::Vault { workspace, vault } => context(&["vault", workspace.as_str(), vault.as_str()]),
    }
}

/// What a secret is bound to: nobody can put it into another vault, or an old one back into its place.
fn secret_context(credential: &Credential, version: u64) -> Vec<u8> {
    let Credential { workspace, vault, id, .. } = credential;
    context(&["secret", workspace.as_str(), vault.as_str(), id.as_str(), &version.to_string()])
}

fn placeholder_chars(secret: &Secret) -> u64 {
    secret.reveal().len().clamp(PLACEHOLDER_CHARS_MIN, SECRET_BYTES_MAX) as u64
}

/// Ids of the master keys that a store needs, for [`KeySource::load`].
pub async fn wanted_keys(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    Ok(store.vaults().masters().await?.into_iter().map(|(id, _)| id).collect())
}

impl Vaults {
    /// Proves that the master key is the right one before anything is done with it. A store without secrets gets its own key.
    pub async fn open(store: Arc<dyn Store>, kms: Arc<dyn Kms>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let known = kms.known();
        let masters = store.vaults().masters().await?;
        let unknown: Vec<_> = masters.iter().filter(|(id, _)| !known.contains(id)).cloned().collect();
        if !unknown.is_empty() {
            return Err(OpenError::OtherKey { wanted: unknown, found: known });
        }
        let context = key_context(&KeyOwner::House);
        if masters.is_empty() {
            let key = envelope::random_key().map_err(KmsError::from)?;
            let wrapped = WrappedKey { master: kms.key_id().to_owned(), bytes: kms.wrap(&context, &key).await? };
            // Somebody else may have been faster: then theirs is read below.
            store.vaults().found(wrapped).await?;
        }
        let wrapped = store.vaults().key(&KeyOwner::House).await?.ok_or(OpenError::NoHouse)?;
        let key = kms.unwrap(&wrapped.master, &context, &wrapped.bytes).await?;
        let house = House::new(&key).map_err(KmsError::from)?;
        Ok(Vaults { store, kms, house, opened: Opened::default(), former: Former::default(), clock })
    }

    /// Writes a vault, with a data key of its own.
    pub async fn create(&self, vault: Vault, once: Option<OnceRecord>) -> Result<(), VaultError> {
        let owner = KeyOwner::Vault { workspace: vault.workspace.clone(), vault: vault.id.clone() };
        let key = envelope::random_key()?;
        let bytes = self.kms.wrap(&key_context(&owner), &key).await?;
        let key = WrappedKey { master: self.kms.key_id().to_owned(), bytes };
        Ok(self.store.vaults().create(vault, key, once).await?)
    }

    /// Archives a vault and all in it; its secrets are gone.
    pub async fn archive(&self, workspace: &WorkspaceId, id: &VaultId, at: Timestamp) -> Result<Vault, VaultError> {
        let archived = self.store.vaults().archive(workspace, id, at).await;
        self.opened.forget(workspace, id);
        archived?.ok_or(VaultError::Absent)
    }

    pub async fn delete(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<(), VaultError> {
        let deleted = self.store.vaults().delete(workspace, id).await;
        self.opened.forget(workspace, id);
        if deleted? { Ok(()) } else { Err(VaultError::Absent) }
    }

    /// Seals the secret and writes the credential.
    pub async fn add(
        &self,
        credential: Credential,
        secret: &Secret,
        once: Option<OnceRecord>,
    ) -> Result<(), VaultError> {
        let (workspace, vault) = (credential.workspace.clone(), credential.vault.clone());
        let sealing = self.sealing(&workspace, &vault).await?;
        let bytes = sealing.seal(&secret_context(&credential, 1), secret)?;
        let secret = SealedSecret { version: 1, placeholder_chars: placeholder_chars(secret), bytes };
        let added = self.store.vaults().add(SealedCredential { credential, secret }, once).await;
        self.opened.forget(&workspace, &vault);
        Ok(added?)
    }

    /// Changes what `edit` changes, and the secret if there is a new one. `edit` may be asked again.
    pub async fn change<E: From<VaultError>>(
        &self,
        (workspace, vault, id): (&WorkspaceId, &VaultId, &CredentialId),
        secret: Option<&Secret>,
        edit: impl Fn(Credential) -> Result<Credential, E>,
    ) -> Result<Credential, E> {
        for _ in 0..CREDENTIAL_TRIES_MAX {
            let old = self.sealed(workspace, vault, id).await?;
            let expected = old.secret.version;
            let credential = edit(old.credential)?;
            let new = match secret {
                None => SealedCredential { credential: credential.clone(), secret: old.secret },
                Some(secret) => {
                    let version = expected + 1;
                    let sealing = self.sealing(workspace, vault).await?;
                    let sealed = sealing.seal(&secret_context(&credential, version), secret);
                    let secret = SealedSecret { version, bytes: sealed.map_err(VaultError::from)?, ..old.secret };
                    SealedCredential { credential: credential.clone(), secret }
                }
            };
            let changed = self.store.vaults().change(new, expected).await;
            self.opened.forget(workspace, vault);
            match changed {
                Ok(()) => return Ok(credential),
                Err(CredentialError::Moved { .. }) => {}
                Err(fault) => return Err(VaultError::from(fault).into()),
            }
        }
        Err(VaultError::Busy.into())
    }

    pub async fn archive_credential(
        &self,
        (workspace, vault, id): (&WorkspaceId, &VaultId, &CredentialId),
        at: Timestamp,
    ) -> Result<Credential, VaultError> {
        let archived = self.store.vaults().archive_credential(workspace, vault, id, at).await;
        self.opened.forget(workspace, vault);
        archived?.ok_or(VaultError::Absent)
    }

    pub async fn delete_credential(
        &self,
        (workspace, vault, id): (&WorkspaceId, &VaultId, &CredentialId),
    ) -> Result<(), VaultError> {
        let deleted = self.store.vaults().delete_credential(workspace, vault, id).await;
        self.opened.forget(workspace, vault);
        if deleted? { Ok(()) } else { Err(VaultError::Absent) }
    }

    /// In the place of a digest of a request that carries a secret.
    pub fn blind(&self, digest: &str) -> String {
        self.house.blind(digest)
    }

    /// The credential with its sealed secret, for a change.
    async fn sealed(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<SealedCredential, VaultError> {
        match self.store.vaults().sealed(workspace, vault, id).await? {
            Some(found) => Ok(found),
            None => Err(match self.store.vaults().credential(workspace, vault, id).await? {
                Some(_) => VaultError::Archived,
                None => VaultError::Absent,
            }),
        }
    }

    /// Under the vault's data key.
    async fn sealing(&self, workspace: &WorkspaceId, vault: &VaultId) -> Result<Sealing, VaultError> {
        let owner = KeyOwner::Vault { workspace: workspace.clone(), vault: vault.clone() };
        let Some(wrapped) = self.store.vaults().key(&owner).await? else {
            return Err(match self.store.vaults().get(workspace, vault).await? {
                Some(_) => VaultError::Archived,
                None => VaultError::Absent,
            });
        };
        self.unwrapped(&owner, &wrapped).await
    }

    async fn unwrapped(&self, owner: &KeyOwner, wrapped: &WrappedKey) -> Result<Sealing, VaultError> {
        let key = self.kms.unwrap(&wrapped.master, &key_context(owner), &wrapped.bytes).await?;
        Ok(Sealing::new(&key)?)
    }
}

/// For what is no vault's and must lie on disk. The master key may be rotated under it.
impl Sealer for Vaults {
    fn seal(&self, context: &str, plain: &Secret) -> Result<Vec<u8>, SealError> {
        self.house.seal(context, plain)
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Secret, SealError> {
        self.house.open(context, sealed)
    }
}

impl std::fmt::Debug for Vaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vaults(under {})", self.kms.key_id())
    }
}
