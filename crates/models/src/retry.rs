//! When to ask again. Pure: chance comes as an argument.

use crate::provider::ModelError;
use loopd_domain::limits::{MODEL_ATTEMPTS_MAX, MODEL_BACKOFF_FIRST_MS, MODEL_BACKOFF_MAX_MS};

/// Longest wait that a provider may ask for, in milliseconds; beyond it the turn ends instead.
const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    After { after_ms: u64 },
    GiveUp,
}

/// What follows from the failure of attempt `attempt` (from 1). `chance` is uniform in `[0, 1)`.
///
/// Exponential backoff with full jitter; a wait that the provider names is kept to, and never shortened.
pub fn decide(attempt: u32, fault: &ModelError, chance: f64) -> Retry {
    let asked_ms = fault.retry_after_ms.unwrap_or(0);
    if !fault.class.is_retryable() || attempt >= MODEL_ATTEMPTS_MAX || asked_ms > RETRY_AFTER_MS_MAX {
        return Retry::GiveUp;
    }
    let doublings = attempt.saturating_sub(1).min(20);
    let ceiling_ms = (MODEL_BACKOFF_FIRST_MS << doublings).min(MODEL_BACKOFF_MAX_MS);
    let jittered_ms = (ceiling_ms as f64 * chance.clamp(0.0, 1.0)) as u64;
    Retry::After { after_ms: asked_ms.max(jittered_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ErrorClass;

    fn fault(class: ErrorClass, retry_after_ms: Option<u64>) -> ModelError {
        let message = "no".to_owned();
        ModelError { class, message, status: None, retry_after_ms, request_id: None, usage: Default::default() }
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        let wait = |attempt| match decide(attempt, &fault(ErrorClass::Overloaded, None), 0.999_999) {
            Retry::After { after_ms } => after_ms,
            Retry::GiveUp => panic!("attempt {attempt} gave up"),
        };
        let waits: Vec<u64> = (1..MODEL_ATTEMPTS_MAX).map(wait).collect();
        assert!(waits.windows(2).all(|w| w[1] > w[0]), "{waits:?}");
        assert!(waits.iter().all(|w| *w <= MODEL_BACKOFF_MAX_MS));
        assert_eq!(decide(MODEL_ATTEMPTS_MAX, &fault(ErrorClass::Overloaded, None), 0.5), Retry::GiveUp);
    }

    #[test]
    fn the_providers_word_counts() {
        let asked = decide(1, &fault(ErrorClass::RateLimited, Some(90_000)), 0.0);
        assert_eq!(asked, Retry::After { after_ms: 90_000 });
        assert_eq!(decide(1, &fault(ErrorClass::RateLimited, Some(7_200_000)), 0.0), Retry::GiveUp);
        assert_eq!(decide(1, &fault(ErrorClass::Authentication, None), 0.0), Retry::GiveUp);
    }
}
