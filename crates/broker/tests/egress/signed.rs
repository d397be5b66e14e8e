//! AWS signatures: curl signs with the placeholder, the other end checks with the secret.

use crate::world::server::{Flaw, Seen};
use crate::world::*;
use aws_lc_rs::{digest, hmac};
use loopd_broker::BoundCredential;
use loopd_broker::credentials::Placement;
use loopd_domain::network::ConnectionOutcome;
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::Command;

const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The signature as the service would make it, from what arrived. Written for itself, apart from the broker's.
fn expected(seen: &Seen, secret: &str) -> (String, String) {
    let authorization = seen.header("authorization");
    let field = |name: &str| {
        let at = authorization.find(&format!("{name}=")).expect("a field") + name.len() + 1;
        authorization[at..].split([',', ' ']).next().expect("a value").to_owned()
    };
    let (credential, names, signature) = (field("Credential"), field("SignedHeaders"), field("Signature"));
    let scope: Vec<&str> = credential.split('/').skip(1).collect();
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let headers: String = names.split(';').map(|name| format!("{name}:{}\n", seen.header(name).trim())).collect();
    let body_hash = hex(digest::digest(&digest::SHA256, &seen.body).as_ref());
    let request = format!("{}\n{path}\n{query}\n{headers}\n{names}\n{body_hash}", seen.method);
    let request_hash = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{}\n{}\n{request_hash}", seen.header("x-amz-date"), scope.join("/"));
    let sign =
        |key: &[u8], data: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes()).as_ref().to_vec();
    let key = scope.iter().fold(format!("AWS4{secret}").into_bytes(), |key, part| sign(&key, part));
    (signature, hex(&sign(&key, &text)))
}

async fn world(hosts: &[&str]) -> (World, Arc<Server>) {
    let mut world = World::new();
    let placement = Placement::AwsSignature { access_key_id: KEY_ID.to_owned() };
    world.vault.hold(vec![
        BoundCredential { placement, ..credential(PLACEHOLDER, SECRET, Some(hosts)) },
        credential("ANOTHERplaceholder", "another", Some(&["s3.test"])),
    ]);
    let config = world.authorities.config(&["s3.test"], Flaw::None, &["http/1.1"]);
    let server = world.server(Server::echo().tls(config)).await;
    (world, server)
}

async fn curl(world: &World, server: &Server, key: &str, body: &str) -> Option<String> {
    let hash = hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref());
    curl_stating(world, server, key, body, &hash).await
}

/// What is `stated` of the body goes into the signature.
async fn curl_stating(world: &World, server: &Server, key: &str, body: &str, stated: &str) -> Option<String> {
    let outlet = world.port().await;
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--proxy", &outlet.address(), "--aws-sigv4", "aws:amz:eu-west-1:sqs"]).arg("--cacert");
    curl.arg(world.certificate()).args(["--user", &format!("{KEY_ID}:{key}"), "-H", "X-Amz-Test: 1"]);
    if !body.is_empty() {
        curl.args(["-d", body, "-H", &format!("x-amz-content-sha256: {stated}")]);
    }
    curl.arg(format!("https://s3.test:{}/a/b?x=1&y=2", server.port())).stdin(Stdio::null()).kill_on_drop(true);
    match curl.output().await {
        Ok(done) => Some(String::from_utf8_lossy(&done.stdout).into_owned()),
        Err(_) => {
            skip("`curl` is not installed");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_curl_signed_arrives_with_the_real_signature() {
    for body in ["", "Action=ListQueues"] {
        let (world, server) = world(&["s3.test"]).await;
        let Some(told) = curl(&world, &server, PLACEHOLDER, body).await else { return };
        assert_eq!(server.count(), 1, "{told}");
        let (sent, expected) = expected(&server.last(), SECRET);
        assert_eq!(sent, expected, "{:?}", server.last());
        assert_eq!(world.book.uses(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_under_another_key_is_not_made_good() {
    let (world, server) = world(&["s3.test"]).await;
    let Some(told) = curl(&world, &server, "some other key", "").await else { return };
    assert!(told.contains("not made with the placeholder"), "{told}");
    assert_eq!((server.count(), world.book.uses()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_to_another_host_is_a_violation() {
    let (world, server) = world(&["elsewhere.test"]).await;
    let Some(told) = curl(&world, &server, PLACEHOLDER, "").await else { return };
    assert!(told.contains("accepted: `elsewhere.test`"), "{told}");
    assert_eq!((server.count(), world.book.refusals()), (0, 1));
    assert!(matches!(world.reported.outcome().await, ConnectionOutcome::Violation { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_chunks_cannot_be_signed_again_is_refused_by_name() {
    let (world, server) = world(&["s3.test"]).await;
    let streaming = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER";
    let Some(told) = curl_stating(&world, &server, PLACEHOLDER, "0\r\n\r\n", streaming).await else { return };
    assert!(told.contains(&format!("its payload `{streaming}` is not supported; accepted: a hash")), "{told}");
    assert_eq!((server.count(), world.book.uses()), (0, 0));
}
