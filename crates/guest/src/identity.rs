//! What makes a copy of a machine one of its own: entropy, time, a name.

use crate::fault::{Fault, While};
use crate::sys::{self, ENTROPY_BYTES};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, Timespec};
use std::os::fd::AsFd;

const NANOS: u64 = 1_000_000_000;

/// Entropy and time, at each waking.
pub fn refresh(entropy: &str, now_ns: u64) -> Result<(), Fault> {
    const DOING: &str = "taking entropy";
    let bytes = from_hex::<ENTROPY_BYTES>(entropy)
        .ok_or_else(|| Fault::new(DOING, format!("accepted: {ENTROPY_BYTES} bytes in hexadecimal")))?;
    let random = rustix::fs::open("/dev/urandom", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).while_doing(DOING)?;
    sys::add_entropy(random.as_fd(), &bytes).while_doing(DOING)?;
    let seconds = i64::try_from(now_ns / NANOS).map_err(|_| Fault::new("setting the clock", "no such time"))?;
    let time = Timespec { tv_sec: seconds, tv_nsec: (now_ns % NANOS) as _ };
    rustix::time::clock_settime(ClockId::Realtime, time).while_doing("setting the clock")
}

pub fn set_name(name: &str) -> Result<(), Fault> {
    rustix::system::sethostname(name.as_bytes()).while_doing("naming the machine")
}

pub fn from_hex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| high << 4 | low).collect::<Vec<u8>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_bytes_of_the_right_number_are_taken() {
        assert_eq!(from_hex::<2>("0fA0"), Some([0x0f, 0xa0]));
        for bad in ["", "0f", "0fa", "0fa00", "0fa000", "0fxx", "é0fa"] {
            assert_eq!(from_hex::<2>(bad), None, "{bad}");
        }
    }
}
