//! Requests in the clear that are addressed to the proxy: `GET http://host/path`. Each is a connection of its own in the reports.

use super::addressed;
use super::body::{Body, Fault};
use super::exchange::{ClosedBetween, Exchange};
use super::passage::Passage;
use super::proxy::Parts;
use super::refusal::Stop;
use super::room::{RoomIo, Traffic};
use super::serving;
use super::tasks::Tasks;
use super::upgrade::Upgrade;
use super::upstream::{Route, Upstream};
use super::visit::{Notes, Visit};
use crate::client::Client;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use loopd_domain::network::ConnectionOutcome;
use loopd_policy::network::Host;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::sync::{Mutex, Notify};

pub(crate) struct Forward {
    pub(crate) parts: Arc<Parts>,
    pub(crate) client: Arc<Client>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) tasks: Tasks,
    closing: Arc<Notify>,
    upgrade: Arc<Upgrade>,
    /// To the host of the request before.
    kept: Mutex<Option<Arc<Upstream>>>,
    /// Bytes from the room at the end of the request before. Requests on one connection follow one another.
    counted: Arc<AtomicU64>,
}

/// What stands for the host in a report when none is known.
pub(crate) const NO_HOST: &str = "(none)";

impl Forward {
    pub(crate) fn new(parts: Arc<Parts>, client: Arc<Client>, traffic: Arc<Traffic>, tasks: Tasks) -> Self {
        let (closing, upgrade) = (Arc::default(), Arc::default());
        Forward { parts, client, traffic, tasks, closing, upgrade, kept: Mutex::new(None), counted: Arc::default() }
    }

    pub(crate) async fn serve(self, room: RoomIo) {
        let (tasks, closing, upgrade) = (self.tasks.clone(), self.closing.clone(), self.upgrade.clone());
        let forward = Arc::new(self);
        let service = service_fn(move |request| {
            let forward = forward.clone();
            async move { forward.one(request).await }
        });
        if let Err(fault) = serving::serve(room, false, &tasks, &closing, service).await {
            tracing::debug!(%fault, "a connection from a room ended");
        }
        upgrade.ended().await;
    }

    async fn one(&self, mut request: Request<Incoming>) -> Result<Response<Body>, ClosedBetween> {
        let (parts, client) = (self.parts.clone(), self.client.clone());
        let (host, port) = match address(&mut request) {
            Ok(address) => address,
            Err(stop) => {
                let (visit, count) = self.visit(NO_HOST.to_owned(), 0);
                return Ok(count.of(refused(&visit, &stop), visit));
            }
        };
        let (visit, count) = self.visit(host.to_string(), port);
        let (notes, closing) = (visit.notes(), self.closing.clone());
        let passage = Arc::new(Passage { parts, client, host, port, notes, closing });
        match self.upstream(&passage).await {
            Err(stop) => Ok(count.of(refused(&visit, &stop), visit)),
            Ok(upstream) => {
                let (tasks, upgrade) = (self.tasks.clone(), self.upgrade.clone());
                let exchange = Exchange { passage, upstream, tasks, upgrade, is_secure: false };
                Ok(count.of(exchange.serve(request).await?, visit))
            }
        }
    }

    fn visit(&self, host: String, port: u16) -> (Visit, Count) {
        let own = Arc::new(Traffic::default());
        let visit = Visit::new(self.parts.clone(), self.client.clone(), host, port, own.clone());
        (visit, Count { line: self.traffic.clone(), counted: self.counted.clone(), own })
    }

    async fn upstream(&self, passage: &Passage) -> Result<Arc<Upstream>, Stop> {
        let (host, port) = (&passage.host, passage.port);
        let mut kept = self.kept.lock().await;
        if let Some(upstream) = kept.as_ref().filter(|upstream| upstream.is_for(host, port)) {
            return Ok(upstream.clone());
        }
        let checked = self.parts.permit(&self.client, host, port).await?;
        let route = Route { host: host.clone(), port, checked, tls: None };
        let upstream = Arc::new(Upstream::new(route, self.tasks.clone(), false));
        *kept = Some(upstream.clone());
        Ok(upstream)
    }
}

fn refused(visit: &Visit, stop: &Stop) -> Response<Body> {
    visit.notes().outcome(stop.outcome.clone());
    stop.response(false)
}

/// Whom a request to the proxy is for. What its `Host` header says does not count (RFC 9112, section 3.2.2).
fn address(request: &mut Request<Incoming>) -> Result<(Host, u16), Stop> {
    const ACCEPTED: &str =
        "accepted: CONNECT host:port, and requests whose address is absolute and begins with http://";
    let malformed = |what: &str| Stop::malformed(format!("{what}; {ACCEPTED}"));
    if request.method() == Method::CONNECT {
        return Err(malformed("CONNECT must be the first request of a connection"));
    }
    if request.uri().scheme_str() != Some("http") {
        return Err(malformed("the request is not addressed to a proxy"));
    }
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    if authority.contains('@') {
        return Err(malformed("user and password in an address are not supported"));
    }
    let (name, port) = addressed::split(&authority).ok_or_else(|| malformed("its port is not a number"))?;
    let host = Host::parse(name).map_err(|fault| Stop::malformed(fault.to_string()))?;
    let header = HeaderValue::from_str(&authority).map_err(|_| malformed("its host is malformed"))?;
    request.headers_mut().insert(HOST, header);
    Ok((host, port.unwrap_or(80)))
}

/// Counts one request of a connection that carries many: what came from the room since the one before, and the answer.
struct Count {
    line: Arc<Traffic>,
    counted: Arc<AtomicU64>,
    own: Arc<Traffic>,
}

impl Count {
    fn of(self, response: Response<Body>, visit: Visit) -> Response<Body> {
        let headers: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let status_line = "HTTP/1.1 200 OK\r\n\r\n".len();
        self.own.add(0, (headers + status_line) as u64);
        response.map(|body| Reported::of(body, visit, self))
    }
}

/// A body at whose end a connection is reported.
struct Reported {
    inner: Body,
    notes: Notes,
    count: Count,
    _visit: Visit,
}

impl Reported {
    fn of(inner: Body, visit: Visit, count: Count) -> Body {
        let notes = visit.notes();
        if inner.is_end_stream() {
            notes.outcome(ConnectionOutcome::Done);
        }
        Reported { inner, notes, count, _visit: visit }.boxed_unsync()
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        let (out, _) = self.count.line.counts();
        self.count.own.add(out - self.count.counted.swap(out, Relaxed), 0);
    }
}

impl HttpBody for Reported {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Err(fault))) => {
                self.notes.outcome(ConnectionOutcome::Failed { reason: format!("its answer broke off: {fault}") });
            }
            Poll::Ready(None) => self.notes.outcome(ConnectionOutcome::Done),
            Poll::Ready(Some(Ok(frame))) => {
                self.count.own.add(0, frame.data_ref().map_or(0, |data| data.len() as u64));
                if self.inner.is_end_stream() {
                    self.notes.outcome(ConnectionOutcome::Done);
                }
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
