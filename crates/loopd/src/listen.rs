//! Connections: how many there may be, and how long one may take to say what it wants.
//!
//! ```text
//!  place free ─► accepted ─► head read in time ─► requests, one after the other ─► closed, place free again
//! ```
//!
//! Whoever finds no place waits in the kernel's queue. A connection that says nothing, too little, or nothing more is closed,
//! so places come back. What a request may do once its head is read is the server's business, not the door's.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use loopd_domain::limits::{HTTP_CONNECTIONS_MAX, HTTP_HEAD_MS};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

/// After a failure to accept that only others can mend (no descriptor is left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How the second version of HTTP begins; until so much is read nobody knows which one is spoken, nor keeps a clock.
const PREFACE_BYTES: usize = 24;

#[derive(Debug, Clone, Copy)]
pub struct Door {
    pub connections: usize,
    /// For the head of each request, and for a connection to lie idle.
    pub head: Duration,
}

impl Default for Door {
    fn default() -> Self {
        Door { connections: HTTP_CONNECTIONS_MAX, head: Duration::from_millis(HTTP_HEAD_MS) }
    }
}

/// Serves until `stop`, then lets requests that are under way end.
pub async fn serve(listener: TcpListener, router: Router, door: Door, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(door.connections));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut stop => break,
        };
        let (stream, place) = accepted;
        // Steps are small frames that somebody waits for: none may wait for the next one.
        if let Err(fault) = stream.set_nodelay(true) {
            tracing::debug!(%fault, "a connection keeps Nagle's algorithm");
        }
        let service = TowerToHyperService::new(tower_service(router.clone()));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(door.head);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(door.head).keep_alive_timeout(door.head);
        let io = TokioIo::new(Greeting::new(stream, door.head));
        let connection = graceful.watch(builder.serve_connection_with_upgrades(io, service).into_owned());
        tokio::spawn(async move {
            if let Err(fault) = connection.await {
                tracing::debug!(%fault, "a connection ended with an error");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Place) {
    let place = places.clone().acquire_owned().await.expect("nobody closes it");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(fault) if is_the_callers(&fault) => {}
            Err(fault) => {
                tracing::warn!(%fault, "a connection could not be accepted; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// It was gone before it was looked at.
fn is_the_callers(fault: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(fault.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn tower_service(
    router: Router,
) -> impl tower::Service<
    Request<hyper::body::Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone {
    tower::service_fn(move |request: Request<hyper::body::Incoming>| {
        tower::ServiceExt::oneshot(router.clone(), request.map(Body::new))
    })
}

/// A connection whose first bytes must come in time: before it is known which HTTP is spoken, no other clock runs.
struct Greeting {
    stream: TcpStream,
    left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Greeting {
    fn new(stream: TcpStream, within: Duration) -> Self {
        Greeting { stream, left: PREFACE_BYTES, deadline: Box::pin(tokio::time::sleep(within)) }
    }
}

impl AsyncRead for Greeting {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.left = self.left.saturating_sub(into.filled().len() - before);
        match read {
            Poll::Pending if self.left > 0 => {
                let over = self.deadline.as_mut().poll(context);
                over.map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "it did not say what it wants")))
            }
            read => read,
        }
    }
}

impl AsyncWrite for Greeting {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Who is answered has said enough.
        self.left = 0;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.left = 0;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    const HEAD: Duration = Duration::from_millis(300);
    const PATIENCE: Duration = Duration::from_secs(10);

    async fn open(connections: usize) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let slow = get(|| async {
            tokio::time::sleep(3 * HEAD).await;
            "late"
        });
        let router = Router::new().route("/", get(|| async { "here" })).route("/slow", slow);
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, router, Door { connections, head: HEAD }, async { _ = stopped.await });
        (address, stop, tokio::spawn(serving))
    }

    async fn say(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        stream
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        // A connection that is cut ends as well.
        let _ = timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("it is closed");
        text
    }

    #[tokio::test]
    async fn who_says_too_little_is_closed_and_the_next_one_served() {
        let (address, _stop, _serving) = open(2).await;
        // A head without end, one byte of a greeting, and nothing at all; two of them fill the house.
        for opening in [["GET / HTTP/1.1\r\nhost: h\r\nx: ", "P"], ["", "PRI * HTTP/2.0\r\n"]] {
            let held = [say(address, opening[0]).await, say(address, opening[1]).await];
            let served = say(address, "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
            assert!(rest(served).await.ends_with("here"), "{opening:?}");
            for stream in held {
                rest(stream).await;
            }
        }
    }

    #[tokio::test]
    async fn a_slow_answer_is_not_cut_and_stopping_waits_for_it() {
        let (address, stop, serving) = open(8).await;
        let asked = say(address, "GET /slow HTTP/1.1\r\nhost: h\r\n\r\n").await;
        tokio::time::sleep(HEAD / 3).await;
        stop.send(()).expect("it serves");
        assert!(rest(asked).await.ends_with("late"));
        timeout(PATIENCE, serving).await.expect("it ends").expect("in order");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
