//! Where names lead. Nothing here is let through by the operator unless a test says so.

use crate::world::*;
use loopd_domain::environment::Networking;
use loopd_domain::network::ConnectionOutcome;

/// The answer to a request in the clear to this host.
async fn asked(world: &World, host: &str) -> String {
    let text = format!("GET http://{host}/latest/meta-data HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    world.line().raw(text.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_the_internet_are_refused_by_whatever_name() {
    let mut world = World::with(&[]);
    let server = world.server(Server::echo()).await;
    let port = server.port();
    for (name, answer) in [
        ("metadata.test", "169.254.169.254"),
        ("aws6.test", "fd00:ec2::254"),
        ("loop.test", "127.0.0.1"),
        ("mapped.test", "::ffff:127.0.0.1"),
        ("nat64.test", "64:ff9b::7f00:1"),
        ("home.test", "192.168.1.1"),
        ("any.test", "0.0.0.0"),
    ] {
        world.names.answer(name, &[&[answer]]);
        let told = asked(&world, &format!("{name}:{port}")).await;
        assert!(told.starts_with("HTTP/1.1 403 ") && told.contains(answer), "{told}");
    }
    for host in ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:7f00:1]", "[::]", "0"] {
        let told = asked(&world, &format!("{host}:{port}")).await;
        assert!(told.starts_with("HTTP/1.1 403 "), "{host}: {told}");
    }
    assert_eq!(*server.connections.lock(), 0);
    assert!(world.reported.all(15).await.iter().all(|c| matches!(c.outcome, ConnectionOutcome::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_address_among_good_ones_is_enough() {
    let mut world = World::with(&[]);
    world.client.ports = vec![80];
    world.names.answer("both.test", &[&["93.184.216.34", "10.0.0.1"]]);
    let told = asked(&world, "both.test").await;
    assert!(told.starts_with("HTTP/1.1 403 ") && told.contains("10.0.0.1"), "{told}");
}

/// The name is resolved once: what was judged is what is dialled, whatever a second answer would say.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_its_mind_is_not_asked_again() {
    let mut world = World::with(&["127.0.0.2"]);
    let server = world.server(Server::echo()).await;
    world.names.answer("rebind.test", &[&["127.0.0.2"], &["127.0.0.1"]]);
    let told = asked(&world, &format!("rebind.test:{}", server.port())).await;
    assert!(told.starts_with("HTTP/1.1 502 "), "nobody listens at the address that was judged: {told}");
    assert_eq!((world.names.asked.lock().len(), *server.connections.lock()), (1, 0));
    let told = asked(&world, &format!("rebind.test:{}", server.port())).await;
    assert!(told.starts_with("HTTP/1.1 403 ") && told.contains("127.0.0.1"), "{told}");
    assert_eq!(*server.connections.lock(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_opens_one_service_and_no_other() {
    let mut world = World::with(&[]);
    let server = world.server(Server::echo()).await;
    let mut opened = World::with(&[&format!("db.internal:{}", server.port())]);
    opened.client.ports = world.client.ports.clone();
    let told = asked(&opened, &format!("db.internal:{}", server.port())).await;
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    let told = asked(&opened, &format!("other.internal:{}", server.port())).await;
    assert!(told.starts_with("HTTP/1.1 403 "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_the_programs_to_follow_and_is_judged_again() {
    let mut world = World::new();
    let server = world.server(Server::answering(|_| {
        Box::pin(async {
            let mut response = server::text_of(hyper::StatusCode::FOUND, "");
            let to = hyper::header::HeaderValue::from_static("http://169.254.169.254/latest/meta-data");
            response.headers_mut().insert("location", to);
            response
        })
    }));
    let server = server.await;
    let told = asked(&world, &format!("front.test:{}", server.port())).await;
    assert!(told.starts_with("HTTP/1.1 302 ") && told.contains("169.254.169.254"), "{told}");
    let told = asked(&world, "169.254.169.254").await;
    assert!(told.starts_with("HTTP/1.1 403 "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_resolved_or_reached_says_so() {
    let mut world = World::new();
    world.names.answer("gone.test", &[]);
    world.names.answer("empty.test", &[&[]]);
    world.client.ports = vec![1];
    for (host, said) in [("gone.test:1", "no such name"), ("empty.test:1", "no address"), ("closed.test:1", "refused")]
    {
        let told = asked(&world, host).await;
        assert!(told.starts_with("HTTP/1.1 502 ") && told.contains(said), "{told}");
    }
    assert!(world.reported.all(3).await.iter().all(|c| matches!(c.outcome, ConnectionOutcome::Failed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_allowed_is_not_even_resolved() {
    let mut world = World::new();
    world.limited(&["api.test"]);
    let told = asked(&world, "c2VjcmV0.evil.test").await;
    assert!(told.contains("is not in the environment's allowed_hosts; accepted: `api.test`"), "{told}");
    world.client.networking = Networking::None;
    let told = asked(&world, "api.test").await;
    assert!(told.contains("this environment has no network"), "{told}");
    assert!(world.names.asked.lock().is_empty(), "no query leaves");
}
