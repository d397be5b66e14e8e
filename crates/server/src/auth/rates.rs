//! How much one workspace may ask for: requests in a second, and streams at the same time.
//!
//! Turns that run and sessions that are alive are counted where they live, in `loopd_session`.

use crate::error::ApiError;
use loopd_domain::limits::{REQUESTS_BURST_DEFAULT, REQUESTS_PER_SECOND_DEFAULT, WORKSPACE_STREAMS_DEFAULT};
use loopd_domain::rate::{Bucket, Rate};
use loopd_domain::{Timestamp, WorkspaceId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// For each workspace alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkspaceLimits {
    pub requests: Rate,
    pub streams: usize,
}

impl Default for WorkspaceLimits {
    fn default() -> Self {
        WorkspaceLimits {
            requests: Rate { per_second: REQUESTS_PER_SECOND_DEFAULT, burst: REQUESTS_BURST_DEFAULT },
            streams: WORKSPACE_STREAMS_DEFAULT,
        }
    }
}

struct Usage {
    requests: Bucket,
    streams: usize,
}

/// There are no more of them than workspaces.
type Usages = HashMap<WorkspaceId, Usage>;

#[derive(Default)]
pub struct Rates {
    limits: WorkspaceLimits,
    usages: Mutex<Usages>,
}

impl Rates {
    pub fn new(limits: WorkspaceLimits) -> Self {
        Rates { limits, usages: Mutex::default() }
    }

    /// Takes one request, or says in how many milliseconds there will be one.
    pub fn request(&self, workspace: &WorkspaceId, now: Timestamp) -> Result<(), u64> {
        let mut usages = self.usages();
        self.usage(&mut usages, workspace, now).requests.take(self.limits.requests, now)
    }

    /// A place for one more stream; it is free again when it is dropped.
    pub fn stream(self: &Arc<Self>, workspace: &WorkspaceId, now: Timestamp) -> Result<StreamPlace, ApiError> {
        let mut usages = self.usages();
        let usage = self.usage(&mut usages, workspace, now);
        if usage.streams >= self.limits.streams {
            let message = format!(
                "as many streams of this workspace are open as it may have: {}; close one, or try again later",
                usage.streams
            );
            return Err(ApiError::too_many(message, 1_000));
        }
        usage.streams += 1;
        Ok(StreamPlace { rates: self.clone(), workspace: workspace.clone() })
    }

    fn usage<'a>(&self, usages: &'a mut Usages, workspace: &WorkspaceId, now: Timestamp) -> &'a mut Usage {
        if !usages.contains_key(workspace) {
            let fresh = Usage { requests: Bucket::full(self.limits.requests, now), streams: 0 };
            usages.insert(workspace.clone(), fresh);
        }
        usages.get_mut(workspace).expect("it was just put there")
    }

    fn usages(&self) -> MutexGuard<'_, Usages> {
        self.usages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open stream.
pub struct StreamPlace {
    rates: Arc<Rates>,
    workspace: WorkspaceId,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        if let Some(usage) = self.rates.usages().get_mut(&self.workspace) {
            usage.streams = usage.streams.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(name: &str) -> WorkspaceId {
        WorkspaceId::parse("w", name).expect("an id")
    }

    #[test]
    fn one_workspace_does_not_use_up_another_ones_share() {
        let limits = WorkspaceLimits { requests: Rate { per_second: 1, burst: 2 }, streams: 1 };
        let rates = Arc::new(Rates::new(limits));
        let (a, b, now) = (workspace("wrkspc_a"), workspace("wrkspc_b"), Timestamp(0));
        assert!(rates.request(&a, now).is_ok() && rates.request(&a, now).is_ok());
        assert_eq!(rates.request(&a, now), Err(1_000));
        assert!(rates.request(&b, now).is_ok());
        assert!(rates.request(&a, Timestamp::from_millis(1_000)).is_ok());

        let held = rates.stream(&a, now).expect("a place");
        assert_eq!(rates.stream(&a, now).err().expect("none left").status.as_u16(), 429);
        let other = rates.stream(&b, now).expect("its own place");
        drop((held, other));
        assert!(rates.stream(&a, now).is_ok(), "a stream that ended leaves its place");
    }
}
