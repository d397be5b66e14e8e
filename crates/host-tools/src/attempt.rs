//! Attempts at a call: how one ended, and how often a call may be made.
//!
//! ```text
//!  attempt ─┬─ answered ──────────────────────────────► result
//!           ├─ nothing was sent ──────────────────────► `not_run`, unless an earlier attempt was sent
//!           └─ sent, no answer; the service failed ───┬► `keyed`, attempts left: again, same key
//!                                                     └► what the class says (`once`, `keyed`: unknown)
//! ```

use crate::port::{HostCall, HostResult};
use async_trait::async_trait;
use loopd_domain::event::EffectClass;
use loopd_domain::limits::{KEYED_ATTEMPTS_MAX, KEYED_BACKOFF_FIRST_MS};
use std::time::Duration;

/// How one attempt ended.
pub(crate) enum Attempt {
    Answered(HostResult),
    /// The service answered that it failed.
    Failed(HostResult),
    /// The service was not reached.
    NotSent(String),
    /// Sent, in whole or in part, and no whole answer came.
    Lost(String),
    TimedOut(String),
}

/// What makes one attempt at one call, each the same.
#[async_trait]
pub(crate) trait Exchange: Sync {
    async fn attempt(&self) -> Attempt;
}

/// Makes the call, as often as its class allows.
pub(crate) async fn repeat(call: &HostCall, exchange: &dyn Exchange) -> HostResult {
    let attempts = if call.effect == EffectClass::Keyed { KEYED_ATTEMPTS_MAX } else { 1 };
    // What an attempt came to that may have done the work, and what the service last said of its own failure.
    let (mut lost, mut failed) = (None, None);
    for attempt in 1..=attempts {
        match exchange.attempt().await {
            Attempt::Answered(result) => return result,
            Attempt::Failed(result) => failed = Some(result),
            Attempt::NotSent(reason) if lost.is_none() && failed.is_none() => return HostResult::not_sent(reason),
            Attempt::NotSent(_) => {}
            Attempt::Lost(reason) => lost = Some(HostResult::unanswered(call.effect, false, &reason)),
            Attempt::TimedOut(reason) => lost = Some(HostResult::unanswered(call.effect, true, &reason)),
        }
        if attempt < attempts {
            tracing::warn!(attempt, key = %call.key, "a keyed call had no answer; it is sent again");
            tokio::time::sleep(Duration::from_millis(KEYED_BACKOFF_FIRST_MS << (attempt - 1))).await;
        }
    }
    // A failure that a service tells of says nothing of an earlier attempt that it may have carried out.
    lost.or(failed).unwrap_or_else(|| HostResult::not_sent("no attempt was made"))
}
