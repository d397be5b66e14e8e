//! Headers that are for one hop only (RFC 9110, section 7.6.1).

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

const OF_ONE_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
];

/// Removes them. The wish to change the protocol stays where `may_upgrade`, since what follows it is passed on as it is.
pub(crate) fn strip(headers: &mut HeaderMap, may_upgrade: bool) {
    let upgrade = headers.get(UPGRADE).filter(|_| may_upgrade && names(headers).any(|name| name == UPGRADE)).cloned();
    let wants_trailers = headers.get_all(TE).iter().any(|value| value.to_str().is_ok_and(|te| te.contains("trailers")));
    let named: Vec<HeaderName> = names(headers).collect();
    for name in named.iter().chain(&OF_ONE_HOP).chain([&TE, &UPGRADE]) {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// What `Connection` names. Whom a request is for and how long its body is are for the other end, whatever is said here.
fn names(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = values.flat_map(|value| value.split(','));
    let named = named.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok());
    named.filter(|name| *name != HOST && *name != CONTENT_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(pairs: &[(&'static str, &'static str)], may_upgrade: bool) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers, may_upgrade);
        let mut left: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        left.sort();
        left
    }

    #[test]
    fn what_connection_names_goes_with_it() {
        let sent = [
            ("connection", "keep-alive, X-Secret-Hop"),
            ("connection", "close"),
            ("x-secret-hop", "1"),
            ("proxy-authorization", "Basic eDp5"),
            ("keep-alive", "timeout=5"),
            ("accept", "*/*"),
        ];
        assert_eq!(stripped(&sent, true), ["accept: */*"]);
    }

    #[test]
    fn whom_a_request_is_for_is_not_for_one_hop() {
        let sent = [("host", "a.test"), ("connection", "Host, content-length, x"), ("content-length", "3"), ("x", "1")];
        assert_eq!(stripped(&sent, true), ["content-length: 3", "host: a.test"]);
    }

    #[test]
    fn an_upgrade_and_trailers_are_asked_for_again() {
        let sent = [("connection", "Upgrade"), ("upgrade", "websocket"), ("te", "gzip, trailers")];
        assert_eq!(stripped(&sent, true), ["connection: upgrade", "te: trailers", "upgrade: websocket"]);
        assert_eq!(stripped(&sent, false), ["te: trailers"]);
        assert_eq!(stripped(&[("upgrade", "h2c")], true), Vec::<String>::new());
    }
}
