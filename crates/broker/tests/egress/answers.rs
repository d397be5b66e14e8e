//! Answers on their way in.

use crate::world::server::{Flaw, collect, full, text_of};
use crate::world::*;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Response, StatusCode};
use hyper_util::rt::TokioIo;
use loopd_domain::network::ConnectionOutcome;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

async fn serve(server: Server, protocol: &str) -> (World, Arc<Server>) {
    let mut world = World::new();
    world.vault.hold(vec![token()]);
    let config = world.authorities.config(&["api.test"], Flaw::None, &[protocol]);
    let server = world.server(server.tls(config)).await;
    (world, server)
}

fn ask() -> hyper::Request<http_body_util::Full<Bytes>> {
    request("GET", "/", &[("host", "api.test"), ("x-key", PLACEHOLDER)], "")
}

/// Each event is read before the next is sent.
#[tokio::test(flavor = "multi_thread")]
async fn events_pass_at_once() {
    let (events, source) = mpsc::channel::<Bytes>(1);
    let source = Mutex::new(Some(source));
    let server = Server::answering(move |_| {
        let source = source.lock().take().expect("one request");
        Box::pin(async move {
            let frames = stream::unfold(source, |mut source| async move {
                source.recv().await.map(|event| (Ok::<_, std::io::Error>(Frame::data(event)), source))
            });
            let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
            response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
            response
        })
    });
    let (world, server) = serve(server, "http/1.1").await;
    let mut sender = world.line().https("api.test", server.port()).await;
    let mut body = sender.send_request(ask()).await.expect("an answer").into_body();
    for n in 0..20 {
        // Its end might be the beginning of the secret, if it were not for what follows.
        let event = format!("data: {n} {SECRET} sk-reaX\n\n");
        events.send(Bytes::from(event.clone())).await.expect("sent");
        let expected = event.replace(SECRET, PLACEHOLDER);
        let mut got = String::new();
        while got.len() < expected.len() {
            let frame = body.frame().await.expect("more").expect("a frame");
            got += &String::from_utf8_lossy(frame.data_ref().expect("data"));
        }
        assert_eq!(got, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_bodies_and_trailers_are_masked() {
    for protocol in ["http/1.1", "h2"] {
        let server = Server::answering(|_| {
            Box::pin(async {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-message", format!("bad token {SECRET}").parse().expect("a value"));
                let halves = SECRET.split_at(5);
                let frames = [halves.0, halves.1, " and ", SECRET].map(|part| Ok(Frame::data(Bytes::from(part))));
                let frames = frames.into_iter().chain([Ok::<_, std::io::Error>(Frame::trailers(trailers))]);
                let mut response = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
                response.headers_mut().insert("x-echo", format!("<{SECRET}>").parse().expect("a value"));
                response.headers_mut().insert("trailer", HeaderValue::from_static("grpc-message"));
                response
            })
        });
        let (world, server) = serve(server, protocol).await;
        let response = match protocol {
            "h2" => {
                let uri = format!("https://api.test:{}/", server.port());
                let asked = request("GET", &uri, &[("x-key", PLACEHOLDER), ("te", "trailers")], "");
                world.line().https2("api.test", server.port()).await.send_request(asked).await
            }
            _ => {
                let asked = request("GET", "/", &[("host", "api.test"), ("te", "trailers")], "");
                world.line().https("api.test", server.port()).await.send_request(asked).await
            }
        };
        let response = response.expect("an answer");
        assert_eq!(response.headers()["x-echo"], format!("<{PLACEHOLDER}>"));
        let whole = response.into_body().collect().await.expect("a body");
        let trailers = whole.trailers().cloned().expect("trailers");
        assert_eq!(trailers["grpc-message"], format!("bad token {PLACEHOLDER}"), "{protocol}");
        assert_eq!(whole.to_bytes(), format!("{PLACEHOLDER} and {PLACEHOLDER}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_and_empty_answers_stay_right() {
    let server = Server::answering(|request| {
        Box::pin(async move {
            let seen = collect(request).await;
            match (seen.method.as_str(), seen.target.as_str()) {
                ("HEAD", _) => {
                    let mut response = text_of(StatusCode::OK, "");
                    response.headers_mut().insert("content-length", HeaderValue::from_static("1234"));
                    response
                }
                (_, "/none") => text_of(StatusCode::NO_CONTENT, ""),
                (_, "/same") => text_of(StatusCode::NOT_MODIFIED, ""),
                _ => text_of(StatusCode::OK, format!("{SECRET}!")),
            }
        })
    });
    let (world, server) = serve(server, "http/1.1").await;
    for secret in [SECRET, "sk-real-0123456789"] {
        world.vault.hold(vec![credential(PLACEHOLDER, secret, Some(&["api.test"]))]);
        let mut sender = world.line().https("api.test", server.port()).await;
        for (method, target, status, length) in
            [("HEAD", "/", 200, "1234"), ("GET", "/none", 204, ""), ("GET", "/same", 304, "")]
        {
            sender.ready().await.expect("ready");
            let told =
                sender.send_request(request(method, target, &[("host", "api.test")], "")).await.expect("an answer");
            let told = body_of(told).await;
            let sent_length = told.headers.get("content-length").map_or("", |value| value.to_str().expect("text"));
            assert_eq!((told.status, sent_length, told.body.as_str()), (status, length, ""), "{method} {target}");
        }
        sender.ready().await.expect("ready");
        let told = body_of(sender.send_request(ask()).await.expect("an answer")).await;
        assert_eq!(told.body, format!("{SECRET}!").replace(secret, PLACEHOLDER));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_of_protocol_bytes_pass_both_ways() {
    let server = Server::answering(|mut request| {
        Box::pin(async move {
            assert_eq!(request.headers()["x-key"], SECRET);
            assert_eq!(request.headers()["upgrade"], "websocket");
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.expect("an upgrade"));
                let mut word = [0; 4];
                io.read_exact(&mut word).await.expect("read");
                io.write_all(&word.map(|byte| byte.to_ascii_uppercase())).await.expect("sent");
                io.shutdown().await.expect("ended");
            });
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
            response.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
            response
        })
    });
    let (world, server) = serve(server, "http/1.1").await;
    let mut sender = world.line().https("api.test", server.port()).await;
    let headers = [("host", "api.test"), ("x-key", PLACEHOLDER), ("connection", "Upgrade"), ("upgrade", "websocket")];
    let mut response = sender.send_request(request("GET", "/", &headers, "")).await.expect("an answer");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["upgrade"]),
        (101, &HeaderValue::from_static("websocket"))
    );
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.expect("an upgrade"));
    io.write_all(b"ping").await.expect("sent");
    let mut word = String::new();
    io.read_to_string(&mut word).await.expect("read");
    assert_eq!(word, "PING");
    drop((io, sender));
    let report = world.reported.one().await;
    assert_eq!((report.outcome, report.credentials.len()), (ConnectionOutcome::Done, 1));
}

/// A program that does not read holds back the other end, not the proxy's memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_the_other_end() {
    const PIECE: usize = 64 << 10;
    let made = Arc::new(Mutex::new(0_usize));
    let count = made.clone();
    let server = Server::answering(move |_| {
        let count = count.clone();
        Box::pin(async move {
            let frames = stream::repeat_with(move || {
                *count.lock() += PIECE;
                Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; PIECE])))
            });
            Response::new(StreamBody::new(frames.take(4_096)).boxed_unsync())
        })
    });
    let (world, server) = serve(server, "http/1.1").await;
    let mut sender = world.line().https("api.test", server.port()).await;
    let mut body = sender.send_request(ask()).await.expect("an answer").into_body();
    let mut got = 0;
    while let Some(frame) = body.frame().await {
        got += frame.expect("a frame").data_ref().map_or(0, Bytes::len);
        let ahead = *made.lock() - got;
        assert!(ahead < 24 << 20, "{ahead} bytes were made and not read");
        tokio::task::yield_now().await;
    }
    assert_eq!(got, 4_096 * PIECE);
}

/// The other end closes an idle connection; the room's stays, and the next request finds a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_closed_between_two_requests_is_made_again() {
    let server = Server::answering(|_| {
        Box::pin(async {
            let mut response = text_of(StatusCode::OK, "ok");
            response.headers_mut().insert("connection", HeaderValue::from_static("close"));
            response
        })
    });
    let (world, server) = serve(server, "http/1.1").await;
    let mut sender = world.line().https("api.test", server.port()).await;
    for _ in 0..5 {
        sender.ready().await.expect("ready");
        let told = body_of(sender.send_request(ask()).await.expect("an answer")).await;
        assert_eq!((told.status, told.body.as_str()), (200, "ok"));
    }
    assert_eq!(*server.connections.lock(), 5);
    assert_eq!(world.names.asked.lock().len(), 1, "the address is the one that was judged");
}

/// The other end says goodbye after its first answer, as HTTP/2 does; the room's connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_connection_that_says_goodbye_is_made_again() {
    let mut world = World::new();
    world.vault.hold(vec![token()]);
    let config = world.authorities.config(&["api.test"], Flaw::None, &["h2"]);
    let server = Server::scripted(move |stream| {
        let config = config.clone();
        Box::pin(async move {
            let stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await.expect("TLS");
            let answered = Arc::new(tokio::sync::Notify::new());
            let told = answered.clone();
            let service = hyper::service::service_fn(move |_| {
                told.notify_one();
                async { Ok::<_, std::convert::Infallible>(text_of(StatusCode::OK, "ok")) }
            });
            let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                _ = connection.as_mut() => return,
                () = answered.notified() => connection.as_mut().graceful_shutdown(),
            }
            // How it ends is the other side's to say.
            let _ = connection.await;
        })
    });
    let server = world.server(server).await;
    let mut sender = world.line().https2("api.test", server.port()).await;
    let uri = format!("https://api.test:{}/", server.port());
    for _ in 0..5 {
        let asked = request("GET", &uri, &[("x-key", PLACEHOLDER)], "");
        let told = body_of(sender.send_request(asked).await.expect("an answer")).await;
        assert_eq!((told.status, told.body.as_str()), (200, "ok"));
    }
    assert!(*server.connections.lock() > 1);
}
