//! Why a connection or a request stops here, and how a program is told.

use super::body::{self, Body};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use loopd_domain::network::ConnectionOutcome;

/// What is told in the answer, and in the report. Never a secret or a placeholder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stop {
    pub(crate) status: StatusCode,
    pub(crate) outcome: ConnectionOutcome,
}

impl Stop {
    /// The rules say no.
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Stop { status: StatusCode::FORBIDDEN, outcome: ConnectionOutcome::Refused { reason: reason.into() } }
    }

    /// What came is no request that is understood.
    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Stop { status: StatusCode::BAD_REQUEST, ..Stop::refused(reason) }
    }

    /// The request is for another host than the connection.
    pub(crate) fn misdirected(reason: impl Into<String>) -> Self {
        Stop { status: StatusCode::MISDIRECTED_REQUEST, ..Stop::refused(reason) }
    }

    /// There is no room for it now.
    pub(crate) fn busy(reason: impl Into<String>) -> Self {
        Stop { status: StatusCode::SERVICE_UNAVAILABLE, ..Stop::refused(reason) }
    }

    /// A placeholder on its way to where it must not go.
    pub(crate) fn violation(reason: impl Into<String>) -> Self {
        Stop { status: StatusCode::FORBIDDEN, outcome: ConnectionOutcome::Violation { reason: reason.into() } }
    }

    /// It was allowed and did not work.
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Stop { status: StatusCode::BAD_GATEWAY, outcome: ConnectionOutcome::Failed { reason: reason.into() } }
    }

    pub(crate) fn reason(&self) -> &str {
        match &self.outcome {
            ConnectionOutcome::Done => "",
            ConnectionOutcome::Refused { reason }
            | ConnectionOutcome::Violation { reason }
            | ConnectionOutcome::Failed { reason } => reason,
        }
    }

    /// The status line's words: many programs show nothing else.
    fn phrase(&self) -> String {
        let plain = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
        let standard = self.status.canonical_reason().unwrap_or("Refused");
        format!("{standard}: {}", self.reason()).chars().take(PHRASE_CHARS_MAX).map(plain).collect()
    }

    fn text(&self) -> String {
        format!("loopd egress: {}\n", self.reason())
    }

    /// As an answer inside HTTP. After it the connection is closed.
    pub(crate) fn response(&self, is_h2: bool) -> Response<Body> {
        let mut response = Response::new(body::full(self.text()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if !is_h2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            if let Ok(phrase) = ReasonPhrase::try_from(self.phrase().into_bytes()) {
                response.extensions_mut().insert(phrase);
            }
        }
        response
    }

    /// As bytes, where no HTTP server is at work.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (status, phrase, text) = (self.status.as_str(), self.phrase(), self.text());
        let length = text.len();
        format!(
            "HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\nconnection: \
             close\r\n\r\n{text}"
        )
        .into_bytes()
    }
}

const PHRASE_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_cannot_end_the_status_line() {
        let told = Stop::refused("host `bü\r\nx: y` is not known");
        let text = String::from_utf8(told.bytes()).expect("text");
        assert!(text.starts_with("HTTP/1.1 403 Forbidden: host `b???x: y` is not known\r\n"), "{text}");
        assert!(told.response(false).extensions().get::<ReasonPhrase>().is_some());
        assert!(told.response(true).headers().get(CONNECTION).is_none());
    }
}
