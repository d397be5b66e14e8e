//! What a fake provider answers, and how the bytes reach the wire.

use crate::builtin::script::Step;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// An answer, in the wire of the request.
    Step(Box<Step>),
    /// An event stream, byte for byte.
    Stream(Vec<u8>),
    /// Any response.
    Response { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// The connection is closed without a byte.
    Nothing,
    /// The connection stays open without a byte.
    Silence,
}

/// How the body is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivery {
    /// Before the status line.
    pub delay_ms: u64,
    /// Cuts the body into pieces of this many bytes, wherever that falls; otherwise events are sent whole.
    pub piece_bytes: Option<usize>,
    /// Before each piece or event.
    pub piece_delay_ms: u64,
    /// Sends no more than this many bytes of the body.
    pub cut_after: Option<usize>,
    pub end: End,
}

/// What follows the last byte of the body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum End {
    /// The proper end of the response; the connection lives on.
    #[default]
    Complete,
    /// The connection closes in the middle of the body.
    Close,
    /// Nothing, and the connection stays open.
    Hang,
    /// This, again and again.
    Endless(Vec<u8>),
}

/// A reply and its way onto the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub reply: Reply,
    pub delivery: Delivery,
}

impl From<Reply> for Planned {
    fn from(reply: Reply) -> Self {
        Planned { reply, delivery: Delivery::default() }
    }
}

impl From<Step> for Planned {
    fn from(step: Step) -> Self {
        Reply::Step(Box::new(step)).into()
    }
}

impl Reply {
    pub fn stream(text: impl Into<Vec<u8>>) -> Self {
        Reply::Stream(text.into())
    }

    /// A response with a JSON body.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Reply::text(status, "application/json", &body.to_string())
    }

    pub fn text(status: u16, content_type: &str, body: &str) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Reply::Response { status, headers, body: body.as_bytes().to_vec() }
    }

    /// The same response with one more header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Reply::Response { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub fn delivered(self, delivery: Delivery) -> Planned {
        Planned { reply: self, delivery }
    }
}

impl Delivery {
    /// Sends `bytes` bytes of the body, then ends so.
    pub fn cut(bytes: usize, end: End) -> Self {
        Delivery { cut_after: Some(bytes), end, ..Delivery::default() }
    }

    pub(super) async fn pause(ms: u64) {
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }
}
