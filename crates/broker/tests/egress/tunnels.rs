//! Tunnels that are not read, and those that are refused.

use crate::world::server::Flaw;
use crate::world::*;
use loopd_broker::Egress;
use loopd_domain::limits::EGRESS_CONNECTIONS_PER_SESSION_MAX;
use loopd_domain::network::ConnectionOutcome;
use rustls::RootCertStore;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The server's own certificate is seen: nothing was opened.
#[tokio::test(flavor = "multi_thread")]
async fn tls_that_no_credential_names_is_not_opened() {
    let mut world = World::new();
    world.vault.hold(vec![token()]);
    let config = world.authorities.config(&["blind.test"], Flaw::None, &["http/1.1"]);
    let server = world.server(Server::echo().tls(config)).await;
    let mut roots = RootCertStore::empty();
    roots.add(world.authorities.root()).expect("a root");
    let line = world.line().connect("blind.test", server.port()).await;
    let stream = line.tls_with(roots, "blind.test", &["http/1.1"]).await.expect("TLS with the server itself");
    let mut sender = h1(stream).await;
    let sent = request("GET", "/", &[("host", "blind.test"), ("x", "1")], "");
    assert_eq!(body_of(sender.send_request(sent).await.expect("an answer")).await.status, 200);
    drop(sender);
    let report = world.reported.one().await;
    assert!(report.credentials.is_empty() && report.bytes_in > 500 && report.bytes_out > 200, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_may_end_its_half_first() {
    let mut world = World::new();
    let server = world.server(Server::scripted(|mut stream| {
        Box::pin(async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.expect("read");
            stream.write_all(format!("got {}", all.len()).as_bytes()).await.expect("sent");
        })
    }));
    let server = server.await;
    let mut stream = world.line().connect("raw.test", server.port()).await.stream;
    stream.write_all(&[7; 100_000]).await.expect("sent");
    stream.shutdown().await.expect("ended");
    let mut told = String::new();
    stream.read_to_string(&mut told).await.expect("read");
    assert_eq!(told, "got 100000");
    let report = world.reported.one().await;
    assert_eq!((&report.outcome, report.bytes_out), (&ConnectionOutcome::Done, 100_000));
    assert_eq!(report.bytes_in, "HTTP/1.1 200 Connection established\r\n\r\ngot 100000".len() as u64);
}

/// With credentials and a limited network, which would make the proxy look first.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_heard() {
    let mut world = World::new();
    world.vault.hold(vec![credential("PLACEHOLDERofall", "secretofall", None)]);
    world.limited(&["ssh.test"]);
    let server = world.server(Server::scripted(|mut stream| {
        Box::pin(async move {
            stream.write_all(b"SSH-2.0-test\r\n").await.expect("sent");
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.expect("read");
            stream.write_all(&word).await.expect("sent");
        })
    }));
    let server = server.await;
    let mut stream = world.line().connect("ssh.test", server.port()).await.stream;
    let mut banner = [0; 14];
    stream.read_exact(&mut banner).await.expect("a banner");
    stream.write_all(b"ping").await.expect("sent");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("read");
    assert_eq!((&banner[..], rest.as_str()), (b"SSH-2.0-test\r\n".as_slice(), "ping"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_inside_tls_and_in_the_clear() {
    let mut world = World::new();
    world.limited(&["api.test"]);
    for protocols in [["http/1.1"].as_slice(), &["h2", "http/1.1"], &[]] {
        let stream = world.line().connect("evil.test", 443).await.tls("evil.test", protocols).await.expect("TLS");
        let mut sender = h1(stream).await;
        let told = sender.send_request(request("GET", "/", &[("host", "evil.test")], "")).await.expect("an answer");
        let phrase = told.extensions().get::<hyper::ext::ReasonPhrase>().map(|phrase| phrase.as_bytes().to_vec());
        let phrase = String::from_utf8(phrase.expect("a reason")).expect("text");
        assert!(
            phrase.starts_with("Forbidden: host `evil.test` is not in the environment's allowed_hosts"),
            "{phrase}"
        );
        assert!(body_of(told).await.body.contains("accepted: `api.test`"));
    }
    let stream = world.line().connect("evil.test", 443).await.tls("evil.test", &["h2"]).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let told = world.line().connect("evil.test", 80).await.raw(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 403 Forbidden: host `evil.test`"), "{told}");
    let closed = world.line().connect("evil.test", 443).await.raw(b"\0\0\0\x01binary").await;
    assert_eq!(closed, "");
    drop(stream);
    assert!(world.reported.all(6).await.iter().all(|c| matches!(c.outcome, ConnectionOutcome::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_host_is_no_front_for_another() {
    let mut world = World::new();
    world.limited(&["api.test"]);
    let config = world.authorities.config(&["evil.test"], Flaw::None, &["http/1.1"]);
    let server = world.server(Server::echo().tls(config)).await;
    let stream = world.line().connect("api.test", server.port()).await.tls("evil.test", &[]).await.expect("our TLS");
    let told =
        h1(stream).await.send_request(request("GET", "/", &[("host", "evil.test")], "")).await.expect("an answer");
    let told = body_of(told).await;
    assert!(told.status == 403 && told.body.contains("TLS is for `evil.test`"), "{told:?}");
    // In the clear, by the Host header.
    let clear = world.server(Server::echo()).await;
    let line = world.line().connect("api.test", clear.port()).await;
    let told = line.raw(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 421 "), "{told}");
    assert_eq!((server.count(), clear.count()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_room_cannot_take_every_connection() {
    let mut world = World::new();
    let server = world.server(Server::scripted(|mut stream| {
        Box::pin(async move {
            let mut all = Vec::new();
            // It ends when the room's side does.
            let _ = stream.read_to_end(&mut all).await;
        })
    }));
    let server = server.await;
    let mut lines = Vec::new();
    for _ in 0..EGRESS_CONNECTIONS_PER_SESSION_MAX {
        lines.push(world.line().connect("raw.test", server.port()).await);
    }
    let told = world.line().raw(b"").await;
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("256 connections"), "{told}");
    let mut other = world.client.clone();
    other.session = loopd_domain::SessionId::parse("session", "sesn_2").expect("an id");
    let (mut room, stream) = tokio::io::duplex(1_024);
    let proxy = world.proxy.clone();
    tokio::spawn(async move { proxy.serve(Arc::new(other), Box::new(stream)).await });
    room.write_all(b"CONNECT raw.test:1 HTTP/1.1\r\n\r\n").await.expect("sent");
    let mut status = [0; 12];
    room.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200");
    let freed = lines.pop().expect("a line");
    drop(freed.stream);
    freed.serving.await.expect("served");
    world.line().connect("raw.test", server.port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cutting_a_connection_cuts_all_of_it_and_reports() {
    let mut world = World::new();
    world.vault.hold(vec![token()]);
    let config = world.authorities.config(&["api.test"], Flaw::None, &["h2"]);
    let (gone, ended) = tokio::sync::oneshot::channel::<()>();
    let gone = parking_lot::Mutex::new(Some(gone));
    let arrived = Arc::new(tokio::sync::Notify::new());
    let told = arrived.clone();
    let server = Server::answering(move |request| {
        let gone = gone.lock().take();
        told.notify_one();
        Box::pin(async move {
            // It never answers, and is dropped when its stream is reset.
            let _held = (request, gone);
            std::future::pending().await
        })
    });
    let server = world.server(server.tls(config)).await;
    let line = world.line().connect("api.test", server.port()).await;
    let (room, stream) = tokio::io::duplex(1 << 16);
    let (proxy, client) = (world.proxy.clone(), Arc::new(world.client.clone()));
    let serving = tokio::spawn(async move { proxy.serve(client, Box::new(stream)).await });
    drop(line.stream);
    let mut sender =
        Line::new(room, tokio::spawn(async {}), world.authority.pem()).https2("api.test", server.port()).await;
    let uri = format!("https://api.test:{}/", server.port());
    let asked = tokio::spawn(async move { sender.send_request(request("GET", &uri, &[], "")).await });
    arrived.notified().await;
    serving.abort();
    assert!(asked.await.expect("a task").is_err());
    assert!(ended.await.is_err(), "the other end saw it end");
    let all = world.reported.all(2).await;
    assert!(matches!(all.last().map(|c| &c.outcome), Some(ConnectionOutcome::Failed { .. })), "{all:?}");
}
