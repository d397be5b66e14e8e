//! Where an entry stands in the table `events`: session and seq in one integer, so that each journal is one range.

use crate::StoreError;
use loopd_domain::Seq;

const SEQ_BITS: u32 = 32;
const SEQ_MAX: Seq = (1 << SEQ_BITS) - 1;
const KEY_MAX: i64 = (1 << (63 - SEQ_BITS)) - 1;

/// Row of a session: `sessions.key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionKey(pub i64);

/// Fails where the numbers end: after two thousand million sessions, or four thousand million entries of one.
pub fn place(session: SessionKey, seq: Seq) -> Result<i64, StoreError> {
    if session.0 > KEY_MAX || seq > SEQ_MAX {
        return Err(StoreError::Unavailable(format!(
            "no room for entry {seq} of session number {}; accepted: up to entry {SEQ_MAX} of session number {KEY_MAX}",
            session.0
        )));
    }
    Ok(session.0 << SEQ_BITS | seq as i64)
}

/// First place that no entry of this session can have, and none before it belongs to another after `seq`.
pub fn end(session: SessionKey) -> i64 {
    session.0 << SEQ_BITS | SEQ_MAX as i64
}

pub fn seq_of(place: i64) -> Seq {
    place as u64 & SEQ_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_do_not_overlap() {
        let (a, b) = (SessionKey(1), SessionKey(2));
        let last = place(a, SEQ_MAX).expect("in range");
        assert!(last < place(b, 0).expect("in range"));
        assert_eq!((seq_of(last), end(a)), (SEQ_MAX, last));
        assert!(place(SessionKey(KEY_MAX), SEQ_MAX).expect("in range") > 0);
        place(a, SEQ_MAX + 1).expect_err("too many entries");
        place(SessionKey(KEY_MAX + 1), 1).expect_err("too many sessions");
    }
}
