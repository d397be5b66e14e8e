//! TLS that is opened because a credential names the host.

use crate::world::server::Flaw;
use crate::world::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use loopd_broker::credentials::Placement;
use loopd_domain::CallId;
use loopd_domain::audit::{Actor, AuditResult};
use loopd_domain::network::ConnectionOutcome;

async fn api(world: &mut World) -> std::sync::Arc<Server> {
    world.vault.hold(vec![token()]);
    let config = world.authorities.config(&["api.test"], Flaw::None, &["h2", "http/1.1"]);
    world.server(Server::echo().tls(config)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_placed_and_does_not_come_back() {
    let mut world = World::new();
    let server = api(&mut world).await;
    let call = CallId::parse("call", "sevt_1").expect("an id");
    world.client.running.set(vec![call.clone()]);
    let mut sender = world.line().https("api.test", server.port()).await;
    let basic = STANDARD.encode(format!("git:{PLACEHOLDER}"));
    let told = sender
        .send_request(request(
            "POST",
            &format!("/v1/x?key={PLACEHOLDER}"),
            &[
                ("host", &format!("api.test:{}", server.port())),
                ("x-key", &format!("Bearer {PLACEHOLDER}")),
                ("authorization", &format!("Basic {basic}")),
                ("accept-encoding", "gzip"),
                ("proxy-connection", "keep-alive"),
            ],
            &format!("{{\"token\":\"{PLACEHOLDER}\"}}"),
        ))
        .await
        .expect("an answer");
    let told = body_of(told).await;
    let seen = server.last();
    assert_eq!(told.status, 200);
    assert_eq!(seen.header("x-key"), format!("Bearer {SECRET}"));
    assert_eq!(seen.header("authorization"), format!("Basic {}", STANDARD.encode(format!("git:{SECRET}"))));
    assert_eq!(seen.target, format!("/v1/x?key={SECRET}"));
    assert_eq!(String::from_utf8_lossy(&seen.body), format!("{{\"token\":\"{SECRET}\"}}"));
    assert_eq!(seen.header("accept-encoding"), "identity");
    assert_eq!(seen.header("content-length"), seen.body.len().to_string());
    assert_eq!(seen.header("proxy-connection"), "");
    assert!(
        !told.body.contains(SECRET) && !told.body.contains(&STANDARD.encode(format!("git:{SECRET}"))),
        "{}",
        told.body
    );
    assert!(told.body.contains(&basic) && told.body.contains(PLACEHOLDER), "{}", told.body);

    drop(sender);
    let report = world.reported.one().await;
    assert_eq!((report.host.as_str(), report.port), ("api.test", server.port()));
    assert_eq!((&report.outcome, report.credentials.len()), (&ConnectionOutcome::Done, 1));
    assert!(report.bytes_out > 300 && report.bytes_in > 300, "{report:?}");
    let entries = world.book.entries.lock();
    assert!(entries.iter().all(|entry| {
        let used = entry.credential_use.as_ref().expect("a use");
        entry.action == "credentials.use"
            && entry.actor == Actor::Session { id: world.client.session.clone() }
            && (used.host.as_str(), used.port) == ("api.test", server.port())
            && used.calls == [call.clone()]
    }));
    assert!(!format!("{entries:?}").contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_on_both_sides() {
    let mut world = World::new();
    let server = api(&mut world).await;
    let sender = world.line().https2("api.test", server.port()).await;
    let uri = format!("https://api.test:{}/a", server.port());
    let ask = |n: usize| {
        let (mut sender, uri) = (sender.clone(), uri.clone());
        async move {
            let body = format!("{n} {PLACEHOLDER}");
            let answer = sender.send_request(request("POST", &uri, &[("x-key", PLACEHOLDER)], &body)).await;
            body_of(answer.expect("an answer")).await
        }
    };
    let told = futures_util::future::join_all((0..20).map(ask)).await;
    assert!(told.iter().all(|told| told.status == 200 && !told.body.contains(SECRET)));
    assert_eq!((server.count(), *server.connections.lock()), (20, 1));
    for seen in server.seen.lock().iter() {
        assert_eq!((seen.version, seen.header("x-key")), (hyper::Version::HTTP_2, SECRET));
        assert!(String::from_utf8_lossy(&seen.body).ends_with(SECRET));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_and_archiving_reach_a_connection_that_is_open() {
    let mut world = World::new();
    let server = api(&mut world).await;
    let mut sender = world.line().https("api.test", server.port()).await;
    let host = format!("api.test:{}", server.port());
    let ask = || request("GET", "/", &[("host", &host), ("x-key", PLACEHOLDER)], "");
    let mut seen = Vec::new();
    for secret in [Some("first-secret-value"), Some("second, and longer"), None] {
        world.vault.hold(secret.iter().map(|s| credential(PLACEHOLDER, s, Some(&["api.test"]))).collect());
        sender.ready().await.expect("ready");
        body_of(sender.send_request(ask()).await.expect("an answer")).await;
        seen.push(server.last().header("x-key").to_owned());
    }
    assert_eq!(seen, ["first-secret-value", "second, and longer", PLACEHOLDER]);
    assert_eq!(*server.connections.lock(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_on_its_way_elsewhere_is_a_violation() {
    let basic = format!("Basic {}", STANDARD.encode(format!(":{PLACEHOLDER}")));
    for (target, name, value, body) in [
        ("/", "x-key", PLACEHOLDER, ""),
        ("/", "authorization", basic.as_str(), ""),
        ("/?k=PHq7RzT2mK9xWv4LbN8cYd1e", "x", "", ""),
        ("/", "x", "", "a body with PHq7RzT2mK9xWv4LbN8cYd1e in it"),
    ] {
        let mut world = World::new();
        world.vault.hold(vec![token(), credential("OTHERplaceholder", "other-secret", Some(&["other.test"]))]);
        let config = world.authorities.config(&["other.test"], Flaw::None, &["http/1.1"]);
        let server = world.server(Server::echo().tls(config)).await;
        let mut sender = world.line().https("other.test", server.port()).await;
        let headers = [("host", "other.test"), (name, value)];
        let told =
            body_of(sender.send_request(request("POST", target, &headers, body)).await.expect("an answer")).await;
        assert_eq!(told.status, 403, "{told:?}");
        assert!(told.body.contains("`TOKEN`") && told.body.contains("accepted: `api.test`"), "{told:?}");
        assert!(server.seen.lock().iter().all(|seen| !format!("{seen:?}").contains(PLACEHOLDER)));
        drop(sender);
        assert!(matches!(world.reported.outcome().await, ConnectionOutcome::Violation { .. }));
        let entries = world.book.entries.lock();
        assert!(matches!(&entries[..], [entry] if matches!(entry.result, AuditResult::Refused { .. })), "{entries:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_placement_leaves_a_part_out_the_placeholder_passes() {
    let mut world = World::new();
    let server = api(&mut world).await;
    for (headers, body) in [(true, false), (false, true)] {
        let placement = Placement::Anywhere { headers, body };
        world.vault.hold(vec![loopd_broker::BoundCredential { placement, ..token() }]);
        let mut sender = world.line().https("api.test", server.port()).await;
        let sent = request("POST", "/", &[("host", "api.test"), ("x-key", PLACEHOLDER)], PLACEHOLDER);
        assert_eq!(body_of(sender.send_request(sent).await.expect("an answer")).await.status, 200);
        let seen = server.last();
        assert_eq!(seen.header("x-key"), if headers { SECRET } else { PLACEHOLDER });
        assert_eq!(String::from_utf8_lossy(&seen.body), if body { SECRET } else { PLACEHOLDER });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_stay_with_the_host_of_their_connection() {
    let mut world = World::new();
    let server = api(&mut world).await;
    for (host, status) in [("evil.test", 421), ("u:p@api.test", 400)] {
        let mut sender = world.line().https("api.test", server.port()).await;
        let told = sender.send_request(request("GET", "/", &[("host", host), ("x-key", PLACEHOLDER)], "")).await;
        assert_eq!(body_of(told.expect("an answer")).await.status, status, "{host}");
    }
    // The name in the hello is another.
    let stream =
        world.line().connect("api.test", server.port()).await.tls("evil.test", &["http/1.1"]).await.expect("TLS");
    let told = h1(stream).await.send_request(request("GET", "/", &[("host", "evil.test")], "")).await;
    let told = body_of(told.expect("an answer")).await;
    assert_eq!((told.status, told.body.contains("`evil.test`")), (403, true), "{told:?}");
    assert_eq!((server.count(), world.book.uses()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_is_told_and_nothing_is_sent() {
    for (flaw, said) in
        [(Flaw::Stranger, "UnknownIssuer"), (Flaw::Expired, "expired"), (Flaw::Name, "not valid for name")]
    {
        let mut world = World::new();
        world.vault.hold(vec![token()]);
        let config = world.authorities.config(&["api.test"], flaw, &["http/1.1"]);
        let server = world.server(Server::echo().tls(config)).await;
        let mut sender = world.line().https("api.test", server.port()).await;
        let told = sender.send_request(request("GET", "/", &[("host", "api.test"), ("x-key", PLACEHOLDER)], "")).await;
        let told = body_of(told.expect("an answer")).await;
        assert_eq!(told.status, 502);
        assert!(told.body.contains(said), "{flaw:?}: {}", told.body);
        drop(sender);
        assert!(matches!(world.reported.outcome().await, ConnectionOutcome::Failed { .. }));
        assert_eq!((server.count(), world.book.uses()), (0, 0));
    }
}
