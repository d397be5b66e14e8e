//! A web site outside of rooms, with TLS under an authority of its own: what programs of a room want to reach.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// `GET /hello` is answered with a greeting that repeats the `Host`, `GET /slow` with an answer that never ends, what lies on a shelf
/// with a file of it, and everything else with the request itself.
pub struct Site {
    address: SocketAddr,
    /// Of its authority, PEM.
    pub certificate: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    slow: AtomicUsize,
    heads: Mutex<Vec<String>>,
    shelves: Mutex<Vec<Shelf>>,
}

impl State {
    fn shelves(&self) -> MutexGuard<'_, Vec<Shelf>> {
        self.shelves.lock().expect("nobody panics with it")
    }
}

/// Files below a path, for whoever shows what is wanted.
pub struct Shelf {
    below: String,
    authorization: String,
    files: HashMap<String, Vec<u8>>,
}

impl Shelf {
    /// Of what a program leaves where it is run. `below` begins and ends with a slash.
    pub fn made(below: &str, authorization: &str, program: &str, arguments: &[&str]) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let made = Command::new(program).args(arguments).current_dir(place.path()).output().expect("it is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut files = HashMap::new();
        collect(place.path(), below, &mut files);
        Shelf { below: below.to_owned(), authorization: authorization.to_owned(), files }
    }

    /// The answer to a request for a path below.
    fn answer(&self, path: &str, shown: Option<&str>) -> Vec<u8> {
        if shown != Some(self.authorization.as_str()) {
            let scheme = self.authorization.split(' ').next().unwrap_or_default();
            let asks = format!("www-authenticate: {scheme} realm=\"site\"\r\n");
            return response("401 Unauthorized", &asks, b"who are you?");
        }
        let is_page = path.ends_with('/');
        let name = if is_page { format!("{path}index.html") } else { path.to_owned() };
        let kind = if is_page { "text/html" } else { "application/octet-stream" };
        match self.files.get(&name) {
            Some(bytes) => response("200 OK", &format!("content-type: {kind}\r\n"), bytes),
            None => response("404 Not Found", "", b"no such file"),
        }
    }
}

/// Every file of a directory under the path that it is to have.
fn collect(directory: &Path, below: &str, files: &mut HashMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, &format!("{below}{name}/"), files);
        } else {
            files.insert(format!("{below}{name}"), std::fs::read(&path).expect("a file"));
        }
    }
}

impl Site {
    /// Under these names.
    pub async fn start(names: &[&str]) -> Self {
        let (acceptor, certificate) = tls(names);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, shared.clone()));
            }
        });
        Site { address, certificate, state }
    }

    pub fn put(&self, shelf: Shelf) {
        self.state.shelves().push(shelf);
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests that have come, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.state.heads.lock().expect("nobody panics with it").clone()
    }

    /// What requests below a path had in `authorization`, those that had something there.
    pub fn shown(&self, below: &str) -> Vec<String> {
        let heads = self.heads();
        let asked = heads.iter().filter(|head| target(head).starts_with(below));
        asked.filter_map(|head| field(head, "authorization")).map(str::to_owned).collect()
    }

    /// How many answers that never end have been begun.
    pub fn slow(&self) -> usize {
        self.state.slow.load(Ordering::Relaxed)
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

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, state: Arc<State>) {
    // Whoever does not trust us, or goes away, is no matter of the site's.
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let Some(head) = head(&mut stream).await else { return };
    state.heads.lock().expect("nobody panics with it").push(head.clone());
    if head.starts_with("GET /slow") {
        state.slow.fetch_add(1, Ordering::Relaxed);
        return drip(stream).await;
    }
    let _ = stream.write_all(&answer(&head, &state)).await;
    let _ = stream.shutdown().await;
}

/// A request up to its empty line; `None` when it goes away before.
async fn head(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn answer(head: &str, state: &State) -> Vec<u8> {
    let path = target(head).split('?').next().unwrap_or_default();
    if let Some(shelf) = state.shelves().iter().find(|shelf| path.starts_with(&shelf.below)) {
        return shelf.answer(path, field(head, "authorization"));
    }
    match path.starts_with("/hello") {
        true => response("200 OK", "", format!("hello from {}\n", field(head, "host").unwrap_or("nobody")).as_bytes()),
        false => response("200 OK", "", head.as_bytes()),
    }
}

fn response(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{fields}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// An answer that goes on for as long as somebody listens.
async fn drip(mut stream: TlsStream<TcpStream>) {
    let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
    while sent.is_ok() {
        sent = stream.write_all(b"more\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a request asks for.
fn target(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn field<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
}
