//! Placeholders in a body that passes in pieces: any pieces give what the whole gives, and that is what a plain search gives.
//!
//! The first line of the input is the patterns, `find=replace&find=replace`; the rest is the body.

use crate::pieces;
use loopd_broker::egress::fuzzing::replaced;

const PATTERNS_MAX: usize = 8;

pub fn target(data: &[u8]) {
    let (head, body) = pieces::line(data);
    let patterns: Vec<(&[u8], &[u8])> = head.split(|byte| *byte == b'&').take(PATTERNS_MAX).map(pattern).collect();
    let expected = plain(&patterns, body);
    for cut in [vec![body], pieces::cut(body), pieces::single(body)] {
        assert_eq!(replaced(&patterns, &cut).0, expected, "{} pieces make another body", cut.len());
    }
}

fn pattern(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b"<secret>"),
    }
}

/// The first match, the longest where several begin; then on behind it.
fn plain(patterns: &[(&[u8], &[u8])], body: &[u8]) -> Vec<u8> {
    let (mut at, mut out) = (0, Vec::new());
    while at < body.len() {
        let mut found: Option<&(&[u8], &[u8])> = None;
        for pattern in patterns.iter().filter(|(find, _)| !find.is_empty() && body[at..].starts_with(find)) {
            if found.is_none_or(|(find, _)| find.len() < pattern.0.len()) {
                found = Some(pattern);
            }
        }
        match found {
            Some((find, by)) => {
                out.extend_from_slice(by);
                at += find.len();
            }
            None => {
                out.push(body[at]);
                at += 1;
            }
        }
    }
    out
}
