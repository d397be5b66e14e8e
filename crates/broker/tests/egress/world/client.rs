//! The room's side: CONNECT, TLS that trusts the authority, HTTP.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub type Sender<B = Full<Bytes>> = hyper::client::conn::http1::SendRequest<B>;

/// One connection to the proxy. Dropping `serving` does not end it; closing the stream does.
pub struct Line {
    pub stream: DuplexStream,
    pub serving: JoinHandle<()>,
    pem: String,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Told {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: String,
}

impl Line {
    pub fn new(stream: DuplexStream, serving: JoinHandle<()>, pem: &str) -> Self {
        Line { stream, serving, pem: pem.to_owned() }
    }

    /// Sends bytes as they are, and reads to the end.
    pub async fn raw(mut self, bytes: &[u8]) -> String {
        self.stream.write_all(bytes).await.expect("sent");
        let mut text = Vec::new();
        self.stream.read_to_end(&mut text).await.expect("read");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// `CONNECT`, up to the end of its answer.
    pub async fn connect(mut self, host: &str, port: u16) -> Self {
        let head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(self.stream.read_u8().await.expect("an answer"));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        self
    }

    pub async fn tls(self, name: &str, protocols: &[&str]) -> io::Result<TlsStream<DuplexStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate")).expect("a root");
        self.tls_with(roots, name, protocols).await
    }

    pub async fn tls_with(
        self,
        roots: RootCertStore,
        name: &str,
        protocols: &[&str],
    ) -> io::Result<TlsStream<DuplexStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, self.stream).await
    }

    /// HTTP/1.1 in TLS to a host, through the proxy.
    pub async fn https(self, host: &str, port: u16) -> Sender {
        let stream = self.connect(host, port).await.tls(host, &["http/1.1"]).await.expect("TLS");
        h1(stream).await
    }

    /// HTTP/2 in TLS to a host, through the proxy.
    pub async fn https2(self, host: &str, port: u16) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let stream = self.connect(host, port).await.tls(host, &["h2", "http/1.1"]).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        sender
    }
}

pub async fn h1<S, B>(stream: S) -> Sender<B>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection.with_upgrades());
    sender
}

pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request")
}

pub async fn body_of(response: Response<Incoming>) -> Told {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Told { status: parts.status.as_u16(), headers: parts.headers, body }
}
