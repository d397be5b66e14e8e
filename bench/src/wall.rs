//! The wall clock, to compare our moments with those of the journal on the same machine.

use loopd_domain::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

#[allow(clippy::disallowed_methods, reason = "a benchmark is a composition root: it reads the machine's clock")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}
