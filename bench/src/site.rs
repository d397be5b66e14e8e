//! What connections of the egress benchmark lead to: a TLS server with a root of its own, in the benchmark's process.
//!
//! `GET /<key>/bytes/<n>` sends so many bytes, `POST` and `PUT` to `/<key>/swallow` read their body. `<key>` is what has to be in the
//! header `authorization`: `opened` is the secret, `blind` is anything else. A request with the wrong one is a 403, so a proxy that did
//! not do its work is never measured.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The name by which clients of proxies know it, and the one by which rooms do.
pub const LOCAL_NAME: &str = "localhost";
pub const ROOM_NAME: &str = "site.test";
/// The one becomes the other where a connection is opened.
pub const PLACEHOLDER: &str = "placeholder0123456789abcdef";
pub const SECRET: &str = "a-secret-of-the-same-length";
pub const ALPN: &[u8] = b"http/1.1";

static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

pub type Sent = BoxBody<Bytes, Infallible>;

/// Served until dropped.
pub struct Site {
    address: SocketAddr,
    /// Its root, PEM.
    pub certificate: String,
    pub certificate_file: PathBuf,
    accepting: JoinHandle<()>,
}

impl Site {
    /// Puts its root into the directory.
    pub async fn start(directory: &Path) -> Result<Site> {
        let (acceptor, certificate) = tls()?;
        let certificate_file = directory.join("site.pem");
        std::fs::write(&certificate_file, &certificate)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for the site")?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, acceptor));
        Ok(Site { address, certificate, certificate_file, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn tls() -> Result<(TlsAcceptor, String)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "root of a benchmark");
    let key = KeyPair::generate()?;
    let root = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate()?;
    let names = [LOCAL_NAME, ROOM_NAME].map(str::to_owned);
    let leaf = CertificateParams::new(names)?.signed_by(&leaf_key, &issuer)?;
    let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), root.pem()))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, acceptor.clone()))),
            Err(fault) => eprintln!("site: a connection could not be accepted: {fault}"),
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor) {
    if let Err(fault) = stream.set_nodelay(true) {
        eprintln!("site: TCP_NODELAY: {fault}");
    }
    // Whoever hangs up ends its own measurement with an error; nothing is lost here.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = hyper::service::service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>) -> Response<Sent> {
    reply(request).await.unwrap_or_else(|fault| {
        let mut refusal = Response::new(Full::from(format!("{fault:#}\n")).boxed());
        *refusal.status_mut() = StatusCode::FORBIDDEN;
        refusal
    })
}

async fn reply(request: Request<Incoming>) -> Result<Response<Sent>> {
    let path = request.uri().path().to_owned();
    let (key, rest) = path.trim_start_matches('/').split_once('/').with_context(|| format!("`{path}`"))?;
    let shown = request.headers().get("authorization").context("no `authorization`")?;
    let is_secret = shown.as_bytes() == format!("Bearer {SECRET}").as_bytes();
    ensure!(is_secret == (key == "opened"), "not the key for `{path}`");
    if request.method() != Method::GET {
        let count = drain(request.into_body()).await?;
        return Ok(Response::new(Full::from(count.to_string()).boxed()));
    }
    let count = rest.strip_prefix("bytes/").and_then(|n| n.parse().ok()).with_context(|| format!("`{path}`"))?;
    Ok(Response::builder().header("content-length", count).body(filler(count))?)
}

/// So many bytes, piece by piece.
pub fn filler(count: usize) -> Sent {
    let pieces = stream::unfold(count, |left| async move {
        let piece = Bytes::from_static(&PIECE[..left.min(PIECE.len())]);
        (left > 0).then(|| (Ok(Frame::data(piece.clone())), left - piece.len()))
    });
    StreamBody::new(pieces).boxed()
}

/// Reads a body to its end and counts its bytes.
pub async fn drain<B: Body<Data = Bytes, Error = hyper::Error>>(body: B) -> Result<usize> {
    let mut count = 0;
    let mut body = pin!(body);
    while let Some(frame) = body.frame().await {
        count += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(count)
}
