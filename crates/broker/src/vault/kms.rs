//! Who has the master key: the port, and the keys that this process itself has.

use super::envelope::{Failed, KEY_BYTES, Sealing, context, derive};
use crate::secret::Secret;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use loopd_domain::chain::hex;
use std::fmt;

/// Wraps data keys under a master key, here or in a key service. A data key that was wrapped for one `context` does not unwrap
/// for another.
#[async_trait]
pub trait Kms: Send + Sync {
    /// Id of the master key that wraps from now on.
    fn key_id(&self) -> &str;
    /// Ids of all master keys that it can unwrap with.
    fn known(&self) -> Vec<String>;
    async fn wrap(&self, context: &[u8], key: &Secret) -> Result<Vec<u8>, KmsError>;
    async fn unwrap(&self, key_id: &str, context: &[u8], wrapped: &[u8]) -> Result<Secret, KmsError>;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    #[error("master key `{id}` is not known here")]
    Unknown { id: String },
    /// Another key under the same id, another context, or changed bytes.
    #[error("a data key does not unwrap under master key `{id}`: it was changed, or belongs elsewhere")]
    Refused { id: String },
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// A master key that this process has in its hands.
#[derive(Clone)]
pub struct MasterKey {
    id: String,
    key: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no master key; accepted: {KEY_BYTES} random bytes in base64, as `openssl rand -base64 {KEY_BYTES}` writes them"
)]
pub struct NoMasterKey;

impl MasterKey {
    pub fn random() -> Result<Self, Failed> {
        super::envelope::random_key().map(Self::of)
    }

    /// Reads what [`MasterKey::text`] writes. Space around it does not matter.
    pub fn parse(text: &Secret) -> Result<Self, NoMasterKey> {
        let decoded = STANDARD.decode(text.reveal().trim_ascii()).map_err(|_| NoMasterKey)?;
        let key = Secret::new(decoded);
        if key.reveal().len() == KEY_BYTES { Ok(Self::of(key)) } else { Err(NoMasterKey) }
    }

    /// In base64, for a file.
    pub fn text(&self) -> Secret {
        Secret::new(STANDARD.encode(self.key.reveal()).into_bytes())
    }

    /// Says which key it is and nothing about it.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn of(key: Secret) -> Self {
        let id = format!("mk_{}", hex(&derive(&key, "loopd master key: id").reveal()[..8]));
        MasterKey { id, key }
    }

    fn sealing(&self) -> Result<Sealing, Failed> {
        Sealing::new(&derive(&self.key, "loopd master key: wrap"))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

/// Master keys in the hands of this process: one that wraps, and others that data keys may still be under.
#[derive(Debug)]
pub struct LocalKms {
    wraps: MasterKey,
    others: Vec<MasterKey>,
}

impl LocalKms {
    pub fn new(wraps: MasterKey, others: Vec<MasterKey>) -> Self {
        LocalKms { wraps, others }
    }

    fn keys(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.wraps).chain(&self.others)
    }

    /// The one that wraps first.
    pub fn into_keys(self) -> Vec<MasterKey> {
        std::iter::once(self.wraps).chain(self.others).collect()
    }
}

fn bound(id: &str, bytes: &[u8]) -> Vec<u8> {
    let mut all = context(&["loopd data key", id]);
    all.extend_from_slice(bytes);
    all
}

#[async_trait]
impl Kms for LocalKms {
    fn key_id(&self) -> &str {
        self.wraps.id()
    }

    fn known(&self) -> Vec<String> {
        self.keys().map(|key| key.id.clone()).collect()
    }

    async fn wrap(&self, context: &[u8], key: &Secret) -> Result<Vec<u8>, KmsError> {
        Ok(self.wraps.sealing()?.seal(&bound(self.wraps.id(), context), key)?)
    }

    async fn unwrap(&self, key_id: &str, context: &[u8], wrapped: &[u8]) -> Result<Secret, KmsError> {
        let id = key_id.to_owned();
        let key = self.keys().find(|key| key.id == key_id).ok_or_else(|| KmsError::Unknown { id: id.clone() })?;
        key.sealing()?.open(&bound(key_id, context), wrapped).ok_or(KmsError::Refused { id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_text() {
        let key = MasterKey::random().expect("random");
        let mut text = key.text().reveal().to_vec();
        text.push(b'\n');
        assert_eq!(MasterKey::parse(&Secret::new(text)).expect("a key").id(), key.id());
        assert_ne!(MasterKey::random().expect("random").id(), key.id());
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("MasterKey({})", key.id()));
        for bad in ["", "hunter2", "aHVudGVyMg==", &"A".repeat(64)] {
            let told = MasterKey::parse(&Secret::new(bad.as_bytes().to_vec())).expect_err("no key").to_string();
            assert!(told.contains("openssl rand -base64 32") && (bad.is_empty() || !told.contains(bad)), "{told}");
        }
    }

    #[tokio::test]
    async fn a_data_key_unwraps_under_its_master_key_and_for_its_context() {
        let [old, new] = [(); 2].map(|()| MasterKey::random().expect("random"));
        let data = super::super::envelope::random_key().expect("random");
        let first = LocalKms::new(old.clone(), Vec::new());
        let wrapped = first.wrap(b"here", &data).await.expect("wrapped");
        let both = LocalKms::new(new.clone(), vec![old.clone()]);
        let opened = both.unwrap(old.id(), b"here", &wrapped).await.expect("unwrapped");
        assert_eq!(opened.reveal(), data.reveal());
        assert_eq!(both.known(), [new.id(), old.id()]);
        let told = both.unwrap(old.id(), b"there", &wrapped).await.expect_err("another context");
        assert_eq!(told, KmsError::Refused { id: old.id().to_owned() });
        let told = both.unwrap(new.id(), b"here", &wrapped).await.expect_err("another key");
        assert_eq!(told, KmsError::Refused { id: new.id().to_owned() });
        let told = LocalKms::new(new, Vec::new()).unwrap(old.id(), b"here", &wrapped).await.expect_err("unknown");
        assert_eq!(told, KmsError::Unknown { id: old.id().to_owned() });
    }
}
