//! The decoders of both wires as `tests/fuzz` feeds them: what a stream says, without a connection.

use crate::anthropic::MessageStream;
use crate::openai::ChatStream;
use crate::provider::{Answer, Delta, ModelError};
use crate::sse::Parser;
use crate::wire::{Decoder, Progress};
use crate::{ErrorClass, WireKind};
use loopd_domain::limits::ANSWER_BYTES_MAX;

/// What a stream came to, and what was shown on the way.
pub type Heard = (Result<Answer, ModelError>, Vec<Delta>);

/// A stream in pieces, read to its end.
pub fn stream(wire: WireKind, pieces: &[&[u8]]) -> Heard {
    match wire {
        WireKind::Anthropic => heard(MessageStream::default(), |decoder, sink| read(decoder, pieces, sink)),
        WireKind::Openai => heard(ChatStream::new(1), |decoder, sink| read(decoder, pieces, sink)),
    }
}

/// An answer that came as one document although a stream was asked for. `None`: it is not JSON.
pub fn document(wire: WireKind, bytes: &[u8]) -> Option<Heard> {
    let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    Some(match wire {
        WireKind::Anthropic => heard(MessageStream::default(), |decoder, sink| decoder.whole(document, sink)),
        WireKind::Openai => heard(ChatStream::new(1), |decoder, sink| decoder.whole(document, sink)),
    })
}

fn heard<D: Decoder>(
    mut decoder: D,
    feed: impl FnOnce(&mut D, &mut (dyn FnMut(Delta) + Send)) -> Result<(), ModelError>,
) -> Heard {
    let mut deltas = Vec::new();
    let fed = feed(&mut decoder, &mut |delta| deltas.push(delta));
    let answer = match (fed, decoder.progress()) {
        (Err(fault), _) => Err(fault),
        (Ok(()), Progress::Open) => Err(ModelError::new(ErrorClass::Connection, "cut off")),
        (Ok(()), _) => decoder.finish(),
    };
    (answer, deltas)
}

fn read<D: Decoder>(decoder: &mut D, pieces: &[&[u8]], sink: &mut (dyn FnMut(Delta) + Send)) -> Result<(), ModelError> {
    let mut parser = Parser::new(ANSWER_BYTES_MAX);
    let mut events = Vec::new();
    for piece in pieces {
        let pushed = parser.push(piece, &mut events);
        pushed.map_err(|fault| ModelError::new(ErrorClass::Garbage, fault.to_string()))?;
        for event in events.drain(..) {
            decoder.event(&event, sink)?;
            if decoder.progress() == Progress::Done {
                return Ok(());
            }
        }
    }
    match parser.finish() {
        Some(event) => decoder.event(&event, sink),
        None => Ok(()),
    }
}
