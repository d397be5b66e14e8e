//! Requests in the clear, addressed to the proxy or within a tunnel.

use crate::world::*;
use loopd_domain::network::ConnectionOutcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn several_hosts_on_one_connection_are_several_reports() {
    let mut world = World::new();
    let (one, two) = (world.server(Server::echo()).await, world.server(Server::echo()).await);
    let mut sender = h1(world.line().stream).await;
    for (name, server) in [("one.test", &one), ("one.test", &one), ("two.test", &two)] {
        let uri = format!("http://{name}:{}/x?y=1", server.port());
        let headers =
            [("host", "ignored.test"), ("proxy-connection", "keep-alive"), ("proxy-authorization", "Basic eA==")];
        sender.ready().await.expect("ready");
        let told =
            body_of(sender.send_request(request("POST", &uri, &headers, "hello")).await.expect("an answer")).await;
        assert_eq!(told.status, 200);
        let seen = server.last();
        assert_eq!(seen.header("host"), format!("{name}:{}", server.port()));
        assert_eq!((seen.target.as_str(), seen.body.as_slice()), ("/x?y=1", b"hello".as_slice()));
        assert!(seen.headers.get("proxy-authorization").is_none() && seen.headers.get("proxy-connection").is_none());
    }
    let all = world.reported.all(3).await;
    assert_eq!(all.iter().map(|c| c.host.as_str()).collect::<Vec<_>>(), ["one.test", "one.test", "two.test"]);
    assert!(all.iter().all(|c| c.outcome == ConnectionOutcome::Done && c.bytes_out > 50 && c.bytes_in > 50), "{all:?}");
    assert_eq!(*one.connections.lock(), 1, "a connection is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_never_sent_in_the_clear() {
    let mut world = World::new();
    world.vault.hold(vec![token()]);
    let server = world.server(Server::echo()).await;
    let port = server.port();
    for (headers, target, body) in [
        (format!("X-Key: {PLACEHOLDER}\r\n"), "/".to_owned(), String::new()),
        (String::new(), format!("/?{PLACEHOLDER}"), String::new()),
        (String::new(), "/".to_owned(), format!("k={PLACEHOLDER}")),
    ] {
        let length = body.len();
        let tail = format!("Host: api.test:{port}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        let direct = format!("POST http://api.test:{port}{target} HTTP/1.1\r\n{tail}");
        let told = world.line().raw(direct.as_bytes()).await;
        assert!(told.starts_with("HTTP/1.1 403 ") && told.contains("accepted: https://api.test"), "{told}");
        let within = format!("POST {target} HTTP/1.1\r\n{tail}");
        let told = world.line().connect("api.test", port).await.raw(within.as_bytes()).await;
        assert!(told.starts_with("HTTP/1.1 403 ") && told.contains("accepted: https://api.test"), "{told}");
    }
    assert_eq!(world.book.uses(), 0);
    assert!(server.seen.lock().iter().all(|seen| !format!("{seen:?}").contains(PLACEHOLDER)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_in_the_clear_to_another_host_is_a_violation() {
    let mut world = World::new();
    world.vault.hold(vec![token()]);
    let server = world.server(Server::echo()).await;
    let port = server.port();
    let head = format!("Host: other.test:{port}\r\nX-Key: {PLACEHOLDER}\r\n\r\n");
    let told = world.line().raw(format!("GET http://other.test:{port}/ HTTP/1.1\r\n{head}").as_bytes()).await;
    assert!(told.starts_with("HTTP/1.1 403 "), "{told}");
    let told = world.line().connect("other.test", port).await.raw(format!("GET / HTTP/1.1\r\n{head}").as_bytes()).await;
    assert!(told.starts_with("HTTP/1.1 403 "), "{told}");
    assert!(world.reported.all(2).await.iter().all(|c| matches!(c.outcome, ConnectionOutcome::Violation { .. })));
    assert_eq!((world.book.refusals(), server.count()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_to_a_proxy_is_told_so() {
    let world = World::new();
    for (text, status) in [
        ("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n", 400),
        ("GET https://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n", 400),
        ("GET ftp://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n", 400),
        ("GET http://user:pass@api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n", 400),
        ("GET http://api.test:0/ HTTP/1.1\r\nHost: api.test\r\n\r\n", 400),
        ("GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nA: b\r\n folded\r\n\r\n", 400),
        ("GET http://api.test/ HTTP/1.1\r\nHost : api.test\r\n\r\n", 400),
        ("POST http://api.test/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        ("POST http://api.test/ HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        ("CONNECT api.test HTTP/1.1\r\n\r\n", 400),
        ("CONNECT user@api.test:443 HTTP/1.1\r\n\r\n", 400),
        ("CONNECT api.test:443 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        ("hello\r\n\r\n", 400),
    ] {
        let told = world.line().raw(text.as_bytes()).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{text:?}: {told:?}");
    }
    assert!(world.names.asked.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_cut() {
    for start in ["CONNECT api.test:443 HTTP/1.1\r\n", "GET http://api.test/ HTTP/1.1\r\n"] {
        let world = World::new();
        let mut stream = world.line().stream;
        stream.write_all(start.as_bytes()).await.expect("sent");
        let line = format!("X-Filler: {}\r\n", "x".repeat(1_000));
        let mut sent = 0;
        while stream.write_all(line.as_bytes()).await.is_ok() {
            sent += line.len();
            assert!(sent < 1 << 20, "it takes a head without end");
        }
        let mut told = Vec::new();
        // A connection that was closed with bytes on their way may have lost its answer.
        if stream.read_to_end(&mut told).await.is_ok() && !told.is_empty() {
            let told = String::from_utf8_lossy(&told).into_owned();
            assert!(told.starts_with("HTTP/1.1 4"), "{told}");
        }
    }
}

/// A request that two servers could read differently leaves with one meaning.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_lengths_leaves_with_one() {
    let mut world = World::new();
    let server = world.server(Server::echo()).await;
    let port = server.port();
    for order in
        ["Content-Length: 30\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 30\r\n"]
    {
        let smuggled = "GET http://evil.test/ HTTP/1.1\r\n\r\n";
        let text = format!(
            "POST http://api.test:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{order}\r\n0\r\n\r\n{smuggled}"
        );
        let told = world.line().raw(text.as_bytes()).await;
        assert_eq!(told.matches("HTTP/1.1 ").count(), 1 + told.matches("POST / HTTP/1.1 ").count(), "{told}");
        let seen = server.last();
        assert_eq!((seen.method.as_str(), seen.body.len()), ("POST", 0));
        let lengths = ["content-length", "transfer-encoding"].iter().filter(|name| seen.headers.contains_key(**name));
        assert!(lengths.count() <= 1, "{seen:?}");
    }
    assert!(server.seen.lock().iter().all(|seen| seen.method == "POST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_in_the_clear_is_read_too() {
    let mut world = World::new();
    world.vault.hold(vec![token()]);
    let server = world.server(Server::echo()).await;
    let stream = world.line().connect("other.test", server.port()).await.stream;
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.expect("HTTP/2");
    tokio::spawn(connection);
    let uri = format!("http://other.test:{}/", server.port());
    let told = body_of(sender.send_request(request("GET", &uri, &[], "")).await.expect("an answer")).await;
    assert_eq!((told.status, server.last().version), (200, hyper::Version::HTTP_2));
    let told =
        body_of(sender.send_request(request("GET", &uri, &[("x", PLACEHOLDER)], "")).await.expect("an answer")).await;
    assert_eq!((told.status, server.count()), (403, 1));
}
