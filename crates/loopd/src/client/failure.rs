//! What can go wrong between a command and its server, and what to do next.

use serde_json::Value;
use url::Url;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no HTTP client could be set up: {source}; is the package ca-certificates installed?")]
    Setup { source: reqwest::Error },
    #[error(
        "no loopd answers at {base} ({reason}); start one with `loopd serve`, or unset LOOPD_URL to run without one"
    )]
    Unreachable { base: Url, reason: String },
    #[error(
        "the connection to {base} was lost ({reason}); the turn goes on in the server: look with `loopd sessions list`"
    )]
    Cut { base: Url, reason: String },
    /// The server understood and said no. Its own sentence says what would be accepted.
    #[error("{message}{}", hint(*status))]
    Refused { status: u16, kind: String, message: String, request_id: Option<String> },
    #[error("what answers at {base} is not loopd: {what}")]
    NotLoopd { base: Url, what: String },
}

impl ClientError {
    /// The error as the wire shows it, for `--json`.
    pub fn envelope(&self) -> Value {
        let (kind, message, request_id) = match self {
            ClientError::Refused { kind, message, request_id, .. } => {
                (kind.as_str(), message.clone(), request_id.clone())
            }
            other => ("api_error", other.to_string(), None),
        };
        serde_json::json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})
    }
}

fn hint(status: u16) -> &'static str {
    match status {
        401 => "; set LOOPD_API_KEY to a key of that server",
        429 | 503 | 529 => "; try again in a moment",
        _ => "",
    }
}

/// Reads the error envelope of an answer.
pub fn refused(base: &Url, status: u16, body: &[u8]) -> ClientError {
    let envelope: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    match envelope["error"]["message"].as_str() {
        Some(message) => ClientError::Refused {
            status,
            kind: envelope["error"]["type"].as_str().unwrap_or("api_error").to_owned(),
            message: message.to_owned(),
            request_id: envelope["request_id"].as_str().map(str::to_owned),
        },
        None => ClientError::NotLoopd { base: base.clone(), what: format!("status {status} without an error in JSON") },
    }
}

/// The innermost reason: the outer ones only say that a request failed.
pub fn root_cause(fault: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(fault), |f| f.source()).last().map(|f| f.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("http://h:1").expect("a url")
    }

    #[test]
    fn the_servers_own_sentence_is_kept() {
        let body =
            br#"{"type":"error","error":{"type":"not_found_error","message":"no session `x`"},"request_id":"req_1"}"#;
        let fault = refused(&base(), 404, body);
        assert_eq!(fault.to_string(), "no session `x`");
        assert_eq!(fault.envelope()["error"]["type"], "not_found_error");
        assert_eq!(fault.envelope()["request_id"], "req_1");
    }

    #[test]
    fn a_stranger_is_called_one() {
        for body in ["<html>", "", "{}"] {
            assert!(refused(&base(), 502, body.as_bytes()).to_string().contains("is not loopd"), "{body}");
        }
    }
}
