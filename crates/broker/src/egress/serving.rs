//! HTTP towards the room, with its bounds.

use super::body::{Body, Fault};
use super::tasks::Tasks;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use loopd_domain::limits::{
    EGRESS_STREAM_BYTES, EGRESS_STREAMS_BYTES, EGRESS_STREAMS_MAX, HEADER_BYTES_MAX, HTTP_HEAD_MS,
};
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

/// Serves requests to the end of the connection. With HTTP/2 until `closing`, too: then the running ones are finished. With HTTP/1
/// the answer that ends a connection says so itself.
pub(crate) async fn serve<I, S>(io: I, is_h2: bool, tasks: &Tasks, closing: &Notify, service: S) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Fault>,
{
    let io = TokioIo::new(io);
    if is_h2 {
        let mut builder = http2::Builder::new(tasks.clone());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(EGRESS_STREAMS_MAX)
            .initial_stream_window_size(EGRESS_STREAM_BYTES)
            .initial_connection_window_size(EGRESS_STREAMS_BYTES)
            .max_send_buf_size(EGRESS_STREAM_BYTES as usize)
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .auto_date_header(false);
        let mut connection = pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = closing.notified() => connection.as_mut().graceful_shutdown(),
        }
        return connection.await;
    }
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HTTP_HEAD_MS))
        .preserve_header_case(true)
        .max_buf_size(HEADER_BYTES_MAX)
        .auto_date_header(false);
    builder.serve_connection(io, service).with_upgrades().await
}
