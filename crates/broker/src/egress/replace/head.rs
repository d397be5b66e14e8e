//! In the head of a request: header values, what `Basic` authentication encodes, and the target.

use super::{contains, replaced};
use crate::credentials::BoundCredential;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Uri};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Programs pad, or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A secret that cannot stand where its placeholder stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret of `{variable}` has bytes that {place} cannot carry")]
pub(crate) struct Unplaceable {
    pub(crate) variable: String,
    pub(crate) place: &'static str,
}

/// What stands in a request as it is sent, and what stood there: to be turned back in the answer.
pub(crate) type Turned = (Zeroizing<Vec<u8>>, Vec<u8>);

#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) used: Vec<Arc<BoundCredential>>,
    /// Secrets in another form than their own: within `Basic`, or with percent signs.
    pub(crate) encoded: Vec<Turned>,
}

/// Which of the placeholders stand in a head.
pub(crate) fn seen(uri: &Uri, headers: &HeaderMap, credentials: &[Arc<BoundCredential>]) -> Vec<Arc<BoundCredential>> {
    let target = uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default();
    let is_seen = |credential: &&Arc<BoundCredential>| {
        let placeholder = credential.placeholder.as_bytes();
        contains(target.as_bytes(), placeholder)
            || headers.iter().any(|(name, value)| {
                contains(value.as_bytes(), placeholder)
                    || basic(name, value).is_some_and(|plain| contains(&plain, placeholder))
            })
    };
    credentials.iter().filter(is_seen).cloned().collect()
}

/// Puts the secrets in.
pub(crate) fn place(
    uri: &mut Uri,
    headers: &mut HeaderMap,
    credentials: &[Arc<BoundCredential>],
) -> Result<Placed, Unplaceable> {
    let mut placed = Placed { used: seen(uri, headers, credentials), encoded: Vec::new() };
    // The longest first: one placeholder may be the beginning of another.
    placed.used.sort_by_key(|credential| std::cmp::Reverse(credential.placeholder.len()));
    for credential in &placed.used {
        let (placeholder, secret) = (credential.placeholder.as_bytes(), credential.secret.reveal());
        for (name, value) in headers.iter_mut() {
            let refused = || Unplaceable { variable: credential.variable.clone(), place: "a header" };
            if contains(value.as_bytes(), placeholder) {
                let made = Zeroizing::new(replaced(value.as_bytes(), placeholder, secret));
                set(value, &made).ok_or_else(refused)?;
            } else if let Some(plain) = basic(name, value).filter(|plain| contains(plain, placeholder)) {
                let before = value.as_bytes()[BASIC.len()..].trim_ascii().to_vec();
                let plain = Zeroizing::new(replaced(&plain, placeholder, secret));
                let token = Zeroizing::new(STANDARD.encode(&*plain).into_bytes());
                let made = Zeroizing::new([BASIC, token.as_slice()].concat());
                set(value, &made).ok_or_else(refused)?;
                placed.encoded.push((token, before));
            }
        }
    }
    target(uri, &mut placed)?;
    Ok(placed)
}

fn target(uri: &mut Uri, placed: &mut Placed) -> Result<(), Unplaceable> {
    let Some(before) = uri.path_and_query().map(|target| Zeroizing::new(target.as_str().as_bytes().to_vec())) else {
        return Ok(());
    };
    let mut target = before;
    for credential in &placed.used {
        let placeholder = credential.placeholder.as_bytes();
        if !contains(&target, placeholder) {
            continue;
        }
        let escaped = Zeroizing::new(escape(credential.secret.reveal()));
        target = Zeroizing::new(replaced(&target, placeholder, &escaped));
        if escaped.as_slice() != credential.secret.reveal() {
            placed.encoded.push((escaped, placeholder.to_vec()));
        }
        let mut parts = std::mem::take(uri).into_parts();
        let refused = || Unplaceable { variable: credential.variable.clone(), place: "the target of a request" };
        parts.path_and_query = Some(PathAndQuery::try_from(target.as_slice()).map_err(|_| refused())?);
        *uri = Uri::from_parts(parts).map_err(|_| refused())?;
    }
    Ok(())
}

/// A value that no compression remembers and no log shows. A line end is no part of one.
fn set(value: &mut HeaderValue, bytes: &[u8]) -> Option<()> {
    *value = HeaderValue::from_bytes(bytes).ok()?;
    value.set_sensitive(true);
    Some(())
}

const BASIC: &[u8] = b"Basic ";

/// What `Authorization: Basic …` encodes.
fn basic(name: &HeaderName, value: &HeaderValue) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, token) = value.as_bytes().split_at_checked(BASIC.len())?;
    let is_basic = name == AUTHORIZATION && scheme.eq_ignore_ascii_case(BASIC);
    is_basic.then(|| BASE64.decode(token.trim_ascii()).ok()).flatten().map(Zeroizing::new)
}

/// With percent signs for all but unreserved characters (RFC 3986, section 2.3).
fn escape(bytes: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut made = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => made.push(*byte),
            _ => made.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::super::tests::credential;
    use super::*;

    fn put(target: &str, pairs: &[(&'static str, &str)], secret: &str) -> Result<(String, Vec<String>), Unplaceable> {
        let mut uri: Uri = target.parse().expect("a target");
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().expect("a value"));
        }
        place(&mut uri, &mut headers, &[credential("PH000000", secret, None)])?;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Ok((uri.to_string(), headers.values().map(text).collect()))
    }

    #[test]
    fn wherever_it_stands_in_a_value() {
        let (_, values) = put("/", &[("authorization", "Bearer PH000000"), ("x-two", "PH000000,PH000000;q")], "s3cret")
            .expect("placed");
        assert_eq!(values, ["Bearer s3cret", "s3cret,s3cret;q"]);
    }

    #[test]
    fn within_basic_authentication() {
        for sent in [STANDARD.encode("git:PH000000"), STANDARD.encode("git:PH000000").replace('=', "")] {
            let (_, values) = put("/", &[("authorization", &format!("basic  {sent}"))], "pass:word").expect("placed");
            assert_eq!(values, [format!("Basic {}", STANDARD.encode("git:pass:word"))]);
        }
        let other = [("x-other", "Basic Z2l0OlBIMDAwMDAw"), ("authorization", "Basic ???")];
        let (_, values) = put("/", &other, "x").expect("nothing to place");
        assert_eq!(values, ["Basic Z2l0OlBIMDAwMDAw", "Basic ???"]);
    }

    #[test]
    fn in_the_target_with_percent_signs() {
        let (uri, _) = put("https://h.test/botPH000000/send?key=PH000000&x=1", &[], "a/b c+é").expect("placed");
        assert_eq!(uri, "https://h.test/bota%2Fb%20c%2B%C3%A9/send?key=a%2Fb%20c%2B%C3%A9&x=1");
        assert_eq!(put("/", &[], "x").expect("nothing to place").0, "/");
    }

    #[test]
    fn a_secret_cannot_end_a_header() {
        let refused = put("/", &[("x-key", "PH000000")], "a\r\nhost: evil.test").expect_err("refused");
        assert_eq!((refused.variable.as_str(), refused.place), ("TOKEN", "a header"));
    }

    #[test]
    fn a_placed_value_is_marked_as_secret() {
        let mut headers = HeaderMap::new();
        headers.insert("x-key", HeaderValue::from_static("PH000000"));
        place(&mut Uri::from_static("/"), &mut headers, &[credential("PH000000", "s", None)]).expect("placed");
        assert!(headers["x-key"].is_sensitive());
    }
}
