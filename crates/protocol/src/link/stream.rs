//! One stream, as one end sees it.

use loopd_domain::limits::LINK_WINDOW_BYTES;

#[derive(Debug)]
pub(super) struct Stream {
    /// Bytes that may be written.
    pub(super) credit: u32,
    /// Bytes that the other side may write.
    pub(super) window: u32,
    /// Bytes that were handed over and are not taken yet.
    pub(super) untaken: u32,
    /// Bytes that were taken; the other side is to be told.
    pub(super) owed: u32,
    /// The other side writes no more.
    pub(super) is_ended: bool,
    pub(super) own: Own,
    /// It was written to in vain.
    pub(super) is_blocked: bool,
    /// Among those that have something to say that is no data.
    pub(super) is_due: bool,
    /// Among those that may be written to when there is space.
    pub(super) is_next: bool,
}

/// What becomes of this side's half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// The other side has not been told yet that there is such a stream; `ends`: nothing will be written to it.
    New {
        kind: u8,
        ends: bool,
    },
    Open,
    /// Nothing more is written, which is still to be told.
    Ending,
    Ended,
    /// Both halves are void, which is still to be told.
    Aborting,
}

impl Stream {
    pub(super) fn new(own: Own) -> Self {
        Stream {
            credit: LINK_WINDOW_BYTES,
            window: LINK_WINDOW_BYTES,
            untaken: 0,
            owed: 0,
            is_ended: false,
            own,
            is_blocked: false,
            is_due: false,
            is_next: false,
        }
    }

    /// Bytes that it may send now, as far as the reader is concerned.
    pub(super) fn may_send(&self) -> usize {
        match self.own {
            Own::Open => self.credit as usize,
            Own::New { .. } | Own::Ending | Own::Ended | Own::Aborting => 0,
        }
    }

    /// Whether the other side is to be told of what was taken: not for each byte.
    pub(super) fn owes(&self) -> bool {
        !self.is_ended && self.owed >= LINK_WINDOW_BYTES / 2
    }
}
