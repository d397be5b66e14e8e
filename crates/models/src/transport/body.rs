//! From a response's bytes to a decoder: stream or document, bounded in size and in silence.

use super::classify::{self, CHECK_ADDRESS, CHECK_WAY};
use super::{lost, silent};
use crate::draft::Sink;
use crate::provider::{ErrorClass, ModelError};
use crate::sse::{EventTooLarge, Parser, SseEvent};
use crate::wire::{Decoder, Progress};
use bytes::Bytes;
use futures_util::FutureExt;
use loopd_domain::limits::ANSWER_BYTES_MAX;
use reqwest::header::CONTENT_TYPE;
use std::time::Duration;

/// What may still follow a finished answer (its usage) is waited for this long.
const TRAILER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a whole stream: an answer, and what its wire wraps each piece of it in.
const STREAM_BYTES_MAX: usize = 16 * ANSWER_BYTES_MAX;
/// Bytes of an answer that came as one document, with what its wire wraps it in.
const DOCUMENT_BYTES_MAX: usize = 2 * ANSWER_BYTES_MAX;

/// A response body, piece by piece, with both bounds: on silence and on size.
pub(super) struct BodyReader<'a> {
    response: &'a mut reqwest::Response,
    silence: Duration,
    read: usize,
    shown: &'a str,
}

impl<'a> BodyReader<'a> {
    /// Does the response call itself an event stream?
    fn says_stream(&self) -> bool {
        let content_type = self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        content_type.is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    pub fn new(response: &'a mut reqwest::Response, silence: Duration, shown: &'a str) -> Self {
        BodyReader { response, silence, read: 0, shown }
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>, ModelError> {
        let piece = match tokio::time::timeout(self.silence, self.response.chunk()).await {
            Ok(piece) => piece.map_err(|fault| lost(&fault, self.shown))?,
            Err(_) => return Err(silent(self.silence, self.shown)),
        };
        self.read += piece.as_ref().map_or(0, Bytes::len);
        if self.read > STREAM_BYTES_MAX {
            let message = format!(
                "{} has sent more than {STREAM_BYTES_MAX} bytes and goes on; it was cut off{CHECK_ADDRESS}",
                self.shown
            );
            return Err(ModelError::new(ErrorClass::Garbage, message));
        }
        Ok(piece)
    }
}

/// Feeds the decoder until the answer is whole. The first byte says what it is fed with: some servers answer a stream
/// request with one document, and some call a stream `text/plain`.
pub(super) async fn read_answer<D: Decoder>(
    body: &mut BodyReader<'_>,
    status: u16,
    decoder: &mut D,
    sink: &mut Sink<'_>,
) -> Result<(), ModelError> {
    let mut head = Vec::new();
    let first = loop {
        let Some(piece) = body.next().await? else { return Err(nothing(status, body.shown)) };
        head.extend_from_slice(&piece);
        if let Some(first) = head.iter().find(|byte| !byte.is_ascii_whitespace()) {
            break *first;
        }
    };
    match first {
        b'{' | b'[' => read_document(body, head, status, decoder, sink).await,
        b'<' => Err(classify::garbage(status, &head, body.shown)),
        _ => read_stream(body, head, status, decoder, sink).await,
    }
}

async fn read_document<D: Decoder>(
    body: &mut BodyReader<'_>,
    mut bytes: Vec<u8>,
    status: u16,
    decoder: &mut D,
    sink: &mut Sink<'_>,
) -> Result<(), ModelError> {
    while let Some(piece) = body.next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > DOCUMENT_BYTES_MAX {
            let message = format!(
                "{} answered with more than {DOCUMENT_BYTES_MAX} bytes; it was cut off{CHECK_ADDRESS}",
                body.shown
            );
            return Err(ModelError::new(ErrorClass::Garbage, message));
        }
    }
    match serde_json::from_slice(&bytes) {
        Ok(document) => decoder.whole(document, sink),
        Err(fault) if fault.is_eof() => Err(cut(body.shown)),
        Err(_) => Err(classify::garbage(status, &bytes, body.shown)),
    }
}

async fn read_stream<D: Decoder>(
    body: &mut BodyReader<'_>,
    head: Vec<u8>,
    status: u16,
    decoder: &mut D,
    sink: &mut Sink<'_>,
) -> Result<(), ModelError> {
    let mut parser = Parser::new(ANSWER_BYTES_MAX);
    let mut events: Vec<SseEvent> = Vec::new();
    let mut seen = false;
    let mut piece = Bytes::from(head.clone());
    let too_large = |fault: EventTooLarge| ModelError::new(ErrorClass::Garbage, fault.to_string());
    loop {
        parser.push(&piece, &mut events).map_err(too_large)?;
        for event in events.drain(..) {
            seen = true;
            decoder.event(&event, sink)?;
            if decoder.progress() == Progress::Done {
                return Ok(());
            }
        }
        if decoder.progress() == Progress::Answered {
            body.silence = body.silence.min(TRAILER_TIMEOUT);
        }
        piece = match body.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            // Nothing of the answer is missing, only the end mark; asking again would pay for it twice.
            Err(_) if decoder.progress() == Progress::Answered => return Ok(()),
            Err(fault) => return Err(fault),
        };
    }
    if let Some(event) = parser.finish() {
        // A last line that cannot be read was cut in the middle.
        seen = true;
        decoder
            .event(&event, sink)
            .map_err(|fault| if fault.class == ErrorClass::Garbage { cut(body.shown) } else { fault })?;
    }
    match decoder.progress() {
        Progress::Open if !seen && !body.says_stream() => Err(classify::garbage(status, &head, body.shown)),
        Progress::Open => Err(cut(body.shown)),
        Progress::Answered | Progress::Done => Ok(()),
    }
}

/// Reads what is left (the end of the chunked body) so that the connection can be used again. Nobody waits for it.
pub(super) fn drain(mut response: reqwest::Response) {
    if let Some(Ok(None)) = response.chunk().now_or_never() {
        return;
    }
    tokio::spawn(tokio::time::timeout(Duration::from_secs(1), async move {
        while let Ok(Some(_)) = response.chunk().await {}
    }));
}

fn nothing(status: u16, shown: &str) -> ModelError {
    let message = format!("{shown} answered {status} and closed without a byte{CHECK_ADDRESS}");
    ModelError { status: Some(status), ..ModelError::new(ErrorClass::Connection, message) }
}

fn cut(shown: &str) -> ModelError {
    let message = format!("{shown}: the connection closed in the middle of the answer{CHECK_WAY}");
    ModelError::new(ErrorClass::Connection, message)
}
