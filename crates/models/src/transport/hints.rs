//! What response headers say about a failure: when to come back, whether to, and the request's id.

use loopd_domain::Timestamp;
use reqwest::header::HeaderMap;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hints {
    pub retry_after_ms: Option<u64>,
    /// `x-should-retry`: the provider's own word, above any rule of ours.
    pub should_retry: Option<bool>,
    pub request_id: Option<String>,
}

/// Headers under which providers give a request's id, best first.
const REQUEST_ID: [&str; 4] = ["request-id", "x-request-id", "x-generation-id", "cf-ray"];
/// Longest id that is kept, in characters.
const REQUEST_ID_CHARS_MAX: usize = 128;

pub(crate) fn read(headers: &HeaderMap, now: Timestamp) -> Hints {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let should_retry = header("x-should-retry").and_then(|text| text.parse().ok());
    let exact = header("retry-after-ms").and_then(|text| milliseconds(text, 1.0));
    let retry_after_ms = exact.or_else(|| header("retry-after").and_then(|text| retry_after(text, now)));
    let id = REQUEST_ID.into_iter().find_map(header).filter(|id| !id.is_empty());
    Hints { retry_after_ms, should_retry, request_id: id.map(|id| id.chars().take(REQUEST_ID_CHARS_MAX).collect()) }
}

/// Seconds (also with a fraction), or an HTTP date. A date in the past is "now".
fn retry_after(text: &str, now: Timestamp) -> Option<u64> {
    if let Some(ms) = milliseconds(text, 1_000.0) {
        return Some(ms);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let at = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(i64::try_from(at.as_millis()).ok()?).since_ms(now))
}

fn milliseconds(text: &str, unit_ms: f64) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some((number * unit_ms) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(headers: &[(&'static str, &'static str)]) -> Hints {
        let map: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value"))).collect();
        read(&map, Timestamp::parse("2026-11-23T20:00:00Z").expect("time"))
    }

    #[test]
    fn seconds_milliseconds_and_dates() {
        let after = |name, text| hints(&[(name, text)]).retry_after_ms;
        assert_eq!(after("retry-after", "7"), Some(7_000));
        assert_eq!(after("retry-after", "0.5"), Some(500));
        assert_eq!(after("retry-after", "Mon, 23 Nov 2026 20:01:30 GMT"), Some(90_000));
        assert_eq!(after("retry-after", "Mon, 23 Nov 2026 19:00:00 GMT"), Some(0));
        assert_eq!(after("retry-after-ms", "250"), Some(250));
        for unusable in ["soon", "-1", "NaN", "inf", ""] {
            assert_eq!(after("retry-after", unusable), None, "{unusable}");
        }
        assert_eq!(hints(&[("retry-after", "7"), ("retry-after-ms", "20")]).retry_after_ms, Some(20));
    }

    #[test]
    fn request_id_and_the_providers_word() {
        let hints = hints(&[("x-request-id", "req_1"), ("x-should-retry", "false")]);
        assert_eq!((hints.request_id.as_deref(), hints.should_retry), (Some("req_1"), Some(false)));
    }
}
