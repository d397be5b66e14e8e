//! When to ask a model again. Pure: the attempt, the error and a random number decide; nobody sleeps here.

use crate::provider::ModelError;
use loopd_domain::limits::{MODEL_ATTEMPTS_MAX, MODEL_BACKOFF_FIRST_MS, MODEL_BACKOFF_MAX_MS};

/// A provider that wants a longer pause than this is given up: a caller is better served by the error.
pub const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Retry { after_ms: u64 },
    GiveUp,
}

/// What to do after attempt `attempt` (from 1) failed with `error`. `random` is uniform in 0..1.
///
/// A pause that the provider named is kept, with up to a tenth on top so that sessions which were refused together do not
/// come back together. Otherwise the pause is random between the first wait and a bound that doubles with every attempt.
pub fn decide(attempt: u32, error: &ModelError, random: f64) -> Decision {
    if attempt >= MODEL_ATTEMPTS_MAX || !error.class.is_retryable() {
        return Decision::GiveUp;
    }
    match error.retry_after_ms {
        Some(after_ms) if after_ms > RETRY_AFTER_MAX_MS => Decision::GiveUp,
        Some(after_ms) => Decision::Retry { after_ms: after_ms + share(after_ms / 10, random) },
        None => Decision::Retry { after_ms: backoff(attempt, random) },
    }
}

fn backoff(attempt: u32, random: f64) -> u64 {
    let doubled = MODEL_BACKOFF_FIRST_MS.saturating_mul(1u64.checked_shl(attempt).unwrap_or(u64::MAX));
    let bound = doubled.min(MODEL_BACKOFF_MAX_MS);
    MODEL_BACKOFF_FIRST_MS + share(bound - MODEL_BACKOFF_FIRST_MS, random)
}

fn share(of: u64, random: f64) -> u64 {
    (of as f64 * random.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ErrorClass;
    use proptest::prelude::*;

    fn error(class: ErrorClass, retry_after_ms: Option<u64>) -> ModelError {
        ModelError { retry_after_ms, ..ModelError::new(class, "x") }
    }

    #[test]
    fn waits_grow_from_the_first_to_the_longest() {
        let overloaded = error(ErrorClass::Overloaded, None);
        let longest: Vec<Decision> = (1..=MODEL_ATTEMPTS_MAX).map(|n| decide(n, &overloaded, 1.0)).collect();
        let after = |after_ms| Decision::Retry { after_ms };
        assert_eq!(longest, [after(1_000), after(2_000), after(4_000), after(8_000), after(16_000), Decision::GiveUp]);
        assert_eq!(decide(5, &overloaded, 0.0), after(MODEL_BACKOFF_FIRST_MS));
    }

    #[test]
    fn a_named_pause_is_kept_up_to_an_hour() {
        let wait = |ms| decide(1, &error(ErrorClass::RateLimited, Some(ms)), 0.0);
        assert_eq!(wait(10), Decision::Retry { after_ms: 10 });
        assert_eq!(wait(600_000), Decision::Retry { after_ms: 600_000 });
        assert_eq!(wait(RETRY_AFTER_MAX_MS + 1), Decision::GiveUp);
    }

    #[test]
    fn what_cannot_succeed_is_not_tried_again() {
        for class in
            [ErrorClass::BadRequest, ErrorClass::Authentication, ErrorClass::Billing, ErrorClass::ContextTooLong]
        {
            assert_eq!(decide(1, &error(class, Some(10)), 0.5), Decision::GiveUp);
        }
    }

    proptest! {
        #[test]
        fn never_earlier_than_asked_and_never_beyond_the_bounds(attempt in 0u32..200, random in 0.0f64..1.0, named in proptest::option::of(0u64..10_000_000)) {
            if let Decision::Retry { after_ms } = decide(attempt, &error(ErrorClass::Server, named), random) {
                prop_assert!(attempt < MODEL_ATTEMPTS_MAX);
                match named {
                    Some(ms) => prop_assert!(after_ms >= ms && after_ms <= ms + ms / 10),
                    None => prop_assert!((MODEL_BACKOFF_FIRST_MS..=MODEL_BACKOFF_MAX_MS).contains(&after_ms)),
                }
            }
        }
    }
}
