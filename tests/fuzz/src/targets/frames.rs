//! Frames between cell and host, both directions: what is read is written back and read the same, however it is cut.

use crate::pieces;
use loopd_protocol::codec::{Decoder, encode};
use loopd_protocol::{FromCell, ToCell};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

pub fn target(data: &[u8]) {
    direction::<FromCell>(data);
    direction::<ToCell>(data);
}

fn direction<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let (frames, fault) = read::<T>(&[data]);
    for cut in [pieces::cut(data), pieces::single(data)] {
        let (again, other) = read::<T>(&cut);
        assert_eq!((&again, other.is_some()), (&frames, fault.is_some()), "in pieces it says something else");
    }
    let mut bytes = Vec::new();
    for frame in &frames {
        encode(frame, &mut bytes).expect("what was read can be written");
    }
    let (again, fault) = read::<T>(&[&bytes]);
    assert!(fault.is_none(), "what was written cannot be read: {fault:?}");
    assert_eq!(again, frames, "it is not read as it is written");
}

/// The frames, and what ended them before their time.
fn read<T: DeserializeOwned>(pieces: &[&[u8]]) -> (Vec<T>, Option<String>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            let is_ready = decoder.is_ready();
            let next = decoder.next::<T>();
            assert_eq!(is_ready, !matches!(next, Ok(None)), "`is_ready` does not say what `next` gives");
            match next {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(fault) => return (frames, Some(fault.to_string())),
            }
        }
    }
    (frames, None)
}
