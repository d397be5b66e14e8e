//! Packages of an environment: installed in a room of their own from an index that the operator names, kept as a layer, and
//! there for every session after that.

use loopd_tests::http::text;
use loopd_tests::script::{runs, says, script};
use loopd_tests::server::Options;
use loopd_tests::{Http, Server, skip};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HOST: &str = "index.test";
/// Debian's nobody.
const ORDINARY: u32 = 65534;
const WHEEL: &str = "greeting_of_a_test-1.0-py3-none-any.whl";

/// Packs a wheel without anything but the standard library.
const PACK: &str = r#"
import sys, zipfile
info = "greeting_of_a_test-1.0.dist-info/"
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("greeting_of_a_test.py", "WORD = 'hello from a package'\n")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: greeting-of-a-test\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
"#;

/// An index of Python packages that has one, and remembers what was asked.
struct Index {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Index {
    async fn start() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("wheel");
        let packed = Command::new("/usr/bin/python3").args(["-c", PACK]).arg(&path).status().expect("python3 is there");
        assert!(packed.success());
        let wheel = Arc::new(std::fs::read(&path).expect("packed"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, wheel.clone(), seen.clone()));
            }
        });
        Index { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }

    fn server(&self) -> Server {
        Server::with(self.options())
    }

    fn options(&self) -> Options {
        let port = self.port;
        Options::default().config(&format!(
            "[images]\npip_index = \"http://{HOST}:{port}/simple\"\n\
             [network]\nallow_addresses = [\"{HOST}:{port}\"]\nhosts = {{ \"{HOST}\" = \"127.0.0.1\" }}\n"
        ))
    }
}

async fn answer(mut stream: TcpStream, wheel: Arc<Vec<u8>>, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().expect("nobody panics with it").push(path.clone());
    let page = format!("<!DOCTYPE html><html><body><a href=\"/files/{WHEEL}\">{WHEEL}</a></body></html>");
    let (status, kind, body) = match path.as_str() {
        "/simple/greeting-of-a-test/" => ("200 OK", "text/html", page.into_bytes()),
        path if path == format!("/files/{WHEEL}") => ("200 OK", "application/zip", wheel.to_vec()),
        _ => ("404 Not Found", "text/plain", b"nothing".to_vec()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    // Whoever goes away is no matter of the index's.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
    let _ = stream.shutdown().await;
}

fn has_pip() -> bool {
    let there = Command::new("/usr/bin/python3").args(["-m", "pip", "--version"]).output();
    let there = there.is_ok_and(|done| done.status.success());
    if !there {
        skip("`python3 -m pip` is not there");
    }
    there
}

async fn run(http: &Http, packages: Value, networking: &str, command: &str) -> Value {
    let system = script(vec![runs(command), says("{{last_result}}")]);
    let environment = json!({"networking": {"type": networking}, "packages": packages});
    http.invoke(json!({"model": "builtin/script", "system": system, "input": "go", "environment": environment})).await
}

/// Names in a directory.
fn names(path: &Path) -> Vec<String> {
    let found = std::fs::read_dir(path).into_iter().flatten().flatten();
    found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn a_package_is_installed_once_and_is_there_for_every_session() {
    if !has_pip() {
        return;
    }
    let index = Index::start().await;
    let mut server = index.server();
    let http = server.http();
    let packages = json!({"pip": ["greeting-of-a-test==1.0"]});
    let command = "/usr/bin/python3 -c 'import greeting_of_a_test as g; print(g.WORD)'; ls /usr/bin/env; \
                   touch /usr/local/lib/x; ls /workspace /mnt/session/outputs";
    // Two at once, and without a way out of their own.
    let (one, two) =
        tokio::join!(run(&http, packages.clone(), "none", command), run(&http, packages.clone(), "none", command));
    for answer in [&one, &two] {
        let said = text(&answer["output"]);
        assert!(said.contains("hello from a package") && said.contains("/usr/bin/env"), "{answer}");
        assert!(said.contains("Read-only file system") && !said.contains("layer.tar"), "{said}");
    }
    let asked = index.asked();
    let wheels = asked.iter().filter(|path| path.ends_with(".whl")).count();
    assert_eq!(wheels, 1, "{asked:?}");
    // Also after a restart, and whatever the order in which they are named.
    server.kill();
    server.start_again();
    let again = run(&server.http(), packages, "unrestricted", command).await;
    assert!(text(&again["output"]).contains("hello from a package"), "{again}");
    assert_eq!(index.asked(), asked);
    // Nobody else sees it.
    let without = run(&server.http(), json!({}), "none", "/usr/bin/python3 -c 'import greeting_of_a_test'").await;
    assert!(text(&without["output"]).contains("No module named"), "{without}");
    // The room in which it was installed is gone: what is left are the sessions'.
    assert_eq!(names(&server.data().join("sessions")).len(), 4);
}

#[tokio::test]
async fn an_ordinary_users_server_installs_as_well() {
    if !has_pip() {
        return;
    }
    let index = Index::start().await;
    let user = rustix::process::geteuid().is_root().then_some(ORDINARY);
    let server = Server::with(Options { user, ..index.options() });
    let command = "/usr/bin/python3 -c 'import greeting_of_a_test as g; print(g.WORD)'";
    let answer = run(&server.http(), json!({"pip": ["greeting-of-a-test"]}), "none", command).await;
    assert_eq!(text(&answer["output"]), "hello from a package\n", "{answer}");
}

#[tokio::test]
async fn what_cannot_be_installed_ends_the_turn_and_names_its_log() {
    if !has_pip() {
        return;
    }
    let index = Index::start().await;
    let server = index.server();
    let http = server.http();
    let packages = json!({"pip": ["greeting-of-a-test", "absent-of-a-test"]});
    let answer = run(&http, packages.clone(), "none", "echo never").await;
    let said = answer.to_string();
    assert!(said.contains("packages by pip: exit status 1; its log, `images/logs/"), "{said}");
    assert!(said.contains("No matching distribution found for absent-of-a-test"), "{said}");
    let logs = server.data().join("images/logs");
    let log = names(&logs);
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(said.contains(&log[0]), "{said}");
    let log = std::fs::read_to_string(logs.join(&log[0])).expect("it is there");
    assert!(log.contains("absent-of-a-test"), "{log}");
    assert!(names(&server.data().join("images/layers")).is_empty());
    // For a while it is not tried again.
    let asked = index.asked().len();
    let again = run(&http, packages, "none", "echo never").await;
    assert!(again.to_string().contains("No matching distribution"), "{again}");
    assert_eq!(index.asked().len(), asked);
    // Options and addresses are no packages.
    let body = json!({"name": "e", "config": {"type": "cloud", "packages": {"pip": ["--index-url=http://x.test"]}}});
    let refused = http.post("/v1/environments", body).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.to_string().contains("config.packages.pip[0]"), "{}", refused.body);
}
