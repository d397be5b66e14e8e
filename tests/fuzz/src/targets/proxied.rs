//! The head of a request that the proxy hands on: it is for the host of its connection, and has nothing of one hop in it.

use hyper::header::{CONNECTION, HOST, HeaderName, TE, TRANSFER_ENCODING};
use loopd_broker::egress::fuzzing;
use loopd_policy::network::Host;

const PORT: u16 = 8443;

pub fn target(data: &[u8]) {
    let host = Host::parse("api.example.com").expect("a host");
    for is_h2 in [false, true] {
        let Some(Ok((named, parts))) = fuzzing::request(data, &host, PORT, is_h2) else { continue };
        let (name, port) = fuzzing::split(&named).expect("host and port");
        assert_eq!(Host::parse(name).as_ref(), Ok(&host), "`{named}` is another host");
        assert!(port.is_none_or(|port| port == PORT), "`{named}` is another port");
        let (authority, hosts) = (parts.uri.authority(), parts.headers.get_all(HOST).iter().count());
        match is_h2 {
            true => assert!(authority.is_some_and(|a| a.as_str() == named) && hosts == 0, "{:?}", parts.uri),
            false => assert!(authority.is_none() && hosts == 1 && parts.headers[HOST] == *named, "{:?}", parts.headers),
        }
        let target = parts.uri.path();
        assert!(target.starts_with('/') || target == "*", "`{target}` is not a path");
        for of_one_hop in
            [TRANSFER_ENCODING, HeaderName::from_static("proxy-authorization"), HeaderName::from_static("keep-alive")]
        {
            assert!(!parts.headers.contains_key(&of_one_hop), "`{of_one_hop}` is passed on");
        }
        assert!(parts.headers.get(CONNECTION).is_none_or(|value| value == "upgrade" && !is_h2));
        assert!(parts.headers.get(TE).is_none_or(|value| value == "trailers"));
    }
}
