//! Whom a request names. On a connection to one host, every request is for that host.

use super::refusal::Stop;
use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Uri, Version};
use loopd_policy::network::Host;

/// Checks every place where a request can name its host, and writes it for the other end. Gives the name as it was sent.
pub(crate) fn check(request: &mut Parts, host: &Host, port: u16, is_secure: bool, is_h2: bool) -> Result<String, Stop> {
    if request.method == Method::CONNECT {
        return Err(Stop::malformed("a tunnel within a connection is not supported; accepted: other methods"));
    }
    let mut named: Option<String> = request.uri.authority().map(|authority| authority.as_str().to_owned());
    let mut headers = request.headers.get_all(HOST).iter();
    let (header, second) = (headers.next(), headers.next());
    if second.is_some() {
        return Err(Stop::malformed("it has more than one Host header"));
    }
    if let Some(header) = header {
        let header = header.to_str().map_err(|_| Stop::malformed("its Host header is not ASCII"))?;
        if let Some(other) = named.as_deref().filter(|named| !same(named, header)) {
            return Err(Stop::malformed(format!("it names two hosts, `{other}` and `{header}`")));
        }
        named.get_or_insert_with(|| header.to_owned());
    }
    let named = match named {
        Some(named) => named,
        None if request.version == Version::HTTP_10 => host.to_string(),
        None => return Err(Stop::malformed("it names no host")),
    };
    if named.contains('@') {
        return Err(Stop::malformed(
            "user and password in an address are not supported; accepted: an Authorization header",
        ));
    }
    let (name, sent_port) = split(&named).ok_or_else(|| Stop::malformed(format!("`{named}` is not a host")))?;
    let is_here = Host::parse(name).is_ok_and(|name| name == *host) && sent_port.is_none_or(|sent| sent == port);
    if !is_here {
        return Err(Stop::misdirected(format!(
            "the request is for `{named}`, the connection is to `{host}:{port}`; accepted: requests for that host"
        )));
    }
    rewrite(request, &named, is_secure, is_h2).ok_or_else(|| Stop::malformed(format!("`{named}` is not a host")))?;
    Ok(named)
}

/// Host and port of an authority. The port of an IPv6 address stands after its bracket.
pub(crate) fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let colon = authority.rfind(':').filter(|at| authority.rfind(']').is_none_or(|bracket| bracket < *at));
    let Some(at) = colon else { return Some((authority, None)) };
    let digits = &authority[at + 1..];
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| is_number && *port != 0)?;
    Some((&authority[..at], Some(port)))
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn rewrite(request: &mut Parts, named: &str, is_secure: bool, is_h2: bool) -> Option<()> {
    let mut parts = std::mem::take(&mut request.uri).into_parts();
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    if is_h2 {
        parts.scheme = Some(if is_secure { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(Authority::try_from(named).ok()?);
        request.headers.remove(HOST);
        request.version = Version::HTTP_2;
    } else {
        (parts.scheme, parts.authority) = (None, None);
        request.headers.insert(HOST, HeaderValue::from_str(named).ok()?);
        request.version = Version::HTTP_11;
    }
    request.uri = Uri::from_parts(parts).ok()?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::{Request, StatusCode};

    fn checked(uri: &str, hosts: &[&str], is_h2: bool) -> Result<(String, String), StatusCode> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let host = Host::parse("api.example.com").expect("a host");
        let named = check(&mut parts, &host, 8443, true, is_h2).map_err(|stop| stop.status)?;
        Ok((named, parts.uri.to_string()))
    }

    #[test]
    fn a_request_is_for_the_host_of_its_connection() {
        let named = |name: &str, uri: &str| Ok((name.to_owned(), uri.to_owned()));
        assert_eq!(checked("/x?y", &["api.example.com:8443"], false), named("api.example.com:8443", "/x?y"));
        assert_eq!(checked("/", &["API.example.com."], false), named("API.example.com.", "/"));
        assert_eq!(
            checked("https://api.example.com:8443/x", &[], true),
            named("api.example.com:8443", "https://api.example.com:8443/x")
        );
        for (uri, hosts, status) in [
            ("/", ["evil.test"].as_slice(), 421),
            ("/", &["api.example.com:443"], 421),
            ("/", &[], 400),
            ("/", &["api.example.com:8443", "evil.test"], 400),
            ("/", &["u:p@api.example.com"], 400),
            ("https://evil.test/", &["api.example.com"], 400),
            ("https://evil.test/", &[], 421),
            ("/", &["api.example.com:0"], 400),
            ("/", &["api.example.com:+8443"], 400),
        ] {
            assert_eq!(checked(uri, hosts, false).expect_err("refused").as_u16(), status, "{uri} {hosts:?}");
        }
    }
}
