//! How often something may happen: a bucket of tokens that fills with time. Pure: whoever asks says what time it is.

use crate::Timestamp;

const MICRO: u64 = 1_000_000;

/// So many in a second, and so many at once after a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

/// What is left of a burst, in millionths.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    level: u64,
    at: Timestamp,
}

impl Bucket {
    pub fn full(rate: Rate, now: Timestamp) -> Self {
        Bucket { level: u64::from(rate.burst) * MICRO, at: now }
    }

    /// Takes one, or says in how many milliseconds there will be one. A clock that goes back fills nothing.
    pub fn take(&mut self, rate: Rate, now: Timestamp) -> Result<(), u64> {
        let passed = u64::try_from(now.micros().saturating_sub(self.at.micros())).unwrap_or(0);
        let filled = self.level.saturating_add(passed.saturating_mul(u64::from(rate.per_second)));
        self.level = filled.min(u64::from(rate.burst) * MICRO);
        self.at = self.at.max(now);
        match self.level.checked_sub(MICRO) {
            Some(left) => {
                self.level = left;
                Ok(())
            }
            None => Err((MICRO - self.level).div_ceil(u64::from(rate.per_second.max(1))).div_ceil(1_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn taken(bucket: &mut Bucket, now_ms: i64) -> usize {
        (0..100).take_while(|_| bucket.take(RATE, Timestamp::from_millis(now_ms)).is_ok()).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::full(RATE, Timestamp::from_millis(0));
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(bucket.take(RATE, Timestamp::from_millis(0)), Err(100));
        assert_eq!(bucket.take(RATE, Timestamp::from_millis(30)), Err(70));
        assert_eq!(taken(&mut bucket, 100), 1);
        assert_eq!(taken(&mut bucket, 299), 1);
        assert_eq!(taken(&mut bucket, 300), 1);
        assert_eq!(taken(&mut bucket, 1_000_000), 3, "no more than a burst");
    }

    #[test]
    fn the_wait_that_is_told_is_enough() {
        for per_second in [1, 3, 7, 1_000, 5_000] {
            let rate = Rate { per_second, burst: 1 };
            let mut bucket = Bucket::full(rate, Timestamp(0));
            bucket.take(rate, Timestamp(0)).expect("the first");
            let wait = bucket.take(rate, Timestamp(0)).expect_err("empty");
            bucket.take(rate, Timestamp::from_millis(wait as i64)).expect("after the wait");
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = Bucket::full(RATE, Timestamp::from_millis(1_000));
        assert_eq!(taken(&mut bucket, 1_000), 3);
        assert_eq!(taken(&mut bucket, 0), 0);
        assert_eq!(taken(&mut bucket, 1_000), 0, "time that passed once does not pass again");
    }
}
