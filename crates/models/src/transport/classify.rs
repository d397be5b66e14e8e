//! From a status, a body or an error object to an error class and a sentence. Pure.
//!
//! The class decides what happens next (try again, give up, tell the caller to fix something), so providers that say the
//! same thing under different statuses are brought together here.

use super::fault::Fault;
use super::hints::Hints;
use crate::provider::{ErrorClass, ModelError};
use serde_json::Value;

/// Longest text of a provider that is repeated, in characters.
const DETAIL_CHARS_MAX: usize = 1_000;
/// Of a body that is not of the wire format, in characters.
const GARBAGE_CHARS_MAX: usize = 120;

/// What to do when something else than a provider may have answered.
pub(crate) const CHECK_ADDRESS: &str = "; check the base URL, and any proxy on the way";
/// What to do when a connection did not last, which once is nobody's fault.
pub(crate) const CHECK_WAY: &str = "; if it goes on, check the provider, and any proxy on the way";

/// A response with a status that is not 2xx. `address` is what was asked, without query.
pub(crate) fn response(status: u16, body: &[u8], hints: Hints, address: &str) -> ModelError {
    let document = serde_json::from_slice::<Value>(body).ok();
    let fault = document.as_ref().and_then(Fault::find);
    let (class, detail) = match &fault {
        Some(fault) => (obey(of_status(status, fault), status, hints.should_retry), fault.message.clone()),
        None => unreadable(status, body, hints.should_retry),
    };
    let message = format!("{address} answered {status}: {}{}", shorten(&detail, DETAIL_CHARS_MAX), remedy(class));
    ModelError {
        status: Some(status),
        retry_after_ms: hints.retry_after_ms,
        request_id: hints.request_id,
        ..ModelError::new(class, message)
    }
}

/// An error object that arrived inside an answer whose status was 200.
pub(crate) fn in_answer(document: &Value) -> ModelError {
    let fault = Fault::find(document).unwrap_or_default();
    let class = match of_words(&fault) {
        Some(class) => class,
        None => match fault.code.parse::<u16>() {
            Ok(status) if status >= 400 => of_status(status, &fault),
            _ => of_kind(&fault).unwrap_or(ErrorClass::Server),
        },
    };
    let detail = shorten(&fault.message, DETAIL_CHARS_MAX);
    ModelError::new(class, format!("the provider broke its answer off: {detail}{}", remedy(class)))
}

/// Bytes that were to be an answer and are none.
pub(crate) fn garbage(status: u16, body: &[u8], address: &str) -> ModelError {
    let text = String::from_utf8_lossy(body);
    let kind = if looks_like_html(&text) { "HTML" } else { "no JSON and no event stream" };
    let head = shorten(&text, GARBAGE_CHARS_MAX);
    let message = format!("{address} answered {status} with {kind}: `{head}`{CHECK_ADDRESS}");
    ModelError { status: Some(status), ..ModelError::new(ErrorClass::Garbage, message) }
}

fn unreadable(status: u16, body: &[u8], should_retry: Option<bool>) -> (ErrorClass, String) {
    let text = String::from_utf8_lossy(body);
    if text.trim().is_empty() {
        return (obey(of_status(status, &Fault::default()), status, should_retry), "no explanation".to_owned());
    }
    // A page in front of the provider (proxy, gateway, captive portal) speaks for itself only by its status.
    let class = match status {
        429 | 500.. => of_status(status, &Fault::default()),
        401..=404 => of_status(status, &Fault::default()),
        _ => ErrorClass::Garbage,
    };
    let kind = if looks_like_html(&text) { "HTML" } else { "text" };
    (class, format!("{kind} instead of JSON: `{}`", shorten(&text, GARBAGE_CHARS_MAX)))
}

fn looks_like_html(text: &str) -> bool {
    text.trim_start().starts_with('<')
}

fn of_status(status: u16, fault: &Fault) -> ErrorClass {
    if matches!(status, 400 | 402 | 403 | 413 | 422 | 429)
        && let Some(class) = of_words(fault)
    {
        return class;
    }
    match status {
        401 => ErrorClass::Authentication,
        402 => ErrorClass::Billing,
        403 => ErrorClass::Permission,
        300..=399 | 404 | 405 | 410 => ErrorClass::NotFound,
        408 => ErrorClass::Timeout,
        409 | 425 => ErrorClass::Server,
        429 => ErrorClass::RateLimited,
        503 | 529 => ErrorClass::Overloaded,
        500.. => ErrorClass::Server,
        _ => ErrorClass::BadRequest,
    }
}

/// Classes that providers give away only by their words.
fn of_words(fault: &Fault) -> Option<ErrorClass> {
    let (code, kind) = (fault.code.as_str(), fault.kind.as_str());
    let text = fault.message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if code == "insufficient_quota" || kind == "insufficient_quota" || kind == "billing_error" {
        return Some(ErrorClass::Billing);
    }
    if says(&[
        "credit balance is too low",
        "exceeded your current quota",
        "insufficient balance",
        "insufficient credits",
    ]) {
        return Some(ErrorClass::Billing);
    }
    let too_long = [
        "prompt is too long",
        "maximum context length",
        "context length",
        "context window",
        "exceed context limit",
        "context size",
        "input is too long",
        "too many input tokens",
        "maximum number of tokens",
    ];
    if code == "context_length_exceeded" || (kind != "rate_limit_error" && says(&too_long)) {
        return Some(ErrorClass::ContextTooLong);
    }
    says(&["api key not valid", "invalid api key", "incorrect api key"]).then_some(ErrorClass::Authentication)
}

/// The provider's own type of an error, as both wires name them.
fn of_kind(fault: &Fault) -> Option<ErrorClass> {
    [fault.kind.as_str(), fault.code.as_str()].into_iter().find_map(|name| {
        Some(match name {
            "overloaded_error" | "overloaded" | "UNAVAILABLE" => ErrorClass::Overloaded,
            "rate_limit_error" | "rate_limit_exceeded" | "requests" | "tokens" | "RESOURCE_EXHAUSTED" => {
                ErrorClass::RateLimited
            }
            "api_error" | "server_error" | "internal_server_error" | "timeout_error" | "INTERNAL" => ErrorClass::Server,
            "authentication_error" | "invalid_api_key" => ErrorClass::Authentication,
            "permission_error" => ErrorClass::Permission,
            "not_found_error" | "model_not_found" => ErrorClass::NotFound,
            "invalid_request_error" | "request_too_large" | "BadRequestError" => ErrorClass::BadRequest,
            "billing_error" => ErrorClass::Billing,
            _ => return None,
        })
    })
}

/// `x-should-retry` overrides the class's own answer to "may it succeed later?": a rate limit that does not pass is a
/// quota, a server error that does not pass is the request's fault, and a refusal that passes is the server's.
fn obey(class: ErrorClass, status: u16, should_retry: Option<bool>) -> ErrorClass {
    match should_retry {
        Some(false) if class.is_retryable() && status == 429 => ErrorClass::Billing,
        Some(false) if class.is_retryable() => ErrorClass::BadRequest,
        Some(true) if !class.is_retryable() => ErrorClass::Server,
        _ => class,
    }
}

/// What the reader of the message can do about it.
fn remedy(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::RateLimited => "; ask less often, or ask the provider for a higher limit",
        ErrorClass::Overloaded => "; the provider is busy: try again later, or with another model",
        ErrorClass::Server => "; the provider, or a proxy before it, failed: try again later",
        ErrorClass::Timeout => "; try again later",
        ErrorClass::Garbage => CHECK_ADDRESS,
        ErrorClass::Permission => "; check what the provider's key may use",
        ErrorClass::NotFound => "; check the model's name and the base URL",
        ErrorClass::Billing => "; check plan and balance at the provider",
        ErrorClass::ContextTooLong => "; the conversation is longer than this model can read",
        // A key's name is known to the transport; a bad request is the provider's to explain.
        ErrorClass::Authentication | ErrorClass::BadRequest | ErrorClass::Connection => "",
    }
}

/// At most `chars` characters on one line.
pub(crate) fn shorten(text: &str, chars: usize) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars + 1).collect();
    match line.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorClass::*;

    fn class(status: u16, body: &str) -> ErrorClass {
        response(status, body.as_bytes(), Hints::default(), "POST http://x").class
    }

    #[test]
    fn every_status_has_its_class() {
        let plain = r#"{"error":{"message":"no"}}"#;
        let table = [
            (301, NotFound),
            (400, BadRequest),
            (401, Authentication),
            (402, Billing),
            (403, Permission),
            (404, NotFound),
            (405, NotFound),
            (408, Timeout),
            (409, Server),
            (413, BadRequest),
            (418, BadRequest),
            (422, BadRequest),
            (429, RateLimited),
            (500, Server),
            (502, Server),
            (503, Overloaded),
            (504, Server),
            (529, Overloaded),
        ];
        for (status, expected) in table {
            assert_eq!(class(status, plain), expected, "{status}");
            assert_eq!(class(status, ""), expected, "{status} without a body");
        }
    }

    #[test]
    fn words_decide_where_the_status_does_not() {
        let said =
            |status, message: &str| class(status, &serde_json::json!({"error": {"message": message}}).to_string());
        assert_eq!(said(400, "prompt is too long: 210000 tokens > 200000 maximum"), ContextTooLong);
        assert_eq!(said(400, "This model's maximum context length is 8192 tokens"), ContextTooLong);
        assert_eq!(said(400, "Your credit balance is too low to access the API"), Billing);
        assert_eq!(said(400, "API key not valid. Please pass a valid API key."), Authentication);
        assert_eq!(said(500, "lost the context window"), Server);
        assert_eq!(class(429, r#"{"error":{"message":"You exceeded…","code":"insufficient_quota"}}"#), Billing);
        assert_eq!(class(400, r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#), ContextTooLong);
    }

    #[test]
    fn faults_are_found_in_every_shape() {
        for body in [
            r#"{"type":"error","error":{"type":"t","message":"why"}}"#,
            r#"{"error":"why"}"#,
            r#"{"object":"error","message":"why","code":400}"#,
            r#"{"detail":"why"}"#,
            r#"[{"error":{"code":400,"message":"why","status":"INVALID_ARGUMENT"}}]"#,
        ] {
            let fault = response(400, body.as_bytes(), Hints::default(), "POST http://x");
            assert_eq!(fault.message, "POST http://x answered 400: why");
        }
    }

    #[test]
    fn who_is_refused_is_told_what_to_do() {
        let told = |status, body: &str| response(status, body.as_bytes(), Hints::default(), "POST http://x").message;
        let plain = r#"{"error":{"message":"no"}}"#;
        let table = [
            (402, "check plan and balance"),
            (403, "check what the provider's key may use"),
            (404, "check the model's name and the base URL"),
            (408, "no; try again later"),
            (429, "ask less often"),
            (500, "the provider, or a proxy before it, failed"),
            (503, "with another model"),
            (529, "with another model"),
        ];
        for (status, needle) in table {
            assert!(told(status, plain).contains(needle), "{}", told(status, plain));
        }
        assert!(told(400, "<html>proxy</html>").ends_with(CHECK_ADDRESS));
    }

    #[test]
    fn pages_of_others_are_garbage_unless_their_status_speaks() {
        assert_eq!(class(400, "<html>proxy</html>"), Garbage);
        assert_eq!(class(502, "<html>bad gateway</html>"), Server);
        assert_eq!(class(404, "<html>nothing here</html>"), NotFound);
        assert!(
            response(502, b"<html>bad\ngateway", Hints::default(), "POST http://x")
                .message
                .contains("`<html>bad gateway`")
        );
    }

    #[test]
    fn the_providers_word_on_retrying_stands_above_the_status() {
        let told = |status, should_retry| {
            let hints = Hints { should_retry: Some(should_retry), ..Hints::default() };
            response(status, br#"{"error":{"message":"m"}}"#, hints, "POST http://x").class.is_retryable()
        };
        assert!(!told(429, false) && !told(500, false));
        assert!(told(400, true) && told(429, true));
    }

    #[test]
    fn errors_inside_an_answer() {
        let class = |text: &str| in_answer(&serde_json::from_str(text).expect("json")).class;
        assert_eq!(class(r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#), Overloaded);
        assert_eq!(class(r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}"#), RateLimited);
        assert_eq!(class(r#"{"error":{"code":502,"message":"upstream"}}"#), Server);
        assert_eq!(class(r#"{"error":{"code":429,"message":"slow"}}"#), RateLimited);
        assert_eq!(class(r#"{"error":{"type":"server_error","message":"x"}}"#), Server);
        assert_eq!(class(r#"{"error":"boom"}"#), Server);
    }

    #[test]
    fn a_message_is_one_bounded_line() {
        let body = serde_json::json!({"error": {"message": "é\n".repeat(5_000)}}).to_string();
        let message = response(400, body.as_bytes(), Hints::default(), "POST http://x").message;
        assert!(message.chars().count() < 1_100 && !message.contains('\n'));
    }
}
