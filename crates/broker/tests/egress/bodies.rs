//! Bodies on their way out: streamed, cut anywhere, of any length.

use crate::world::server::{Flaw, Seen, text_of};
use crate::world::*;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Request, StatusCode};
use loopd_broker::BoundCredential;
use loopd_domain::network::ConnectionOutcome;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

async fn api(secret: &str) -> (World, Arc<Server>) {
    let mut world = World::new();
    world.vault.hold(vec![credential(PLACEHOLDER, secret, Some(&["api.test"]))]);
    let config = world.authorities.config(&["api.test"], Flaw::None, &["http/1.1"]);
    let server = world.server(Server::echo().tls(config)).await;
    (world, server)
}

/// A body in these pieces, with a length or in chunks.
async fn sent(world: &World, server: &Server, pieces: Vec<Bytes>, has_length: bool) -> Seen {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let mut request = Request::builder().method("POST").uri("/").header("host", "api.test");
    if has_length {
        request = request.header("content-length", length);
    }
    let request = request.body(StreamBody::new(stream::iter(frames))).expect("a request");
    let stream =
        world.line().connect("api.test", server.port()).await.tls("api.test", &["http/1.1"]).await.expect("TLS");
    let mut sender = h1(stream).await;
    let told = body_of(sender.send_request(request).await.expect("an answer")).await;
    assert_eq!(told.status, 200, "{told:?}");
    server.last()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_length_is_right_whatever_the_secrets_length() {
    let text = format!("a={PLACEHOLDER}&b={PLACEHOLDER}");
    let big = "x".repeat(100_000);
    for secret in [SECRET, "short", "a secret that is much longer than its placeholder ever was"] {
        for (tail, has_length) in [("", true), ("", false), (big.as_str(), true), (big.as_str(), false)] {
            let (world, server) = api(secret).await;
            let whole = format!("{text}{tail}");
            let pieces = whole.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect();
            let seen = sent(&world, &server, pieces, has_length).await;
            let expected = whole.replace(PLACEHOLDER, secret);
            assert!(seen.body == expected.as_bytes(), "{secret} {} {has_length}", tail.len());
            let keeps = secret.len() == PLACEHOLDER.len();
            let has = has_length && (keeps || tail.is_empty());
            assert_eq!(seen.header("content-length"), if has { expected.len().to_string() } else { String::new() });
            assert_eq!(seen.header("transfer-encoding"), if has { "" } else { "chunked" });
            assert_eq!(world.book.uses(), 1, "one entry for a request, however often it stands there");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compressed_passes_as_it_is() {
    let (world, server) = api(SECRET).await;
    let mut sender = world.line().https("api.test", server.port()).await;
    let sent = request("POST", "/", &[("host", "api.test"), ("content-encoding", "gzip")], PLACEHOLDER);
    assert_eq!(body_of(sender.send_request(sent).await.expect("an answer")).await.status, 200);
    assert_eq!((server.last().body.as_slice(), world.book.uses()), (PLACEHOLDER.as_bytes(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_with_a_body_keeps_it() {
    let (world, server) = api("short").await;
    let mut sender = world.line().https("api.test", server.port()).await;
    let sent = request("GET", "/", &[("host", "api.test"), ("transfer-encoding", "chunked")], PLACEHOLDER);
    assert_eq!(body_of(sender.send_request(sent).await.expect("an answer")).await.status, 200);
    assert_eq!(server.last().body, b"short");
}

/// The piece before the placeholder may have gone; the placeholder does not go, and the request does not end well.
#[tokio::test(flavor = "multi_thread")]
async fn a_violation_in_the_middle_of_a_body() {
    let (world, server) = api(SECRET).await;
    let elsewhere = credential("ELSEWHEREplaceholder", "elsewhere", Some(&["other.test"]));
    world.vault.hold(vec![token(), elsewhere]);
    let (first, second) = "ELSEWHEREplaceholder".split_at(9);
    let filler = Bytes::from(vec![b'.'; 200_000]);
    let pieces = [filler.clone(), Bytes::from(first), Bytes::from(second), filler];
    let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let request = Request::builder().method("POST").uri("/").header("host", "api.test");
    let request = request.body(StreamBody::new(stream::iter(frames))).expect("a request");
    let stream =
        world.line().connect("api.test", server.port()).await.tls("api.test", &["http/1.1"]).await.expect("TLS");
    let mut sender = h1(stream).await;
    // The rest of the body is not taken; the answer may be lost on the way, the stop is not.
    if let Ok(response) = sender.send_request(request).await {
        assert_eq!(response.status(), 403);
    }
    drop(sender);
    assert!(matches!(world.reported.outcome().await, ConnectionOutcome::Violation { .. }));
    assert!(server.seen.lock().iter().all(|seen| !String::from_utf8_lossy(&seen.body).contains("ELSEWHERE")));
}

const LENGTH: u64 = 96 << 20;
const PIECE: usize = 256 << 10;
/// What all the buffers between the two ends may hold: sockets, TLS, HTTP/2 windows of four connections' ends.
const HELD_MAX: u64 = 16 << 20;

/// What was sent and not yet received is counted at every piece: it stays small, both ways, in both versions.
#[tokio::test(flavor = "multi_thread")]
async fn what_streams_is_never_held() {
    for protocol in ["http/1.1", "h2"] {
        let mut world = World::new();
        let other = credential("NEVERseenPLACEHOLDER", "never-seen-secret", Some(&["api.test"]));
        world.vault.hold(vec![BoundCredential { ..other }]);
        let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (received, made) = (up.clone(), down.clone());
        let server = Server::answering(move |request| {
            let (received, made) = (received.clone(), made.clone());
            Box::pin(async move {
                let mut body = request.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    received.fetch_add(frame.data_ref().map_or(0, |data| data.len() as u64), SeqCst);
                }
                let mut response = text_of(StatusCode::OK, "");
                let piece = Bytes::from(vec![b'd'; PIECE]);
                let pieces = stream::iter(0..LENGTH / PIECE as u64).map(move |_| {
                    made.fetch_add(PIECE as u64, SeqCst);
                    Ok::<_, std::io::Error>(Frame::data(piece.clone()))
                });
                *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
                response
            })
        });
        let config = world.authorities.config(&["api.test"], Flaw::None, &[protocol]);
        let server = world.server(server.tls(config)).await;
        let stream =
            world.line().connect("api.test", server.port()).await.tls("api.test", &[protocol]).await.expect("TLS");
        let piece = Bytes::from(vec![b'u'; PIECE]);
        let (most, arrived) = (Arc::new(AtomicU64::new(0)), up.clone());
        let highest = most.clone();
        let frames = stream::iter(1..=LENGTH / PIECE as u64).map(move |count| {
            highest.fetch_max(count * PIECE as u64 - arrived.load(SeqCst), SeqCst);
            Ok::<_, Infallible>(Frame::data(piece.clone()))
        });
        let request = Request::builder().method("POST").uri(format!("https://api.test:{}/", server.port()));
        let request = match protocol {
            "h2" => request,
            _ => Request::builder().method("POST").uri("/").header("host", "api.test"),
        };
        let request = request.body(StreamBody::new(frames).boxed_unsync()).expect("a request");
        let response = match protocol {
            "h2" => {
                let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream));
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(executor, io).await.expect("HTTP/2");
                tokio::spawn(connection);
                sender.send_request(request).await.expect("an answer")
            }
            _ => h1(stream).await.send_request(request).await.expect("an answer"),
        };
        assert_eq!(up.load(SeqCst), LENGTH, "{protocol}");
        let mut body = response.into_body();
        let (mut got, mut most_down) = (0, 0);
        while let Some(frame) = body.frame().await {
            got += frame.expect("a frame").data_ref().map_or(0, |data| data.len() as u64);
            most_down = most_down.max(down.load(SeqCst) - got);
        }
        assert!(got == LENGTH, "{protocol}: {got}");
        let held = (most.load(SeqCst), most_down);
        assert!(held.0 < HELD_MAX && held.1 < HELD_MAX, "{protocol}: {held:?} bytes were on their way");
    }
}
