//! Neighbours that fail: then nothing is sent.

use crate::world::server::Flaw;
use crate::world::*;
use loopd_domain::network::ConnectionOutcome;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn world() -> (World, Arc<Server>) {
    let mut world = World::new();
    world.vault.hold(vec![token()]);
    let config = world.authorities.config(&["api.test"], Flaw::None, &["h2", "http/1.1"]);
    let server = world.server(Server::echo().tls(config)).await;
    (world, server)
}

fn ask() -> hyper::Request<http_body_util::Full<bytes::Bytes>> {
    request("POST", "/", &[("host", "api.test"), ("x-key", PLACEHOLDER)], "body")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_audit_log_no_secret_is_used() {
    for (headers, body) in [(vec![("x-key", PLACEHOLDER)], ""), (vec![], PLACEHOLDER)] {
        let (world, server) = world().await;
        world.book.fail();
        let mut sender = world.line().https("api.test", server.port()).await;
        let headers: Vec<(&str, &str)> = headers.into_iter().chain([("host", "api.test")]).collect();
        let told = body_of(sender.send_request(request("POST", "/", &headers, body)).await.expect("an answer")).await;
        assert!(told.status == 502 && told.body.contains("the disk is full"), "{told:?}");
        assert!(server.seen.lock().iter().all(|seen| !format!("{seen:?}").contains(SECRET)));
        drop(sender);
        let report = world.reported.one().await;
        assert!(matches!(report.outcome, ConnectionOutcome::Failed { .. }) && report.credentials.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_audit_log_what_uses_no_secret_goes_on() {
    let (world, server) = world().await;
    world.book.fail();
    let mut sender = world.line().https("api.test", server.port()).await;
    let told = sender.send_request(request("GET", "/", &[("host", "api.test")], "")).await.expect("an answer");
    assert_eq!(body_of(told).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_violation_is_blocked_even_when_it_cannot_be_written_down() {
    let (world, server) = world().await;
    world.vault.hold(vec![
        credential(PLACEHOLDER, SECRET, Some(&["other.test"])),
        credential("Z2345678", "z", Some(&["api.test"])),
    ]);
    world.book.fail();
    let mut sender = world.line().https("api.test", server.port()).await;
    assert_eq!(body_of(sender.send_request(ask()).await.expect("an answer")).await.status, 403);
    assert_eq!(server.count(), 0);
    drop(sender);
    assert!(matches!(world.reported.outcome().await, ConnectionOutcome::Violation { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_vault_nothing_leaves() {
    let (world, server) = world().await;
    // Already open: the next request is stopped.
    let mut sender = world.line().https("api.test", server.port()).await;
    world.vault.fail();
    let told = body_of(sender.send_request(ask()).await.expect("an answer")).await;
    assert!(told.status == 502 && told.body.contains("the vault is closed"), "{told:?}");
    // Not yet: it is not known whether it must be opened, so it is not tunnelled either.
    let mut sender = world.line().https("api.test", server.port()).await;
    let told = body_of(sender.send_request(ask()).await.expect("an answer")).await;
    assert!(told.status == 502 && told.body.contains("the vault is closed"), "{told:?}");
    assert_eq!((server.count(), world.book.uses()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_header_cannot_carry_is_not_sent() {
    let (world, server) = world().await;
    world.vault.hold(vec![credential(PLACEHOLDER, "line\r\nx-evil: 1", Some(&["api.test"]))]);
    let mut sender = world.line().https("api.test", server.port()).await;
    let told = body_of(sender.send_request(ask()).await.expect("an answer")).await;
    assert!(told.status == 403 && told.body.contains("a header cannot carry"), "{told:?}");
    assert_eq!(server.count(), 0);
}

/// What the other end does wrong is told as what it is.
#[tokio::test(flavor = "multi_thread")]
async fn another_end_that_misbehaves() {
    let bad: [(&str, &[u8]); 4] = [
        ("closes at once", b""),
        ("speaks garbage", b"\x00\x01 what is this\r\n\r\n"),
        ("breaks off in its head", b"HTTP/1.1 200 OK\r\nContent-Le"),
        ("has a head without end", b"HTTP/1.1 200 OK\r\nX: "),
    ];
    for (what, bytes) in bad {
        let (mut world, _) = world().await;
        let config = world.authorities.config(&["api.test"], Flaw::None, &["http/1.1"]);
        let endless = what.ends_with("without end");
        let server = Server::scripted(move |stream| {
            let config = config.clone();
            Box::pin(async move {
                let acceptor = tokio_rustls::TlsAcceptor::from(config);
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut some = [0; 1_024];
                let _ = stream.read(&mut some).await;
                let _ = stream.write_all(bytes).await;
                while endless && stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
                let _ = stream.shutdown().await;
            })
        });
        let server = world.server(server).await;
        let mut sender = world.line().https("api.test", server.port()).await;
        let told = body_of(sender.send_request(ask()).await.expect("an answer")).await;
        assert!(told.status == 502 && told.body.contains("`api.test` did not answer"), "{what}: {told:?}");
        drop(sender);
        assert!(matches!(world.reported.outcome().await, ConnectionOutcome::Failed { .. }), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_breaks_off_in_the_room_too() {
    let (mut world, _) = world().await;
    let config = world.authorities.config(&["api.test"], Flaw::None, &["http/1.1"]);
    // A head that breaks off together with its body may not be seen at all.
    let head_seen = Arc::new(tokio::sync::Notify::new());
    let may_end = Arc::clone(&head_seen);
    let server = Server::scripted(move |stream| {
        let (config, may_end) = (config.clone(), Arc::clone(&may_end));
        Box::pin(async move {
            let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else { return };
            let mut some = [0; 1_024];
            let _ = stream.read(&mut some).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this").await;
            let _ = stream.flush().await;
            may_end.notified().await;
        })
    });
    let server = world.server(server).await;
    let mut sender = world.line().https("api.test", server.port()).await;
    let response = sender.send_request(ask()).await.expect("a head");
    assert_eq!(response.status(), 200);
    head_seen.notify_one();
    assert!(http_body_util::BodyExt::collect(response.into_body()).await.is_err(), "half a body is not a body");
    assert!(matches!(world.reported.outcome().await, ConnectionOutcome::Failed { .. }));
}
