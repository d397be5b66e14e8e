//! One frame of the link to bytes and back.

use super::{LinkError, StreamId};
use loopd_domain::limits::LINK_FRAME_BYTES_MAX;

pub(super) const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const CREDIT: u8 = 1;
const OPEN: u8 = 2;
const END: u8 = 3;
const ABORT: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Data(&'a [u8]),
    Credit(u32),
    Open(u8),
    End,
    Abort,
}

impl Frame<'_> {
    pub(super) fn encode(self, id: StreamId, out: &mut Vec<u8>) {
        let credit;
        let open;
        let (kind, payload): (u8, &[u8]) = match self {
            Frame::Data(bytes) => (DATA, bytes),
            Frame::Credit(bytes) => {
                credit = bytes.to_le_bytes();
                (CREDIT, &credit)
            }
            Frame::Open(kind) => {
                open = [kind];
                (OPEN, &open)
            }
            Frame::End => (END, &[]),
            Frame::Abort => (ABORT, &[]),
        };
        out.extend_from_slice(&id.0.to_le_bytes());
        out.push(kind);
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(payload);
    }
}

/// The first frame in `bytes`, and how many bytes it takes; `None`: it is not all there yet. What is wrong is told as soon as it shows.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(StreamId, Frame<'_>, usize)>, LinkError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [i0, i1, i2, i3, kind, l0, l1, l2, l3] = *header;
    let id = StreamId(u32::from_le_bytes([i0, i1, i2, i3]));
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let accepted = match kind {
        DATA => 1..=LINK_FRAME_BYTES_MAX,
        CREDIT => 4..=4,
        OPEN => 1..=1,
        END | ABORT => 0..=0,
        _ => return Err(LinkError::Kind { kind }),
    };
    if !accepted.contains(&length) {
        return Err(LinkError::Length { kind, bytes: length, least: *accepted.start(), most: *accepted.end() });
    }
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let frame = match (kind, payload) {
        (CREDIT, &[a, b, c, d]) => Frame::Credit(u32::from_le_bytes([a, b, c, d])),
        (OPEN, &[kind]) => Frame::Open(kind),
        (END, _) => Frame::End,
        (ABORT, _) => Frame::Abort,
        _ => Frame::Data(payload),
    };
    Ok(Some((id, frame, HEADER_BYTES + length)))
}
