//! Ids of traces and spans, derived: the first bytes of SHA-256 over a label and the journal's own id. And the caller's
//! `traceparent` (W3C Trace Context, version 00).

use loopd_domain::SessionId;
use loopd_domain::chain::sha256_hex;

/// Hex digits of a trace id and of a span id.
const TRACE_DIGITS: usize = 32;
const SPAN_DIGITS: usize = 16;

/// Trace id of a session's own trace.
pub fn trace_id(session: &SessionId) -> String {
    derive("trace", session.as_str(), TRACE_DIGITS)
}

/// Trace id that the spans of a turn have: the caller's when it gave a valid `traceparent`, else the session's.
pub fn turn_trace_id(session: &SessionId, traceparent: Option<&str>) -> String {
    let caller = traceparent.and_then(Caller::parse);
    caller.map_or_else(|| trace_id(session), |c| c.trace_id)
}

pub(super) fn span_id(label: &str, source: &str) -> String {
    derive(label, source, SPAN_DIGITS)
}

fn derive(label: &str, source: &str, digits: usize) -> String {
    let mut hex = sha256_hex(format!("loopd:{label}:{source}").as_bytes());
    hex.truncate(digits);
    hex
}

/// The span of the caller that a turn belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub trace_id: String,
    pub span_id: String,
}

impl Caller {
    /// `None` for what is not valid: the standard says to start a trace of one's own then.
    pub(super) fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // A later version may carry more parts; version 00 must not.
        let whole = parts.next().is_none() || version != "00";
        let valid = whole
            && is_hex(version, 2)
            && version != "ff"
            && is_hex(trace_id, TRACE_DIGITS)
            && is_hex(span_id, SPAN_DIGITS)
            && is_hex(flags, 2)
            && [trace_id, span_id].iter().all(|id| id.bytes().any(|b| b != b'0'));
        valid.then(|| Caller { trace_id: trace_id.to_owned(), span_id: span_id.to_owned() })
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_callers_span_is_read_as_the_standard_says() {
        let caller = Caller::parse(&format!("00-{TRACE}-00f067aa0ba902b7-01")).expect("valid");
        assert_eq!((caller.trace_id.as_str(), caller.span_id.as_str()), (TRACE, "00f067aa0ba902b7"));
        assert!(Caller::parse(&format!("01-{TRACE}-00f067aa0ba902b7-01-what-is-new")).is_some());
        let zeros = "0".repeat(32);
        for bad in [
            String::new(),
            "hello".to_owned(),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
        ] {
            assert_eq!(Caller::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_are_derived_and_differ_by_label() {
        let session = SessionId::parse("session", "sesn_01A").expect("valid");
        assert_eq!(trace_id(&session), trace_id(&session));
        assert!(is_hex(&trace_id(&session), 32) && is_hex(&span_id("turn", "x"), 16));
        assert_ne!(span_id("turn", "x"), span_id("step", "x"));
        assert_eq!(turn_trace_id(&session, Some("nonsense")), trace_id(&session));
        assert_eq!(turn_trace_id(&session, Some(&format!("00-{TRACE}-00f067aa0ba902b7-00"))), TRACE);
    }
}
