//! What reads a stranger's bytes here, as `tests/fuzz` feeds it: plain values in, plain values out.

use super::opening::{Guess, Opening, recognise};
use super::replace::stream::{Pattern, Piece, Replacer};
use super::sigv4::{Head, Rechunk, Rewritten, Signed};
use super::{addressed, connect, hop};
use crate::secret::Secret;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Uri};
use loopd_policy::network::Host;
use zeroize::Zeroizing;

/// The head of a `CONNECT`: its length, host and port; `Ok(None)`: there is more to come.
pub fn connect(bytes: &[u8]) -> Result<Option<(usize, Host, u16)>, String> {
    connect::parse(bytes).map_err(|stop| stop.reason().to_owned())
}

/// Host and port of an authority.
pub fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    addressed::split(authority)
}

/// A request's head as the proxy hands it on, on a connection to `host:port`. `None`: not a head. The error is the refusal.
pub fn request(bytes: &[u8], host: &Host, port: u16, is_h2: bool) -> Option<Result<(String, Parts), String>> {
    let mut parts = head(bytes)?;
    let named = addressed::check(&mut parts, host, port, true, is_h2);
    Some(named.map_err(|stop| stop.reason().to_owned()).map(|named| {
        hop::strip(&mut parts.headers, !is_h2);
        (named, parts)
    }))
}

/// Method, target and headers of an HTTP/1 request.
pub fn head(bytes: &[u8]) -> Option<Parts> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut read = httparse::Request::new(&mut headers);
    read.parse(bytes).ok().filter(httparse::Status::is_complete)?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(read.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::try_from(read.path?).ok()?;
    for header in read.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(request.into_parts().0)
}

/// How a tunnel begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begins {
    Unsure,
    Tls { server_name: Option<String>, protocols: Vec<Vec<u8>> },
    Clear,
    Other,
}

pub fn opening(bytes: &[u8]) -> Begins {
    match recognise(bytes) {
        Guess::More => Begins::Unsure,
        Guess::Sure(Opening::Clear) => Begins::Clear,
        Guess::Sure(Opening::Other) => Begins::Other,
        Guess::Sure(Opening::Tls(hello)) => Begins::Tls { server_name: hello.server_name, protocols: hello.protocols },
    }
}

/// A body that passes in pieces: what comes out, and which patterns were found. A pattern's second half takes its place.
pub fn replaced(patterns: &[(&[u8], &[u8])], pieces: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
    let made = patterns.iter().map(|(find, by)| Pattern {
        find: Zeroizing::new(find.to_vec()),
        replace: Some(Zeroizing::new(by.to_vec())),
        tag: (),
    });
    let Some(mut replacer) = Replacer::new(made.collect()) else { return (pieces.concat(), Vec::new()) };
    let mut out = (Vec::new(), Vec::new());
    let mut keep = |pieces: Vec<Piece>| {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => out.0.extend_from_slice(&bytes),
                Piece::Found(number) => out.1.push(number),
            }
        }
    };
    for piece in pieces {
        keep(replacer.feed(Bytes::copy_from_slice(piece)));
    }
    keep(replacer.finish());
    out
}

/// A request that carries an AWS signature.
pub struct AwsSigned(Signed);

impl AwsSigned {
    pub fn read(target: &str, headers: &HeaderMap) -> Result<Option<AwsSigned>, String> {
        Signed::read(target, headers).map(|signed| signed.map(AwsSigned)).map_err(|fault| fault.to_string())
    }

    /// All that was read.
    pub fn shown(&self) -> String {
        format!("{:?}", self.0)
    }

    /// Target and headers with another signature.
    pub fn with(&self, signature: &str, target: &str, headers: &HeaderMap) -> Option<(String, HeaderMap)> {
        let mut headers = headers.clone();
        match self.0.with(signature, target) {
            Rewritten::Target(target) => Some((target, headers)),
            Rewritten::Authorization(value) => {
                headers.insert(AUTHORIZATION, HeaderValue::try_from(value).ok()?);
                Some((target.to_owned(), headers))
            }
        }
    }

    /// The signature under `new`, where the one that came was made under `old`; and whether the body's chunks are signed, too.
    pub fn again(
        &self,
        sent: &Parts,
        target: &str,
        old: &str,
        new: &str,
    ) -> Result<(String, Option<AwsChunks>), String> {
        let head = || Head { method: &sent.method, target, headers: &sent.headers, host: "h.test", has_no_body: true };
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        let signed = self.0.again(&head(), &head(), &secret(old), &secret(new)).map_err(|fault| fault.to_string())?;
        Ok((signed.0, signed.1.map(AwsChunks)))
    }
}

/// A body whose chunks are signed.
pub struct AwsChunks(Rechunk);

impl AwsChunks {
    /// The body, signed again.
    pub fn again(mut self, pieces: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut made = Vec::new();
        for piece in pieces {
            made.extend_from_slice(&self.0.feed(piece).map_err(|fault| fault.to_string())?);
        }
        self.0.finish().map_err(|fault| fault.to_string())?;
        Ok(made)
    }
}
