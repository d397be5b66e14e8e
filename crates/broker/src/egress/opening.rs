//! How a tunnel begins: with a TLS hello, a request in the clear, or something else.

use super::room::RoomIo;
use loopd_domain::limits::EGRESS_HELLO_BYTES_MAX;
use rustls::server::Acceptor;
use std::io;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Tls(Hello),
    /// An HTTP/1 request.
    Clear,
    Other,
}

/// What a TLS client says before anything is secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The server that it means, in lower case.
    pub(crate) server_name: Option<String>,
    pub(crate) protocols: Vec<Vec<u8>>,
}

impl Hello {
    pub(crate) fn offers(&self, protocol: &[u8]) -> bool {
        self.protocols.iter().any(|offered| offered == protocol)
    }

    pub(crate) fn offers_only_h2(&self) -> bool {
        self.offers(b"h2") && !self.offers(b"http/1.1")
    }
}

/// Reads as far as is needed to tell; everything stays ahead. Safe to drop and begin again.
pub(crate) async fn read(room: &mut RoomIo) -> io::Result<Opening> {
    loop {
        match recognise(room.ahead()) {
            Guess::Sure(opening) => return Ok(opening),
            Guess::More if room.ahead().len() > EGRESS_HELLO_BYTES_MAX => return Ok(Opening::Other),
            Guess::More => {}
        }
        if room.receive().await? == 0 {
            return Ok(Opening::Other);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    Sure(Opening),
    /// It may become anything yet.
    More,
}

pub(crate) fn recognise(bytes: &[u8]) -> Guess {
    match bytes {
        [] | [0x16] => Guess::More,
        [0x16, 0x03, ..] => hello(bytes),
        _ => request(bytes),
    }
}

fn hello(mut bytes: &[u8]) -> Guess {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Guess::Sure(Opening::Other);
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Guess::Sure(Opening::Tls(Hello {
                    server_name: hello.server_name().map(str::to_ascii_lowercase),
                    protocols: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
                }));
            }
            Err(_) => return Guess::Sure(Opening::Other),
        }
    }
    Guess::More
}

/// Longest method that is taken for one.
const METHOD_BYTES_MAX: usize = 24;

fn request(bytes: &[u8]) -> Guess {
    let method = bytes.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-' || **b == b'_').count();
    let target = match bytes.get(method) {
        None if method <= METHOD_BYTES_MAX => return Guess::More,
        Some(b' ') if (1..=METHOD_BYTES_MAX).contains(&method) => &bytes[method + 1..],
        _ => return Guess::Sure(Opening::Other),
    };
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    match target.first() {
        None => Guess::More,
        Some(b'/' | b'*') => Guess::Sure(Opening::Clear),
        Some(_) if schemes.iter().any(|scheme| target.starts_with(scheme)) => Guess::Sure(Opening::Clear),
        Some(_) if schemes.iter().any(|scheme| scheme.starts_with(target)) => Guess::More,
        Some(_) => Guess::Sure(Opening::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_told_from_other_talk() {
        for (text, guess) in [
            ("", Guess::More),
            ("GE", Guess::More),
            ("GET ", Guess::More),
            ("GET htt", Guess::More),
            ("GET / HTTP/1.1\r\n", Guess::Sure(Opening::Clear)),
            ("OPTIONS *", Guess::Sure(Opening::Clear)),
            ("VERSION-CONTROL /", Guess::Sure(Opening::Clear)),
            ("GET http://x/", Guess::Sure(Opening::Clear)),
            ("PRI * HTTP/2.0", Guess::Sure(Opening::Clear)),
            ("SSH-2.0-OpenSSH", Guess::Sure(Opening::Other)),
            ("EHLO mail.example", Guess::Sure(Opening::Other)),
            ("\0\0\0\x08", Guess::Sure(Opening::Other)),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", Guess::Sure(Opening::Other)),
        ] {
            assert_eq!(recognise(text.as_bytes()), guess, "{text}");
        }
    }

    proptest! {
        /// Whatever comes, in whatever pieces: an answer, and the same one for the same beginning.
        #[test]
        fn what_is_sure_stays_sure(bytes in proptest::collection::vec(any::<u8>(), 0..200), more in any::<u8>()) {
            if let Guess::Sure(opening) = recognise(&bytes) {
                let mut longer = bytes.clone();
                longer.push(more);
                prop_assert_eq!(recognise(&longer), Guess::Sure(opening));
            }
        }

        #[test]
        fn a_broken_hello_is_no_hello(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = vec![0x16, 0x03, 0x01];
            bytes.extend(tail);
            prop_assert!(!matches!(recognise(&bytes), Guess::Sure(Opening::Clear)));
        }
    }
}
