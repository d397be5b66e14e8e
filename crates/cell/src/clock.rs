//! Time: the machine's monotonic clock, and the host's clock as far as the cell knows it.

use loopd_domain::Timestamp;
use rustix::event::Timespec;
use std::time::{Duration, Instant};

/// The one place that reads a clock.
#[allow(clippy::disallowed_methods)] // a small synchronous program: its event loop asks once per wake-up and hands the moment on
pub fn now() -> Instant {
    Instant::now()
}

/// How long to wait. Rounded up, so that a deadline is over when poll returns.
pub fn timespec(duration: Duration) -> Timespec {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2) + 1;
    Timespec { tv_sec: millis / 1_000, tv_nsec: (millis % 1_000) * 1_000_000 }
}

/// The host's time, carried on from what its last frame said. The cell believes no clock of the room.
#[derive(Debug, Clone, Copy)]
pub struct HostClock {
    told: Timestamp,
    at: Instant,
}

impl HostClock {
    pub fn told(told: Timestamp, at: Instant) -> Self {
        HostClock { told, at }
    }

    pub fn now(&self, at: Instant) -> Timestamp {
        let micros = at.saturating_duration_since(self.at).as_micros();
        Timestamp(self.told.micros().saturating_add(i64::try_from(micros).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_time_goes_on_between_frames() {
        let start = now();
        let clock = HostClock::told(Timestamp(1_000_000), start);
        assert_eq!(clock.now(start + Duration::from_millis(5)), Timestamp(1_005_000));
    }
}
