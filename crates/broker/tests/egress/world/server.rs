//! Servers on this machine: HTTP in the clear or in TLS, and plain sockets with a script.

use super::now;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
pub type Answer = BoxFuture<'static, Response<Body>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;
type Script = Arc<dyn Fn(TcpStream) -> BoxFuture<'static, ()> + Send + Sync>;

/// A root of ours that the proxy trusts, and one that it does not.
pub struct Authorities {
    trusted: CertifiedIssuer<'static, KeyPair>,
    stranger: CertifiedIssuer<'static, KeyPair>,
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    Stranger,
    Expired,
    /// It is for another name.
    Name,
}

impl Authorities {
    pub fn new() -> Self {
        let issuer = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a root")
        };
        Authorities { trusted: issuer("test root"), stranger: issuer("stranger") }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.trusted.der().clone()
    }

    pub fn config(&self, names: &[&str], flaw: Flaw, protocols: &[&str]) -> Arc<ServerConfig> {
        let names: Vec<String> = match flaw {
            Flaw::Name => vec!["another.test".to_owned()],
            _ => names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut params = CertificateParams::new(names).expect("names");
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let age = Duration::from_micros(u64::try_from(now().micros()).expect("after 1970"));
        params.not_before = epoch + age - Duration::from_secs(10 * 86_400);
        params.not_after = match flaw {
            Flaw::Expired => epoch + age - Duration::from_secs(86_400),
            _ => epoch + age + Duration::from_secs(10 * 86_400),
        };
        let key = KeyPair::generate().expect("a key");
        let issuer = if flaw == Flaw::Stranger { &self.stranger } else { &self.trusted };
        let leaf = params.signed_by(&key, issuer).expect("a leaf");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = builder.with_single_cert(vec![leaf.der().clone()], key).expect("a certificate");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub version: hyper::Version,
    pub headers: hyper::HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

pub struct Server {
    tls: Option<Arc<ServerConfig>>,
    handler: Option<Handler>,
    script: Option<Script>,
    port: u16,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<Mutex<usize>>,
}

impl Server {
    fn new() -> Self {
        Server { tls: None, handler: None, script: None, port: 0, seen: Arc::default(), connections: Arc::default() }
    }

    /// Remembers what comes and answers `ok` with the request's head and body.
    pub fn echo() -> Self {
        let server = Server::new();
        let seen = server.seen.clone();
        server.answers(move |request| {
            let seen = seen.clone();
            Box::pin(async move {
                let came = collect(request).await;
                let text = format!(
                    "{} {}\n{:?}\n{}",
                    came.method,
                    came.target,
                    came.headers,
                    String::from_utf8_lossy(&came.body)
                );
                seen.lock().push(came);
                text_of(StatusCode::OK, text)
            })
        })
    }

    pub fn answering(handler: impl Fn(Request<Incoming>) -> Answer + Send + Sync + 'static) -> Self {
        Server::new().answers(handler)
    }

    /// Bytes on a plain socket.
    pub fn scripted(script: impl Fn(TcpStream) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Server { script: Some(Arc::new(script)), ..Server::new() }
    }

    fn answers(mut self, handler: impl Fn(Request<Incoming>) -> Answer + Send + Sync + 'static) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().last().expect("a request").clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().len()
    }

    pub(super) async fn start(mut self) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        self.port = listener.local_addr().expect("an address").port();
        let (tls, handler, script) = (self.tls.clone(), self.handler.clone(), self.script.clone());
        let connections = self.connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *connections.lock() += 1;
                if let Some(script) = &script {
                    tokio::spawn(script(stream));
                } else if let Some(handler) = &handler {
                    tokio::spawn(connection(stream, tls.clone(), handler.clone()));
                }
            }
        });
        Arc::new(self)
    }
}

async fn connection(stream: TcpStream, tls: Option<Arc<ServerConfig>>, handler: Handler) {
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // How a connection ends is for the other side to say.
    let _ = match tls {
        None => builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await,
        Some(config) => match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

pub async fn collect(request: Request<Incoming>) -> Seen {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    Seen {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map_or("", |target| target.as_str()).to_owned(),
        version: parts.version,
        headers: parts.headers,
        body,
    }
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn text_of(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}
