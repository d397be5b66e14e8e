//! A web site outside of rooms, with TLS under an authority of its own: what programs of a room want to reach.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// `GET /hello` is answered with a greeting that repeats the `Host`, `GET /slow` with an answer that never ends, and everything else
/// with the request itself.
pub struct Site {
    address: SocketAddr,
    /// Of its authority, PEM.
    pub certificate: String,
    slow: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Site {
    /// Under these names.
    pub async fn start(names: &[&str]) -> Self {
        let (acceptor, certificate) = tls(names);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let slow = Arc::new(AtomicUsize::new(0));
        let counter = slow.clone();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, counter.clone(), seen.clone()));
            }
        });
        Site { address, certificate, slow, heads }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests that have come, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("nobody panics with it").clone()
    }

    /// How many answers that never end have been begun.
    pub fn slow(&self) -> usize {
        self.slow.load(Ordering::Relaxed)
    }

    pub async fn until_slow(&self, n: usize) {
        let wait = async {
            while self.slow() < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(crate::PATIENCE, wait).await.is_ok(), "{} and no more", self.slow());
    }
}

/// A certificate for these names, its key, and the authority that it is of; PEM.
pub struct Papers {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Papers {
    pub fn new(names: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let leaf = params.signed_by(&leaf_key, &issuer).expect("a certificate");
        Papers { authority: authority.pem(), certificate: leaf.pem(), key: leaf_key.serialize_pem() }
    }
}

fn tls(names: &[&str]) -> (TlsAcceptor, String) {
    let Papers { authority, certificate, key } = Papers::new(names);
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    (TlsAcceptor::from(Arc::new(config.expect("a configuration"))), authority)
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, slow: Arc<AtomicUsize>, heads: Arc<Mutex<Vec<String>>>) {
    // Whoever does not trust us, or goes away, is no matter of the site's.
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let sent = String::from_utf8_lossy(&head).into_owned();
    heads.lock().expect("nobody panics with it").push(sent.clone());
    let head = sent.to_lowercase();
    let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("nobody").trim();
    if !head.starts_with("get /slow") {
        let body = if head.starts_with("get /hello") { format!("hello from {host}\n") } else { sent };
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        return;
    }
    slow.fetch_add(1, Ordering::Relaxed);
    let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
    while sent.is_ok() {
        sent = stream.write_all(b"more\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
