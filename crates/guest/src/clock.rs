//! The machine's monotonic clock.

use rustix::event::Timespec;
use std::time::{Duration, Instant};

/// The one place that reads it.
#[allow(clippy::disallowed_methods)] // a small synchronous program: its loop asks once per wake-up and hands the moment on
pub fn now() -> Instant {
    Instant::now()
}

/// How long to wait. Rounded up, so that a deadline is over when poll returns.
pub fn timespec(duration: Duration) -> Timespec {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2) + 1;
    Timespec { tv_sec: millis / 1_000, tv_nsec: (millis % 1_000) * 1_000_000 }
}
