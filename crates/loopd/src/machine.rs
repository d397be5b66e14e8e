//! The machine's clock and randomness, behind the ports that the rooms know. The only place that reads either.

use loopd_domain::{Clock, IdSource, Timestamp};
use rustix::rand::{GetRandomFlags, getrandom};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

/// Wall time that never goes back within a process and always moves at the speed of time.
///
/// It is a monotonic clock plus an offset. When the wall clock is ahead of that sum (the machine slept, or was set forward)
/// the offset grows; when the wall clock is set back, the sum simply goes on.
pub struct SystemClock {
    started: Instant,
    offset_micros: AtomicI64,
}

impl SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the composition root's clock")]
    pub fn new() -> Self {
        SystemClock { started: Instant::now(), offset_micros: AtomicI64::new(i64::MIN) }
    }

    #[allow(clippy::disallowed_methods, reason = "this is the composition root's clock")]
    fn wall_micros() -> i64 {
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            // A machine that believes to be before 1970.
            Err(_) => 0,
        }
    }

    fn at(&self, wall_micros: i64, monotonic_micros: i64) -> Timestamp {
        let offset = wall_micros - monotonic_micros;
        let known = self.offset_micros.fetch_max(offset, Ordering::Relaxed);
        Timestamp(monotonic_micros + known.max(offset))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let monotonic = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.at(Self::wall_micros(), monotonic)
    }
}

/// ULIDs from the kernel's randomness. Each is greater than the one before, also within a millisecond, and none tells the
/// next: what follows in the same millisecond is a random stride further.
pub struct MachineIds {
    clock: Arc<dyn Clock>,
    last: Mutex<u128>,
}

impl MachineIds {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        MachineIds { clock, last: Mutex::new(0) }
    }
}

impl IdSource for MachineIds {
    fn ulid(&self) -> u128 {
        let random = random_u128();
        let ms = u128::from(self.clock.now().millis().max(0).unsigned_abs());
        let fresh = ((ms & ((1 << 48) - 1)) << 80) | (random & ((1 << 80) - 1));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = match fresh >> 80 > *last >> 80 {
            true => fresh,
            false => *last + 1 + (random & u128::from(u64::MAX)),
        };
        *last
    }
}

/// 256 unpredictable bits, for keys that are kept.
pub fn key_bits() -> [u8; 32] {
    let mut bits = [0; 32];
    let (high, low) = bits.split_at_mut(16);
    high.copy_from_slice(&random_u128().to_be_bytes());
    low.copy_from_slice(&random_u128().to_be_bytes());
    bits
}

/// 128 unpredictable bits as 32 hexadecimal digits: a key that only this process and those it tells can know.
pub fn one_time_key() -> String {
    format!("{:032x}", random_u128())
}

fn random_u128() -> u128 {
    let mut bytes = [0u8; 16];
    let filled = getrandom(&mut bytes[..], GetRandomFlags::empty());
    let filled = filled.expect("the kernel's generator is seeded before programs like this one start");
    assert_eq!(filled, bytes.len(), "up to 256 bytes come whole");
    u128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_goes_on() {
        let clock = SystemClock::new();
        assert_eq!(clock.at(1_000_000, 0), Timestamp(1_000_000));
        assert_eq!(clock.at(500_000, 10), Timestamp(1_000_010));
        assert_eq!(clock.at(9_000_000, 20), Timestamp(9_000_000));
        assert_eq!(clock.at(9_000_005, 30), Timestamp(9_000_010));
    }

    struct Fixed;
    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1_700_000_000_000)
        }
    }

    #[test]
    fn ids_of_one_millisecond_rise_by_unequal_strides() {
        let ids = MachineIds::new(Arc::new(Fixed));
        let made: Vec<u128> = (0..1_000).map(|_| ids.ulid()).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(made[0] >> 80, 1_700_000_000_000);
        let strides: std::collections::HashSet<u128> = made.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(strides.len(), 999);
    }

    #[test]
    fn keys_differ() {
        assert_ne!(one_time_key(), one_time_key());
        assert_ne!(key_bits(), key_bits());
        assert_ne!(key_bits()[..16], key_bits()[16..]);
        assert_eq!(one_time_key().len(), 32);
    }
}
