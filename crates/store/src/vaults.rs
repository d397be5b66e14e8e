//! What a store must be able to do with vaults. Secrets come here sealed and leave sealed: no store knows a key.

use crate::port::{AppendError, ListFilter, OnceRecord, StoreError};
use async_trait::async_trait;
use loopd_domain::vault::{Credential, Vault};
use loopd_domain::{CredentialId, Timestamp, VaultId, WorkspaceId};

/// Whose data key it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOwner {
    /// The key of what is no vault's. There is one.
    House,
    Vault {
        workspace: WorkspaceId,
        vault: VaultId,
    },
}

/// A data key as it lies in the store: under a master key, which never does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Id of the master key.
    pub master: String,
    pub bytes: Vec<u8>,
}

/// A credential and its secret, sealed under the vault's data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCredential {
    pub credential: Credential,
    pub secret: SealedSecret,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// 1, and one more with every rotation.
    pub version: u64,
    /// Characters of its placeholder; the same through all versions.
    pub placeholder_chars: u64,
    pub bytes: Vec<u8>,
}

/// All that is needed to use a vault. Its active credentials only, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedVault {
    pub key: WrappedKey,
    pub credentials: Vec<SealedCredential>,
}

/// Why a credential was not written. Nothing was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialError {
    #[error("no such vault or credential")]
    Absent,
    #[error("it is archived")]
    Archived,
    /// Another active credential of the vault has this key ([`loopd_domain::vault::CredentialAuth::key`]).
    #[error("the vault has another credential for this")]
    KeyTaken,
    #[error("the vault has {max} credentials")]
    Full { max: usize },
    /// The secret is of another version than the one that was changed: read again.
    #[error("the secret has version {current}")]
    Moved { current: u64 },
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<StoreError> for CredentialError {
    fn from(fault: StoreError) -> Self {
        CredentialError::Append(fault.into())
    }
}

#[async_trait]
pub trait Vaults: Send + Sync {
    /// Writes the vault and its data key. `once` as in [`crate::Append`].
    async fn create(&self, vault: Vault, key: WrappedKey, once: Option<OnceRecord>) -> Result<(), AppendError>;
    async fn get(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<Vault>, StoreError>;
    /// Replaces what is said of it. False when it is not there, or archived.
    async fn update(&self, vault: Vault) -> Result<bool, StoreError>;
    async fn list(&self, filter: ListFilter) -> Result<Vec<Vault>, StoreError>;
    /// Archives the vault and its credentials, and removes their secrets and its data key. Doing it again keeps the first time.
    async fn archive(&self, workspace: &WorkspaceId, id: &VaultId, at: Timestamp) -> Result<Option<Vault>, StoreError>;
    /// Removes the vault and all that is in it. False when it is not there.
    async fn delete(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<bool, StoreError>;

    /// Adds a credential to a vault that takes one more.
    async fn add(&self, new: SealedCredential, once: Option<OnceRecord>) -> Result<(), CredentialError>;
    async fn credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Option<Credential>, StoreError>;
    /// The same with its secret; `None` for one that is archived as well.
    async fn sealed(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<Option<SealedCredential>, StoreError>;
    async fn credentials(&self, vault: &VaultId, filter: ListFilter) -> Result<Vec<Credential>, StoreError>;
    /// Replaces credential and secret, if the secret is still of version `expected`.
    async fn change(&self, new: SealedCredential, expected: u64) -> Result<(), CredentialError>;
    /// Removes the secret and frees the key. Doing it again keeps the first time.
    async fn archive_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
        at: Timestamp,
    ) -> Result<Option<Credential>, StoreError>;
    async fn delete_credential(
        &self,
        workspace: &WorkspaceId,
        vault: &VaultId,
        id: &CredentialId,
    ) -> Result<bool, StoreError>;

    /// A vault to be used. `None` when it is not there, or archived.
    async fn open(&self, workspace: &WorkspaceId, id: &VaultId) -> Result<Option<SealedVault>, StoreError>;
    async fn key(&self, owner: &KeyOwner) -> Result<Option<WrappedKey>, StoreError>;
    /// Writes the house's data key, if there is none. False: there is one.
    async fn found(&self, key: WrappedKey) -> Result<bool, StoreError>;
    /// Data keys that are not under the master key `master`, in no particular order, at most `limit`.
    async fn keys_not_under(&self, master: &str, limit: usize) -> Result<Vec<(KeyOwner, WrappedKey)>, StoreError>;
    /// How many data keys are under each master key.
    async fn masters(&self) -> Result<Vec<(String, u64)>, StoreError>;
    /// Puts `new` in the place of `old`. False: something else stands there by now, or nothing.
    async fn rewrap(&self, owner: &KeyOwner, old: WrappedKey, new: WrappedKey) -> Result<bool, StoreError>;
    /// What was replaced or removed is in no file of the store any more. False: a reader was in the way.
    async fn purge(&self) -> Result<bool, StoreError>;
}
