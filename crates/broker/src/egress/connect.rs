//! The head of a `CONNECT` request: strict and bounded.

use super::addressed;
use super::refusal::Stop;
use super::room::RoomIo;
use loopd_domain::limits::{HEADER_BYTES_MAX, HTTP_HEAD_MS};
use loopd_policy::network::Host;
use std::io;
use std::time::Duration;
use tokio::time::timeout;

const METHOD: &[u8] = b"CONNECT ";
const HEADERS_MAX: usize = 64;

/// What the room asks the proxy for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The head is taken off; what follows is the tunnel's.
    Connect {
        host: Host,
        port: u16,
    },
    /// Something else; nothing is taken off.
    Request,
    Refused(Stop),
    /// It closed the connection without a word.
    Nothing,
}

pub(crate) async fn read(room: &mut RoomIo) -> io::Result<Asked> {
    match timeout(Duration::from_millis(HTTP_HEAD_MS), head(room)).await {
        Ok(asked) => asked,
        Err(_) => Ok(Asked::Refused(Stop::malformed("the head of the request took too long"))),
    }
}

async fn head(room: &mut RoomIo) -> io::Result<Asked> {
    loop {
        let ahead = room.ahead();
        let common = ahead.len().min(METHOD.len());
        if ahead[..common] != METHOD[..common] {
            return Ok(match ahead.first().is_some_and(u8::is_ascii_uppercase) {
                true => Asked::Request,
                false => Asked::Refused(Stop::malformed(
                    "what came is not HTTP/1.1; accepted: CONNECT host:port, and requests whose address is absolute",
                )),
            });
        }
        if common == METHOD.len() {
            match parse(ahead) {
                Ok(None) if ahead.len() > HEADER_BYTES_MAX => {
                    return Ok(Asked::Refused(Stop::malformed(format!(
                        "the head is longer than {HEADER_BYTES_MAX} bytes"
                    ))));
                }
                Ok(None) => {}
                Ok(Some((length, host, port))) => {
                    room.skip(length);
                    return Ok(Asked::Connect { host, port });
                }
                Err(stop) => return Ok(Asked::Refused(stop)),
            }
        }
        if room.receive().await? == 0 {
            return Ok(match room.ahead().is_empty() {
                true => Asked::Nothing,
                false => Asked::Refused(Stop::malformed("the head of the request is cut off")),
            });
        }
    }
}

/// Length of the head, and whom it names; `None`: there is more to come.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(usize, Host, u16)>, Stop> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(fault) => return Err(Stop::malformed(format!("the head is malformed: {fault}"))),
    };
    let body =
        |name: &str| name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding");
    if request.headers.iter().any(|header| body(header.name)) {
        return Err(Stop::malformed("CONNECT has no body"));
    }
    let target = request.path.unwrap_or_default();
    let malformed = || {
        let shown: String = target.chars().take(256).collect();
        Stop::malformed(format!("`{shown}` is not an address; accepted: CONNECT host:port"))
    };
    if target.contains(['@', '/', '?', '#']) {
        return Err(malformed());
    }
    let (name, port) = addressed::split(target).ok_or_else(malformed)?;
    let host = Host::parse(name).map_err(|_| malformed())?;
    Ok(Some((length, host, port.ok_or_else(malformed)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(head: &str) -> Result<Option<(usize, String, u16)>, String> {
        let told = |stop: Stop| stop.reason().to_owned();
        parse(head.as_bytes()).map(|found| found.map(|(at, host, port)| (at, host.to_string(), port))).map_err(told)
    }

    #[test]
    fn a_host_and_a_port_and_nothing_else() {
        let whole = "CONNECT API.Example.com.:443 HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(parsed(&format!("{whole}rest")), Ok(Some((whole.len(), "api.example.com".to_owned(), 443))));
        assert_eq!(parsed("CONNECT a:1 HTTP/1.1\r\nHo"), Ok(None));
        let six = parsed("CONNECT [::1]:443 HTTP/1.0\r\n\r\n").expect("an address").expect("whole");
        assert_eq!((six.1.as_str(), six.2), ("[::1]", 443));
        for target in ["a", "a:", "a:0", "a:65536", "a:+1", "u@a:1", "http://a:1", "/", "*", ":443", "a b:1", "::1:443"]
        {
            assert!(parsed(&format!("CONNECT {target} HTTP/1.1\r\n\r\n")).is_err(), "{target}");
        }
    }

    #[test]
    fn a_head_with_tricks_is_refused() {
        for tricks in [
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "A: b\r\n folded\r\n",
            "A : b\r\n",
            "A\r\n",
            "A: \0\r\n",
        ] {
            assert!(parsed(&format!("CONNECT a:1 HTTP/1.1\r\n{tricks}\r\n")).is_err(), "{tricks:?}");
        }
        let many: String = (0..100).map(|n| format!("h{n}: x\r\n")).collect();
        assert!(parsed(&format!("CONNECT a:1 HTTP/1.1\r\n{many}\r\n")).is_err());
        assert!(parsed("CONNECT a:1 HTTP/3.0\r\n\r\n").is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_there_is_an_answer(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [METHOD, tail.as_slice()].concat();
            if let Ok(Some((length, _, port))) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && port > 0);
            }
        }
    }
}
