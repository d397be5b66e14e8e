//! Rooms that are made of an image or a directory: asked for through the interface, used by tools, refused when they cannot be.

use loopd_tests::http::text;
use loopd_tests::index::Index;
use loopd_tests::script::{runs, says, script};
use loopd_tests::server::Options;
use loopd_tests::{Http, Server, archive, root};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// What a shell tool needs, as on this machine.
const PROGRAMS: [&str; 3] = ["/usr/bin/bash", "/usr/bin/cat", "/usr/bin/ls"];

/// A server that allows one directory, and that directory.
fn start() -> (Server, PathBuf) {
    let place = tempfile::TempDir::with_prefix("loopd-test-").expect("a directory");
    let allowed = place.path().canonicalize().expect("there").join("roots");
    fs::create_dir(&allowed).expect("made");
    let config = format!("[images]\nallow_directories = [{:?}]\n", allowed.to_str().expect("text"));
    (Server::on(place, Options::default().config(&config)), allowed)
}

fn lay(tree: &Path, release: &str) {
    root::lay(tree, &PROGRAMS);
    fs::write(tree.join("etc/release"), release).expect("written");
}

async fn environment(http: &Http, root: Value) -> Result<String, String> {
    let body = json!({"name": "roots", "config": {"type": "cloud", "root": root}});
    let reply = http.post("/v1/environments", body).await;
    match reply.status {
        200 => Ok(reply.body["id"].as_str().expect("an id").to_owned()),
        _ => Err(reply.body["error"]["message"].as_str().unwrap_or_default().to_owned()),
    }
}

fn invocation(environment: Value, command: &str) -> Value {
    let system = script(vec![runs(command), says("{{last_result}}")]);
    json!({"model": "builtin/script", "system": system, "input": "go", "environment": environment})
}

#[tokio::test]
async fn tools_run_in_an_image_and_in_a_directory() {
    let (server, allowed) = start();
    let http = server.http();
    lay(&allowed.join("tree"), "of a directory");
    fs::create_dir(allowed.join("other")).expect("made");
    lay(&allowed.join("other/tree"), "of an image");
    archive::of_tree(&allowed.join("other/tree"), &allowed.join("app.tar"));
    let at = |name: &str| allowed.join(name).to_str().expect("text").to_owned();
    for (root, release) in [
        (json!({"type": "directory", "path": at("tree")}), "of a directory"),
        (json!({"type": "archive", "path": at("app.tar")}), "of an image"),
    ] {
        let id = environment(&http, root.clone()).await.expect("made");
        let command = "cat /etc/release; ls /usr/bin; echo x > /etc/x; echo kept > note; cat note";
        let answer = http.invoke(invocation(json!(id), command)).await;
        let said = text(&answer["output"]);
        assert!(said.contains(release) && said.contains("bash\ncat\nls") && said.contains("kept"), "{answer}");
        assert!(said.contains("Read-only file system"), "{said}");
        // Also without an environment that has a name.
        let answer = http.invoke(invocation(json!({ "root": root }), "cat /etc/release")).await;
        assert!(text(&answer["output"]).contains(release), "{answer}");
    }
}

/// A registry, and a server that asks no other.
async fn registry() -> (Index, Server) {
    let registry = Index::empty().await;
    let at = registry.registry();
    let config = format!("[images]\nallow_registries = [{at:?}]\nplain_registries = [{at:?}]\n");
    (registry, Server::with(Options::default().config(&config)))
}

#[tokio::test]
async fn tools_run_in_an_image_that_a_registry_has() {
    let (registry, server) = registry().await;
    let (http, trees) = (server.http(), tempfile::tempdir().expect("a directory"));
    for release in ["the first", "the second"] {
        lay(&trees.path().join(release), release);
    }
    let first = registry.publish("team/app", "1", &trees.path().join("the first"));
    // The tag moves on; what is pinned is what it was.
    let second = registry.publish("team/app", "1", &trees.path().join("the second"));
    let at = |rest: &str| json!({"type": "image", "reference": format!("{}/team/app{rest}", registry.registry())});
    let command = "cat /etc/release; echo; echo ${BASH_VERSION:+bash} of an $APP; ls /usr/bin; echo x > /etc/x; \
                   echo kept > note; cat note";
    for (root, release) in [
        (at(&format!("@{first}")), "the first"),
        (at(&format!("@{second}")), "the second"),
        (at(":1"), "the second"),
        (at(&format!(":1@{first}")), "the first"),
    ] {
        let id = environment(&http, root.clone()).await.expect("made");
        let answer = http.invoke(invocation(json!(id), command)).await;
        let said = text(&answer["output"]);
        assert!(said.starts_with(&format!("{release}\nbash of an image\nbash\ncat\nls\n")), "{root}: {answer}");
        assert!(said.contains("Read-only file system") && said.contains("kept"), "{root}: {answer}");
    }
    // What is here is not asked for again.
    let asked = registry.asked();
    let again = http.invoke(invocation(json!({"root": at(&format!("@{first}"))}), command)).await;
    assert!(text(&again["output"]).starts_with("the first\n"), "{again}");
    assert_eq!(registry.asked(), asked);
}

#[tokio::test]
async fn a_registry_that_has_no_such_image_or_another_ends_the_turn_and_says_so() {
    let (registry, server) = registry().await;
    let (http, tree) = (server.http(), tempfile::tempdir().expect("a directory"));
    lay(tree.path(), "of a registry");
    let digest = registry.publish("app", "1", tree.path());
    let other = format!("sha256:{}", "0".repeat(64));
    let manifests = registry.place().join("v2/app/manifests");
    fs::copy(manifests.join(&digest), manifests.join(&other)).expect("copied");
    for (name, told) in [
        (format!("app@{other}"), format!("came with the digest {digest}")),
        ("app:2".to_owned(), "the registry answered 404".to_owned()),
    ] {
        let root = json!({"type": "image", "reference": format!("{}/{name}", registry.registry())});
        let answer = http.invoke(invocation(json!({ "root": root }), "echo never")).await;
        assert!(answer.to_string().contains(&told), "{answer}");
    }
}

#[tokio::test]
async fn a_root_that_cannot_be_had_is_refused_or_ends_the_turn_and_says_why() {
    let (server, allowed) = start();
    let http = server.http();
    let at = |name: &str| allowed.join(name).to_str().expect("text").to_owned();
    for (root, told) in [
        (json!({"type": "directory", "path": "/etc"}), "not below a directory that this host allows"),
        (json!({"type": "archive", "path": at("absent.tar")}), "does not exist"),
        (json!({"type": "image", "reference": "127.0.0.1:9/app"}), "is not one that this host asks"),
        (json!({"type": "image", "reference": "a b"}), "accepted: `debian:12`"),
    ] {
        let fault = environment(&http, root).await.expect_err("refused");
        assert!(fault.contains(told), "{fault}");
    }
    // What turns out later is the end of a turn, not of the session.
    fs::write(at("app.tar"), "no archive").expect("written");
    let id = environment(&http, json!({"type": "archive", "path": at("app.tar")})).await.expect("made");
    let answer = http.invoke(invocation(json!(id), "cat /etc/release")).await;
    assert!(answer.to_string().contains("it is no archive"), "{answer}");
    let session = answer["session_id"].as_str().expect("a session").to_owned();
    let events = http.events(&session).await;
    assert!(events.iter().any(|e| e["type"] == "session.error" && e.to_string().contains("app.tar")), "{events:?}");
    lay(&allowed.join("tree"), "mended");
    archive::of_tree(&allowed.join("tree"), &allowed.join("app.tar"));
    let again = http.invoke(json!({"session": session, "input": "once more"})).await;
    assert!(text(&again["output"]).contains("mended"), "{again}");
}
