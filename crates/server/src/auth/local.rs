//! Development mode: whoever addresses the server by a local name.

use crate::error::ApiError;
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use std::net::IpAddr;

pub fn local_only(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(HOST).and_then(|h| h.to_str().ok());
    let origin = headers.get(ORIGIN).and_then(|h| h.to_str().ok());
    let authority = |text: &str| text.split_once("://").map_or(text.to_owned(), |(_, rest)| rest.to_owned());
    for (name, value) in [("host", host.map(str::to_owned)), ("origin", origin.map(authority))] {
        if let Some(value) = value.filter(|v| !is_local(v)) {
            return Err(ApiError::forbidden(format!(
                "`{name}` is `{value}`; accepted in development mode: a local name such as `localhost` or `127.0.0.1`. \
                 Start loopd with an API key to serve other names"
            )));
        }
    }
    Ok(())
}

/// `host`, `host:port` or `[v6]:port` that can only be this machine.
fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => authority.split(':').next().unwrap_or(""),
    };
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().expect("name"), v.parse().expect("value"))).collect()
    }

    #[test]
    fn development_mode_answers_to_local_names_only() {
        for good in ["localhost", "localhost:7007", "127.0.0.1:7007", "[::1]:7007", "app.localhost"] {
            assert!(local_only(&headers(&[("host", good)])).is_ok(), "{good}");
        }
        for bad in ["evil.example", "127.0.0.1.evil.example:7007", "10.0.0.1", "localhost.evil.example"] {
            assert_eq!(local_only(&headers(&[("host", bad)])).expect_err("refused").status.as_u16(), 403, "{bad}");
        }
        let cross = headers(&[("host", "localhost"), ("origin", "https://evil.example")]);
        assert_eq!(local_only(&cross).expect_err("refused").status.as_u16(), 403);
        assert!(local_only(&headers(&[("origin", "http://localhost:7007")])).is_ok());
        assert!(local_only(&headers(&[("origin", "null")])).is_err());
    }
}
