//! The other end of a connection that is read: TLS to the checked address, HTTP on it.
//!
//! One connection, made again when the other end closed it between two requests.

use super::body::{Body, full};
use super::refusal::Stop;
use super::resolve::Checked;
use super::tasks::Tasks;
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use loopd_domain::limits::{EGRESS_HANDSHAKE_MS, EGRESS_STREAM_BYTES, EGRESS_STREAMS_BYTES, HEADER_BYTES_MAX};
use loopd_policy::network::Host;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why a request has no answer.
pub(crate) enum SendFault {
    Stopped(Stop),
    /// A connection that had served before was closed under the request. The room sees the same, and does what it does then.
    ClosedBetween,
}

/// A host that may be connected to, and how.
pub(crate) struct Route {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) checked: Checked,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

pub(crate) struct Upstream {
    route: Route,
    tasks: Tasks,
    is_h2: bool,
    kept: Mutex<Kept>,
}

enum Kept {
    None,
    H1 { sender: http1::SendRequest<Body>, served: bool },
    H2(http2::SendRequest<Body>),
}

impl Route {
    pub(crate) async fn tls(
        &self,
        config: &Arc<ClientConfig>,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Stop> {
        let host = &self.host;
        let name = match (host.address(), host.name()) {
            (Some(address), _) => ServerName::from(address),
            (None, name) => ServerName::try_from(name.unwrap_or_default().to_owned())
                .map_err(|_| Stop::failed(format!("`{host}` is no name that a certificate can carry")))?,
        };
        let limit = Duration::from_millis(EGRESS_HANDSHAKE_MS);
        match timeout(limit, TlsConnector::from(config.clone()).connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(fault)) => Err(Stop::failed(format!("TLS with `{host}` failed: {fault}"))),
            Err(_) => Err(Stop::failed(format!("TLS with `{host}` was not made within {} s", limit.as_secs()))),
        }
    }
}

impl Upstream {
    /// Connects at the first request.
    pub(crate) fn new(route: Route, tasks: Tasks, is_h2: bool) -> Self {
        Upstream { route, tasks, is_h2, kept: Mutex::new(Kept::None) }
    }

    /// On a stream that is there already.
    pub(crate) async fn begin<S>(route: Route, tasks: Tasks, is_h2: bool, stream: S) -> Result<Self, Stop>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let upstream = Upstream::new(route, tasks, is_h2);
        let kept = upstream.speak(stream).await?;
        *upstream.kept.lock().await = kept;
        Ok(upstream)
    }

    pub(crate) fn is_h2(&self) -> bool {
        self.is_h2
    }

    pub(crate) fn is_for(&self, host: &Host, port: u16) -> bool {
        self.route.host == *host && self.route.port == port
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendFault> {
        if self.is_h2 { self.send_h2(request).await } else { self.send_h1(request).await }
    }

    async fn send_h1(&self, mut request: Request<Body>) -> Result<Response<Incoming>, SendFault> {
        let mut kept = self.kept.lock().await;
        loop {
            let mut ready = match std::mem::replace(&mut *kept, Kept::None) {
                Kept::H1 { mut sender, served } => sender.ready().await.ok().map(|()| (sender, served)),
                Kept::None | Kept::H2(_) => None,
            };
            if ready.is_none()
                && let Kept::H1 { sender, served } = self.connect().await.map_err(SendFault::Stopped)?
            {
                ready = Some((sender, served));
            }
            let Some((mut sender, served)) = ready else {
                return Err(SendFault::Stopped(self.stop("another protocol was begun")));
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    *kept = Kept::H1 { sender, served: true };
                    return Ok(response);
                }
                Err(mut fault) => match fault.take_message() {
                    // Nothing of it was sent.
                    Some(unsent) if served => request = unsent,
                    _ if served && fault.error().is_incomplete_message() => return Err(SendFault::ClosedBetween),
                    _ => return Err(SendFault::Stopped(self.stop(&told(&fault.into_error())))),
                },
            }
        }
    }

    async fn send_h2(&self, mut request: Request<Body>) -> Result<Response<Incoming>, SendFault> {
        let mut fresh = false;
        loop {
            let mut sender = {
                let mut kept = self.kept.lock().await;
                match &*kept {
                    Kept::H2(sender) if !sender.is_closed() => sender.clone(),
                    _ => {
                        fresh = true;
                        match self.connect().await.map_err(SendFault::Stopped)? {
                            Kept::H2(sender) => {
                                *kept = Kept::H2(sender.clone());
                                sender
                            }
                            Kept::None | Kept::H1 { .. } => {
                                return Err(SendFault::Stopped(self.stop("another protocol was begun")));
                            }
                        }
                    }
                }
            };
            let again = without_body(&request);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut fault) => {
                    let unsent = fault.take_message();
                    let fault = fault.into_error();
                    match unsent.or(again.filter(|_| said_goodbye(&fault))) {
                        // It takes no more, whether or not it calls itself closed.
                        Some(unsent) if !fresh => {
                            *self.kept.lock().await = Kept::None;
                            request = unsent;
                        }
                        _ => return Err(SendFault::Stopped(self.stop(&told(&fault)))),
                    }
                }
            }
        }
    }

    async fn connect(&self) -> Result<Kept, Stop> {
        let stream = self.route.checked.dial(&self.route.host, self.route.port).await?;
        let Some(config) = &self.route.tls else { return self.speak(stream).await };
        let stream = self.route.tls(config, stream).await?;
        match (stream.get_ref().1.alpn_protocol() == Some(b"h2")) == self.is_h2 {
            true => self.speak(stream).await,
            false => Err(self.stop("it speaks another version of HTTP than on the connection before")),
        }
    }

    async fn speak<S>(&self, stream: S) -> Result<Kept, Stop>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        if self.is_h2 {
            let mut builder = http2::Builder::new(self.tasks.clone());
            builder
                .timer(TokioTimer::new())
                .initial_stream_window_size(EGRESS_STREAM_BYTES)
                .initial_connection_window_size(EGRESS_STREAMS_BYTES)
                .max_send_buf_size(EGRESS_STREAM_BYTES as usize)
                .max_header_list_size(HEADER_BYTES_MAX as u32);
            let (sender, connection) = builder.handshake(io).await.map_err(|fault| self.stop(&told(&fault)))?;
            self.tasks.spawn(async move {
                if let Err(fault) = connection.await {
                    tracing::debug!(%fault, "a connection to the world ended");
                }
            });
            return Ok(Kept::H2(sender));
        }
        let mut builder = http1::Builder::new();
        builder.preserve_header_case(true).max_buf_size(HEADER_BYTES_MAX);
        let (sender, connection) = builder.handshake(io).await.map_err(|fault| self.stop(&told(&fault)))?;
        self.tasks.spawn(async move {
            if let Err(fault) = connection.with_upgrades().await {
                tracing::debug!(%fault, "a connection to the world ended");
            }
        });
        Ok(Kept::H1 { sender, served: false })
    }

    fn stop(&self, told: &str) -> Stop {
        Stop::failed(format!("`{}` did not answer: {told}", self.route.host))
    }
}

/// An error with its causes, in one line.
/// The same request once more, where it has no body to lose.
fn without_body(request: &Request<Body>) -> Option<Request<Body>> {
    request.body().is_end_stream().then(|| {
        let mut again = Request::new(full(Bytes::new()));
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.version_mut() = request.version();
        again.headers_mut().clone_from(request.headers());
        again
    })
}

/// The other end wanted no more requests on this connection when ours came, and has not looked at it (RFC 9113, 6.8).
fn said_goodbye(fault: &hyper::Error) -> bool {
    let mut cause = fault.source();
    while let Some(inner) = cause {
        if let Some(inner) = inner.downcast_ref::<h2::Error>() {
            return inner.is_go_away() && inner.reason() == Some(h2::Reason::NO_ERROR);
        }
        cause = inner.source();
    }
    false
}

pub(crate) fn told(fault: &dyn Error) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
