//! Requests that carry an AWS signature: with another signature they say the same otherwise, and signed chunks do not depend on
//! how they are cut.

use crate::pieces;
use loopd_broker::egress::fuzzing::{AwsSigned, head};

/// The keys of AWS's own examples.
const KEYS: [&str; 2] = ["wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "another key"];

pub fn target(data: &[u8]) {
    let end = data.windows(4).position(|window| window == b"\r\n\r\n").map_or(data.len(), |at| at + 4);
    let (text, body) = data.split_at(end);
    let Some(parts) = head(text) else { return };
    let target = parts.uri.path_and_query().map(|target| target.as_str().to_owned()).unwrap_or_default();
    let Ok(Some(signed)) = AwsSigned::read(&target, &parts.headers) else { return };
    let other = "0123456789abcdef".repeat(4);
    if let Some((target, headers)) = signed.with(&other, &target, &parts.headers) {
        let again = AwsSigned::read(&target, &headers).expect("it is readable").expect("it is signed");
        assert!(again.shown().contains(&other), "the new signature is not there: {}", again.shown());
        let old = signature(&signed.shown());
        assert_eq!(again.shown().replace(&other, &old), signed.shown(), "more than the signature has changed");
    }
    let again = || signed.again(&parts, &target, KEYS[0], KEYS[1]);
    if let Ok((signature, Some(chunks))) = again() {
        assert!(signature.len() == 64 && signature.bytes().all(|b| b.is_ascii_hexdigit()));
        let whole = chunks.again(&[body]);
        for cut in [pieces::cut(body), pieces::single(body)] {
            let chunks = again().expect("as before").1.expect("as before");
            assert_eq!(chunks.again(&cut), whole, "in pieces it is signed otherwise");
        }
        assert!(whole.is_err() || whole.is_ok_and(|made| made.len() == body.len()));
    }
}

/// The signature in what `shown` gives.
fn signature(shown: &str) -> String {
    let (_, rest) = shown.split_once("signature: \"").expect("a signature");
    rest.split('"').next().unwrap_or_default().to_owned()
}
