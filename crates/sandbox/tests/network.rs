//! Real programs in a real room with the real cell: what they ask for comes out at the host's end, with their host's name, and
//! they trust the authority that the room was given.
//!
//! The world behind the outlet is a TLS server of Python's, with a certificate of an authority made by `openssl`.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

use loopd_domain::{Epoch, SessionId, Timestamp};
use loopd_sandbox::{NamespaceSandbox, Outlet, OutletStream, Room, RoomOutlet, RoomSpec, Sandbox};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(120);

/// The host that the world's policy knows nothing of.
const REFUSED: &str = "refused.example";

/// Whether these programs can be started; says so when not, and insists where all tests must run.
fn has(test: &str, programs: &[&str]) -> bool {
    let starts = |program: &&&str| {
        let found = Command::new("/bin/sh").args(["-c", "command -v \"$0\"", program]).output();
        found.is_ok_and(|found| found.status.success())
    };
    let missing: Vec<_> = programs.iter().filter(|program| !starts(program)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{test} needs {missing:?}");
    eprintln!("{test} needs {missing:?} and was left out");
    false
}

/// An authority, and a server that has a certificate of it for every host below `.example`.
struct World {
    directory: tempfile::TempDir,
    server: Child,
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

const MAKE: &str = r#"
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj "/CN=test authority" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj "/CN=example"
printf 'subjectAltName=DNS:secure.example\nextendedKeyUsage=serverAuth\n' >leaf.ext
openssl x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.ext -out leaf.crt
mkdir -p www/- && echo '{}' >www/-/ping && echo secret >www/hello
git init -q work && cd work && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m begun && cd ..
git clone -q --bare work www/repo.git && git -C www/repo.git update-server-info
"#;

const SERVE: &str = r#"
import functools, http.server, ssl
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory='www')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('leaf.crt', 'leaf.key')
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

const VISIT: &str = r#"
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	client := http.Client{Transport: &http.Transport{Proxy: nil}}
	for _, url := range os.Args[1:] {
		answer, fault := client.Get(url)
		if fault != nil {
			fmt.Println("none:", fault)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		fmt.Println(answer.StatusCode, strings.TrimSpace(string(body)))
	}
}
"#;

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Command::new("/bin/sh").args(["-c", MAKE]).current_dir(&directory).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = Command::new("python3")
            .args(["-c", SERVE])
            .current_dir(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut line).unwrap();
        World { directory, server, port: line.trim().parse().unwrap(), asked: Arc::default() }
    }

    fn authority(&self) -> std::path::PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// What was asked for since this was called last.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// A program that speaks TLS and asks for names by itself, and looks at no variable for a proxy.
    fn compiled(&self) -> std::path::PathBuf {
        let path = self.directory.path();
        std::fs::write(path.join("visit.go"), VISIT).unwrap();
        let mut go = Command::new("go");
        go.args(["build", "-o", "visit", "visit.go"]).current_dir(path).env("GOCACHE", path.join("cache"));
        go.envs([("GOFLAGS", "-mod=mod"), ("GOPROXY", "off"), ("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0")]);
        let made = go.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        path.join("visit")
    }

    /// Serves an outlet until its room is gone.
    fn serve(&self, mut outlet: Box<dyn Outlet>) {
        let (port, asked) = (self.port, Arc::clone(&self.asked));
        tokio::spawn(async move {
            while let Ok(stream) = outlet.accept().await {
                let asked = Arc::clone(&asked);
                // A program may go away whenever it likes.
                tokio::spawn(async move { connect(stream, port, &asked).await.map_err(drop) });
            }
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

async fn connect(stream: Box<dyn OutletStream>, port: u16, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if first.is_empty() {
            first = line.trim_end().to_owned();
        }
    }
    asked.lock().unwrap().push(first.clone());
    let answer =
        |text: &str| format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    if first.contains(REFUSED) {
        let head = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 11\r\n\r\n";
        return stream.write_all(format!("{head}not allowed").as_bytes()).await;
    }
    if !first.starts_with("CONNECT ") {
        return stream.write_all(answer(&first).as_bytes()).await;
    }
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    if first.contains(":443 ") {
        let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
        return Ok(());
    }
    while line != "\r\n" || stream.buffer().is_empty() {
        line.clear();
        if stream.read_line(&mut line).await? == 0 || line == "\r\n" {
            break;
        }
    }
    stream.write_all(answer(&first).as_bytes()).await
}

/// A room whose cell is given calls, as a driver gives them.
struct Driven {
    room: Room,
    calls: u32,
}

impl Driven {
    async fn start(sandbox: &dyn Sandbox, data: &Path, world: Option<&World>) -> Self {
        let session = SessionId::parse("session", "sesn_NETWORK").unwrap();
        let directory = data.join("sessions").join(session.as_str());
        let mut spec = RoomSpec::plain(session, Epoch(1), directory);
        if world.is_some() {
            spec.outlet = RoomOutlet::Open { ports: vec![80, 443] };
        }
        let mut room = sandbox.start(&spec).await.unwrap();
        if let (Some(world), Some(outlet)) = (world, room.outlet.take()) {
            world.serve(outlet);
        }
        let mut driven = Driven { room, calls: 0 };
        driven
            .send(&json!({"frame": "attach", "version": loopd_protocol::VERSION, "session": spec.session, "epoch": 1}))
            .await;
        assert_eq!(driven.receive().await["frame"], "hello");
        driven
    }

    async fn send(&mut self, frame: &Value) {
        let bytes = serde_json::to_vec(frame).unwrap();
        self.room.channel.write_u32_le(bytes.len() as u32).await.unwrap();
        self.room.channel.write_all(&bytes).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        let heard = tokio::time::timeout(PATIENCE, async {
            let length = self.room.channel.read_u32_le().await?;
            let mut bytes = vec![0; length as usize];
            self.room.channel.read_exact(&mut bytes).await?;
            std::io::Result::Ok(bytes)
        });
        serde_json::from_slice(&heard.await.expect("the cell answers").expect("the cell lives")).unwrap()
    }

    /// What a command of the model's shell prints; it must succeed.
    async fn prints(&mut self, command: &str) -> String {
        let result = self.bash(command).await;
        assert_eq!(result["is_error"], false, "`{command}`: {result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    async fn bash(&mut self, command: &str) -> Value {
        self.calls += 1;
        let call = json!({
            "id": format!("sevt_{}", self.calls), "name": "bash", "input": {"command": command}, "runs_in": "room",
            "permission": "allow", "malformed": null, "verdict": null, "deny_message": null, "settled": false,
        });
        self.send(&json!({
            "frame": "begin", "now": Timestamp(1_000_000),
            "config": {"tools": ["bash"], "parallel_max": 8, "calls_max": 64, "output_repairs_max": 2},
            "resume": {
                "limits": loopd_domain::session::TurnLimits::default(), "started_at": Timestamp(0), "steps": 1, "output_tokens": 0,
                "cost": null, "output_rejections": 0, "calls": [call], "queued": [], "answered": null,
            },
        }))
        .await;
        loop {
            let mut frame = self.receive().await;
            match frame["frame"].as_str() {
                Some("batch") => return frame["results"][0].take(),
                Some("output") => {}
                _ => panic!("{frame}"),
            }
        }
    }
}

#[tokio::test]
async fn programs_reach_their_hosts_and_trust_the_authority() {
    const TEST: &str = "programs_reach_their_hosts_and_trust_the_authority";
    if !has(TEST, &["openssl", "git", "python3", "curl"]) {
        return;
    }
    let world = World::new();
    let data = tempfile::tempdir().unwrap();
    let sandbox = NamespaceSandbox::with_authority(data.path(), &world.authority()).unwrap();
    let mut room = Driven::start(&sandbox, data.path(), Some(&world)).await;
    // Without a proxy, in clear and by TLS, and with one.
    assert_eq!(room.prints("curl --noproxy '*' -sS http://plain.example/x").await, "CONNECT plain.example:80 HTTP/1.1");
    assert_eq!(room.prints("curl --noproxy '*' -sS https://secure.example/hello").await, "secret\n");
    assert_eq!(world.asked(), ["CONNECT plain.example:80 HTTP/1.1", "CONNECT secure.example:443 HTTP/1.1"]);
    assert_eq!(room.prints("curl -sS http://plain.example/x").await, "GET http://plain.example/x HTTP/1.1");
    assert_eq!(room.prints("curl -sS https://secure.example/hello").await, "secret\n");
    assert_eq!(world.asked(), ["GET http://plain.example/x HTTP/1.1", "CONNECT secure.example:443 HTTP/1.1"]);
    // The authority is trusted, and nothing else than what it signed.
    let other = room.bash("curl -sS https://other.example/hello").await;
    assert!(other["content"][0]["text"].as_str().unwrap().contains("SSL"), "{other}");
    let python = "import urllib.request as r; print(r.urlopen('https://secure.example/hello').read())";
    assert_eq!(room.prints(&format!("python3 -c \"{python}\"")).await, "b'secret\\n'\n");
    assert_eq!(
        room.prints(&format!("env -u HTTPS_PROXY -u https_proxy python3 -c \"{python}\"")).await,
        "b'secret\\n'\n"
    );
    assert_eq!(room.prints("git ls-remote https://secure.example/repo.git HEAD | cut -f2").await, "HEAD\n");
    if has(TEST, &["node", "npm"]) {
        let fetch = "fetch('https://secure.example/hello').then(r => r.text()).then(t => process.stdout.write(t))";
        assert_eq!(room.prints(&format!("node -e \"{fetch}\"")).await, "secret\n");
        assert_eq!(world.asked().last().unwrap(), "CONNECT secure.example:443 HTTP/1.1");
        room.prints("npm ping --registry https://secure.example/ 2>&1").await;
    }
    if has(TEST, &["java", "keytool"]) {
        let program = "cat >Fetch.java <<'END'
public class Fetch {
    public static void main(String[] a) throws Exception {
        System.out.write(new java.net.URL(a[0]).openStream().readAllBytes());
        System.out.flush();
    }
}
END
keytool -importcert -noprompt -file /etc/loopd/ca.crt -keystore trust -storepass changeit >keytool 2>&1 || cat keytool
java -Djavax.net.ssl.trustStore=trust -Djavax.net.ssl.trustStorePassword=changeit Fetch.java https://secure.example/hello";
        assert_eq!(room.prints(program).await, "secret\n");
    }
    let environment = room.prints("cd /; env | grep -c LOOPD; grep -c BEGIN /etc/loopd/ca.crt; ls -d /run/loopd").await;
    assert!(environment.starts_with("0\n1\n"), "{environment}");
    // What a living room and its stub cost.
    let pid = room.room.guard.pid().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let is_stub = |pid: &&str| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"loopd-network");
    let stub = children.split_whitespace().find(is_stub).unwrap().to_owned();
    let sum: u64 = [pid.to_string(), stub].iter().map(|pid| pss_kib(pid)).sum();
    assert!(sum < 4 << 10, "{sum} KiB");
}

/// Go has a resolver and a TLS of its own, and its programs are often linked with nothing else.
#[tokio::test]
async fn a_program_of_gos_that_knows_of_no_proxy_reaches_its_host_and_no_other() {
    const TEST: &str = "a_program_of_gos_that_knows_of_no_proxy_reaches_its_host_and_no_other";
    if !has(TEST, &["go", "openssl", "git", "python3"]) {
        return;
    }
    let world = World::new();
    let visit = world.compiled();
    let data = tempfile::tempdir().unwrap();
    let sandbox = NamespaceSandbox::with_authority(data.path(), &world.authority()).unwrap();
    let mut room = Driven::start(&sandbox, data.path(), Some(&world)).await;
    std::fs::copy(visit, data.path().join("sessions/sesn_NETWORK/workspace/visit")).unwrap();
    // By TLS nobody can be told why; in clear the answer is the host's.
    let command = format!(
        "for proxy in HTTPS_PROXY HTTP_PROXY https_proxy http_proxy; do unset $proxy; done\n\
         ./visit https://secure.example/hello http://{REFUSED}/hello https://{REFUSED}/hello"
    );
    let said = room.prints(&command).await;
    let none = format!("200 secret\n403 not allowed\nnone: Get \"https://{REFUSED}/hello\": ");
    assert!(said.starts_with(&none), "{said}");
    let asked = ["secure.example:443", "refused.example:80", "refused.example:443"];
    assert_eq!(world.asked(), asked.map(|host| format!("CONNECT {host} HTTP/1.1")));
}

fn pss_kib(pid: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    let kib = line.trim().trim_end_matches(" kB").parse().unwrap();
    println!("process {pid}: {kib} KiB");
    kib
}

#[tokio::test]
async fn without_a_way_out_a_name_is_refused_at_once() {
    let data = tempfile::tempdir().unwrap();
    let sandbox = NamespaceSandbox::new(data.path()).unwrap();
    let mut room = Driven::start(&sandbox, data.path(), None).await;
    let said = room
        .prints("getent hosts example.com; echo $?; env | grep -ci -e proxy -e ssl_cert; ls /etc/loopd 2>&1; true")
        .await;
    assert!(said.starts_with("2\n0\n") && said.contains("No such file"), "{said}");
}

#[tokio::test]
async fn what_is_no_certificate_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("ca.crt");
    for text in [
        String::new(),
        "-----BEGIN PRIVATE KEY-----".to_owned(),
        format!("-----BEGIN CERTIFICATE-----{}", "x".repeat(4_000)),
    ] {
        std::fs::write(&file, text).unwrap();
        let fault = NamespaceSandbox::with_authority(data.path(), &file).err().unwrap().to_string();
        assert!(fault.contains("ca.crt") && fault.contains("accepted: one certificate in PEM"), "{fault}");
    }
}

/// All of the above but this, by somebody who may nothing: cell, stub and tools have one user then.
#[test]
fn an_ordinary_user_has_a_way_out_too() {
    use std::os::unix::fs::chown;
    use std::os::unix::process::CommandExt;
    /// `nobody`: no files, no rights, on every machine.
    const ORDINARY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        // Then every other test here has shown it.
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (program, tmp) = (place.path().join("program"), place.path().join("tmp"));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::create_dir(&tmp).unwrap();
    for path in [place.path(), &program, &tmp] {
        chown(path, Some(ORDINARY), Some(ORDINARY)).unwrap();
    }
    let output = Command::new(&program)
        .args(["--skip", "an_ordinary_user", "--test-threads", "1"])
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", &tmp)
        .env("TMPDIR", &tmp)
        .current_dir(place.path())
        .uid(ORDINARY)
        .gid(ORDINARY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("test result: ok. 4 passed"), "{said}");
}
