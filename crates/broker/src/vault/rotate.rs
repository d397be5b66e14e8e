//! Another master key: every data key is wrapped anew, one by one. Secrets and what they are sealed under stay as they are.
//!
//! A rotation that is cut off leaves some keys under the one and some under the other master key. Whoever has both can use the
//! store, and go on with the rotation: what is done is not done again.

use super::kms::{Kms, KmsError};
use super::{key_context, named};
use loopd_domain::limits::DATA_KEYS_PER_READ;
use loopd_store::{Store, StoreError, WrappedKey};

/// What is not done yet can be done by the same command.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("data keys are under master key {}, and known are {}; nothing was changed", named(wanted), named(found))]
    OtherKey { wanted: Vec<String>, found: Vec<String> },
    #[error("after {done} data keys: {fault}")]
    Kms { done: u64, fault: KmsError },
    #[error("somebody else changes the data keys meanwhile; {done} were wrapped anew")]
    Disturbed { done: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Wraps everything under the key that `kms` wraps with. Returns how many data keys were under another one. Afterwards the
/// store's own files have none of them under that other key; copies that somebody made have.
pub async fn rotate(store: &dyn Store, kms: &dyn Kms) -> Result<u64, RotateError> {
    let known = kms.known();
    let mut wanted = super::wanted_keys(store).await?;
    wanted.retain(|id| !known.contains(id));
    if !wanted.is_empty() {
        return Err(RotateError::OtherKey { wanted, found: known });
    }
    let mut done = 0;
    loop {
        let left = store.vaults().keys_not_under(kms.key_id(), DATA_KEYS_PER_READ).await?;
        if left.is_empty() {
            if !store.vaults().purge().await? {
                tracing::warn!("older pages of the store are still being read; they go with its next checkpoint");
            }
            return Ok(done);
        }
        let before = done;
        for (owner, old) in left {
            let context = key_context(&owner);
            let new = async {
                let key = kms.unwrap(&old.master, &context, &old.bytes).await?;
                let bytes = kms.wrap(&context, &key).await?;
                Ok(WrappedKey { master: kms.key_id().to_owned(), bytes })
            };
            let new = new.await.map_err(|fault| RotateError::Kms { done, fault })?;
            if store.vaults().rewrap(&owner, old, new).await? {
                done += 1;
            }
        }
        if done == before {
            return Err(RotateError::Disturbed { done });
        }
    }
}
