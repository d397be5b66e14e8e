//! A request in the form in which it is signed.

use super::query::PARAMETER_OF_SIGNATURE;
use hyper::header::HeaderName;
use hyper::{HeaderMap, Method};

/// What of a request is signed.
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    /// Path and query as sent.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// As in the `Host` header.
    pub(crate) host: &'a str,
    pub(crate) has_no_body: bool,
}

/// How the path is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathForm {
    AsSent,
    /// Normalised, and every byte but unreserved ones encoded, percent signs too.
    EncodedAgain,
}

pub(super) fn request(head: &Head<'_>, form: PathForm, signed_headers: &[String], payload: &str) -> String {
    let (path, query) = head.target.split_once('?').unwrap_or((head.target, ""));
    let path = match form {
        PathForm::AsSent if path.is_empty() => "/".to_owned(),
        PathForm::AsSent => path.to_owned(),
        PathForm::EncodedAgain => normalised(path),
    };
    let headers: String = signed_headers.iter().map(|name| format!("{name}:{}\n", value(head, name))).collect();
    let (method, query, names) = (head.method, sorted(query), signed_headers.join(";"));
    format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{payload}")
}

/// All values of a header, trimmed, runs of spaces as one.
fn value(head: &Head<'_>, name: &str) -> String {
    if name == "host" {
        return head.host.to_owned();
    }
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return String::new() };
    let trimmed = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    head.headers.get_all(name).iter().map(|value| trimmed(value.as_bytes())).collect::<Vec<_>>().join(",")
}

/// By name, then by value, without the signature itself. A parameter without value has an empty one.
fn sorted(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| *name != PARAMETER_OF_SIGNATURE)
        .map(|(name, value)| (encoded_once(name), encoded_once(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Encoded as the signature wants it, whatever the sender left unencoded.
fn encoded_once(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_escape =
        |at: usize| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let mut made = String::with_capacity(text.len());
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' if is_escape(at) => made.push('%'),
            b if is_unreserved(*b) => made.push(char::from(*b)),
            b => made.push_str(&format!("%{b:02X}")),
        }
    }
    made
}

fn normalised(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut made = String::new();
    for part in &parts {
        made.push('/');
        for byte in part.bytes() {
            match byte {
                b if is_unreserved(b) => made.push(char::from(b)),
                b => made.push_str(&format!("%{b:02X}")),
            }
        }
    }
    if made.is_empty() || (path.ends_with('/') && !parts.is_empty()) {
        made.push('/');
    }
    made
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
