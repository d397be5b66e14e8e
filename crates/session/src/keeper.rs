//! Keeps what this process owns, and takes up what has lost its owner.

use crate::requests::ServiceError;
use crate::service::SessionService;
use futures_util::{StreamExt, stream};
use loopd_domain::limits::{IDEMPOTENCY_WINDOW_MS, LEASE_MS};
use loopd_domain::{SessionId, Timestamp};
use loopd_store::StoreError;
use std::time::Duration;

/// Sessions that are being taken up at the same time.
const CLAIMS_AT_ONCE: usize = 32;
/// Sessions taken up in one round.
const CLAIMS_PER_ROUND: usize = 256;
/// Sessions taken up at the start of a process that has the store for itself.
const CLAIMS_AT_START: usize = loopd_domain::limits::SESSIONS_LIVING_MAX;
/// Rounds between two sweeps of old idempotency records.
const ROUNDS_PER_SWEEP: u64 = 256;

/// Runs until the service stops.
pub async fn keep(service: SessionService) {
    for round in 0u64.. {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(LEASE_MS / 3)) => {}
            () = service.stopping() => return,
        }
        if let Err(fault) = tend(&service, round).await {
            tracing::warn!(%fault, "leases could not be kept; trying again");
        }
    }
}

async fn tend(service: &SessionService, round: u64) -> Result<(), StoreError> {
    let parts = service.parts();
    let now = parts.clock.now();
    parts.store.journal().renew(&service.owner(), now.plus_ms(LEASE_MS)).await?;
    if parts.takes_up {
        take_up(service, now).await?;
    }
    if round.is_multiple_of(ROUNDS_PER_SWEEP) {
        let before = Timestamp(now.micros() - (IDEMPOTENCY_WINDOW_MS as i64) * 1_000);
        parts.store.once().expire(before).await?;
    }
    Ok(())
}

/// Takes up everything that earlier processes left: where nobody else can be alive, their leases are over.
pub async fn take_up_all(service: &SessionService) {
    match service.parts().store.journal().claimable(Timestamp(i64::MAX), CLAIMS_AT_START).await {
        Ok(ids) => take_up_each(service, ids).await,
        Err(fault) => tracing::warn!(%fault, "sessions without an owner could not be found; trying again"),
    }
}

/// Takes up sessions that nobody holds at `now`, and those that a failed driver of ours left.
async fn take_up(service: &SessionService, now: Timestamp) -> Result<(), StoreError> {
    for id in service.abandoned() {
        match service.wake(&id).await {
            Ok(()) | Err(ServiceError::Absent(_) | ServiceError::Elsewhere) => {}
            Err(fault) => {
                // Its lease may still be ours, and then no other list names it.
                tracing::warn!(session = %id, %fault, "a session that was given up could not be taken up; trying again");
                service.abandon(id);
            }
        }
    }
    let ids = service.parts().store.journal().claimable(now, CLAIMS_PER_ROUND).await?;
    take_up_each(service, ids).await;
    Ok(())
}

/// Several at once, oldest first: their claims share commits.
async fn take_up_each(service: &SessionService, ids: Vec<SessionId>) {
    let wake = |id: SessionId| async move {
        if let Err(fault) = service.wake(&id).await {
            tracing::warn!(session = %id, %fault, "a session could not be taken up");
        }
    };
    stream::iter(ids).for_each_concurrent(CLAIMS_AT_ONCE, wake).await;
}
