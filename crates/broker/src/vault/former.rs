//! Secrets that were: a room may have been shown one before it was rotated, archived or deleted, and says it later. So they stay
//! masked, a bounded number of them for each vault, for as long as somebody looks at the vault and a while after that.
//!
//! They are in memory and nowhere else. What this process has not read was never given out by it.

use super::opened::OpenedCredential;
use crate::secret::Secret;
use loopd_domain::limits::{FORMER_SECRETS_MAX, FORMER_SECRETS_MS, OPENED_VAULTS_MAX};
use loopd_domain::{CredentialId, Timestamp, VaultId, WorkspaceId};
use parking_lot::Mutex;
use std::collections::HashMap;

/// A secret that a vault had at some time.
#[derive(Clone)]
pub struct Seen {
    pub credential: CredentialId,
    pub placeholder_chars: usize,
    pub secret: Secret,
    version: u64,
}

struct Known {
    looked_at: Timestamp,
    /// The oldest first.
    seen: Vec<Seen>,
}

#[derive(Default)]
pub struct Former(Mutex<HashMap<(WorkspaceId, VaultId), Known>>);

impl Former {
    /// A vault has these now. Answers what it had before.
    pub fn learn(&self, name: (WorkspaceId, VaultId), has: &[OpenedCredential], now: Timestamp) -> Vec<Seen> {
        let mut all = self.0.lock();
        all.retain(|_, known| now.since_ms(known.looked_at) < FORMER_SECRETS_MS);
        let is_known = all.contains_key(&name);
        if !is_known && has.is_empty() {
            return Vec::new();
        }
        if !is_known && all.len() >= OPENED_VAULTS_MAX {
            let longest_ago = all.iter().min_by_key(|(_, known)| known.looked_at).map(|(name, _)| name.clone());
            longest_ago.and_then(|name| all.remove(&name));
        }
        let known = all.entry(name).or_insert(Known { looked_at: now, seen: Vec::new() });
        known.looked_at = now;
        let is_current =
            |seen: &Seen| has.iter().any(|one| (&one.credential.id, one.version) == (&seen.credential, seen.version));
        let mut former: Vec<Seen> = known.seen.drain(..).filter(|seen| !is_current(seen)).collect();
        former.drain(..former.len().saturating_sub(FORMER_SECRETS_MAX));
        known.seen.extend(former.iter().cloned());
        known.seen.extend(has.iter().map(|one| Seen {
            credential: one.credential.id.clone(),
            placeholder_chars: one.placeholder_chars,
            secret: one.secret.clone(),
            version: one.version,
        }));
        former
    }
}
