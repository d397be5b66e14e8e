//! The rate of this host's counter of cycles, which a kernel in an emulated machine sees as it is and would measure badly: on a busy
//! host it takes seconds for ten, or does not come up.

#![allow(unsafe_code)]

use std::time::Duration;
use tokio::time::Instant;

const LOOK: Duration = Duration::from_millis(10);

/// In kHz. The middle of three looks: one during which this thread had to wait may be off.
pub fn counter_khz() -> u64 {
    let mut looks = [0; 3].map(|_: u64| look());
    looks.sort_unstable();
    looks[1]
}

fn look() -> u64 {
    let (begun, from) = (Instant::now(), counter());
    std::thread::sleep(LOOK);
    let (to, took) = (counter(), begun.elapsed());
    u64::try_from(u128::from(to.wrapping_sub(from)) * 1_000_000 / took.as_nanos().max(1)).unwrap_or(0)
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: every processor of this architecture has the instruction, and it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}
