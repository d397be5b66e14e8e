//! Rooms that are made of an image or a directory: asked for through the interface, used by tools, refused when they cannot be.

use loopd_tests::http::text;
use loopd_tests::script::{runs, says, script};
use loopd_tests::server::Options;
use loopd_tests::{Http, Server, archive};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a shell tool needs, as on this machine.
const PROGRAMS: [&str; 3] = ["bash", "cat", "ls"];

/// A server that allows one directory, and that directory.
fn start() -> (Server, PathBuf) {
    let root = tempfile::TempDir::with_prefix("loopd-test-").expect("a directory");
    let allowed = root.path().canonicalize().expect("there").join("roots");
    fs::create_dir(&allowed).expect("made");
    let config = format!("[images]\nallow_directories = [{:?}]\n", allowed.to_str().expect("text"));
    (Server::on(root, Options::default().config(&config)), allowed)
}

fn lay(root: &Path, release: &str) {
    let place = |from: &Path| {
        let to = root.join("usr").join(from.strip_prefix("/usr").or(from.strip_prefix("/")).expect("absolute"));
        fs::create_dir_all(to.parent().expect("below the root")).expect("made");
        fs::copy(from, to).expect("copied");
    };
    for program in PROGRAMS {
        let path = Path::new("/usr/bin").join(program);
        place(&path);
        let linked = Command::new("ldd").arg(&path).output().expect("ldd is there");
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        linked.split_whitespace().filter(|word| word.starts_with('/')).for_each(|library| place(Path::new(library)));
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("linked");
    }
    fs::create_dir(root.join("etc")).expect("made");
    fs::write(root.join("etc/release"), release).expect("written");
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
