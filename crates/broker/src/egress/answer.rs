//! An answer on its way in: secrets that it repeats become placeholders again.
//!
//! As far as it can be read: a body with a `Content-Encoding` passes as it is, and `identity` was asked for where a secret was sent.

use super::body::{self, Body, Fault, Measured};
use super::hop;
use super::replace::head::Turned;
use super::replace::stream::{Pattern, Piece, Replacer};
use super::replace::{Bound, contains, replaced};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use hyper::{HeaderMap, Method, Response};
use loopd_domain::limits::MASKED_SECRET_BYTES_MIN;
use std::collections::VecDeque;
use zeroize::Zeroizing;

/// What is looked for in an answer, and what stands in its place.
pub(crate) fn masks(bound: &Bound, encoded: Vec<Turned>) -> Vec<Turned> {
    let own = bound.here.iter().map(|c| (c.secret.to_zeroizing(), c.placeholder.clone().into_bytes()));
    own.chain(encoded).filter(|(secret, _)| secret.len() >= MASKED_SECRET_BYTES_MIN).collect()
}

pub(crate) fn answer(
    response: Response<Incoming>,
    masks: Vec<Turned>,
    method: &Method,
    is_upgrade: bool,
) -> Response<Body> {
    let (mut parts, incoming) = response.into_parts();
    hop::strip(&mut parts.headers, is_upgrade);
    mask_headers(&mut parts.headers, &masks);
    let is_plain = parts.headers.get_all(CONTENT_ENCODING).iter().all(|value| value == "identity");
    let pattern =
        |(find, by): &Turned| Pattern { find: find.clone(), replace: Some(Zeroizing::new(by.clone())), tag: () };
    let has_body = !hyper::body::Body::is_end_stream(&incoming) && method != Method::HEAD;
    let replacer = if is_plain && has_body { Replacer::new(masks.iter().map(pattern).collect()) } else { None };
    let body = match replacer {
        None => body::pass(incoming),
        Some(replacer) => {
            let length = hyper::body::Body::size_hint(&incoming).exact().filter(|_| replacer.keeps_length());
            if length.is_none() {
                parts.headers.remove(CONTENT_LENGTH);
            }
            let masked = Masked { incoming, replacer, masks, ready: VecDeque::new(), is_ended: false };
            let inner = StreamBody::new(stream::try_unfold(masked, Masked::next)).boxed_unsync();
            Measured { inner, length }.boxed_unsync()
        }
    };
    Response::from_parts(parts, body)
}

fn mask_headers(headers: &mut HeaderMap, masks: &[Turned]) {
    for value in headers.values_mut() {
        for (secret, by) in masks {
            if contains(value.as_bytes(), secret) {
                // What stood in a request as a header's value can stand in an answer's.
                let made = HeaderValue::from_bytes(&replaced(value.as_bytes(), secret, by));
                *value = made.unwrap_or_else(|_| HeaderValue::from_static("masked"));
            }
        }
    }
}

struct Masked {
    incoming: Incoming,
    replacer: Replacer<()>,
    masks: Vec<Turned>,
    ready: VecDeque<Frame<Bytes>>,
    is_ended: bool,
}

impl Masked {
    async fn next(mut self) -> Result<Option<(Frame<Bytes>, Self)>, Fault> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some((frame, self)));
            }
            if self.is_ended {
                return Ok(None);
            }
            let frame = self.incoming.frame().await.transpose()?.map(Frame::into_data);
            self.is_ended = !matches!(frame, Some(Ok(_)));
            let (pieces, trailers) = match frame {
                Some(Ok(data)) => (self.replacer.feed(data), None),
                Some(Err(frame)) => (self.replacer.finish(), frame.into_trailers().ok()),
                None => (self.replacer.finish(), None),
            };
            for piece in pieces {
                if let Piece::Bytes(bytes) = piece {
                    self.ready.push_back(Frame::data(bytes));
                }
            }
            self.ready.extend(trailers.map(|mut trailers| {
                mask_headers(&mut trailers, &self.masks);
                Frame::trailers(trailers)
            }));
        }
    }
}
