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
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HOST: &str = "index.test";
/// Debian's nobody.
const ORDINARY: u32 = 65534;

/// Packs a wheel and the page that names it, without anything but the standard library.
const PIP: &str = r#"
import os, sys, zipfile
name = "greeting_of_a_test-1.0-py3-none-any.whl"
info = "greeting_of_a_test-1.0.dist-info/"
os.makedirs("files"), os.makedirs("simple/greeting-of-a-test")
with open("simple/greeting-of-a-test/index.html", "w") as page:
    page.write(f'<!DOCTYPE html><html><body><a href="/files/{name}">{name}</a></body></html>')
with zipfile.ZipFile("files/" + name, "w") as wheel:
    wheel.writestr("greeting_of_a_test.py", "WORD = 'hello from a package'\n")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: greeting-of-a-test\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
"#;

/// A package of npm with a program, <https://github.com/npm/registry/blob/main/docs/REGISTRY-API.md>.
const NPM: &str = r##"
import hashlib, io, json, sys, tarfile
at = sys.argv[1]
files = {
    "package/package.json": json.dumps({"name": "greeting-of-a-test", "version": "1.0.0", "bin": "greet.js"}),
    "package/greet.js": "#!/usr/bin/env node\nconsole.log('hello from npm')\n",
}
with tarfile.open("greeting.tgz", "w:gz") as packed:
    for name, text in files.items():
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(text), 0o755
        packed.addfile(entry, io.BytesIO(text.encode()))
shasum = hashlib.sha1(open("greeting.tgz", "rb").read()).hexdigest()
dist = {"tarball": f"{at}/greeting.tgz", "shasum": shasum}
version = {"name": "greeting-of-a-test", "version": "1.0.0", "bin": {"greet": "greet.js"}, "dist": dist}
about = {"name": "greeting-of-a-test", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
json.dump(about, open("greeting-of-a-test", "w"))
"##;

/// A gem, and the index that RubyGems makes of it.
const GEM: &str = r#"
mkdir -p gems src/lib
echo "WORD = 'hello from a gem'" > src/lib/greeting_of_a_test.rb
cat > src/greeting.gemspec <<'END'
Gem::Specification.new do |s|
  s.name, s.version, s.summary, s.authors, s.files = 'greeting-of-a-test', '1.0', 'x', ['x'], ['lib/greeting_of_a_test.rb']
end
END
(cd src && gem build greeting.gemspec -o ../gems/greeting-of-a-test-1.0.gem)
gem generate_index
"#;

/// A module with a program, <https://go.dev/ref/mod#goproxy-protocol>.
const GO: &str = r#"
import os, zipfile
at = "greeting.test/hello/@v/"
os.makedirs(at)
module = "module greeting.test/hello\n\ngo 1.19\n"
main = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello from a module") }\n'
for name, text in [("list", "v1.0.0\n"), ("v1.0.0.mod", module), ("v1.0.0.info", '{"Version": "v1.0.0"}')]:
    open(at + name, "w").write(text)
with zipfile.ZipFile(at + "v1.0.0.zip", "w") as packed:
    packed.writestr("greeting.test/hello@v1.0.0/go.mod", module)
    packed.writestr("greeting.test/hello@v1.0.0/main.go", main)
"#;

/// A site of files that remembers what was asked.
struct Index {
    port: u16,
    place: Arc<TempDir>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Index {
    async fn start() -> Self {
        let index = Self::empty().await;
        index.make("/usr/bin/python3", &["-c", PIP]);
        index
    }

    async fn empty() -> Self {
        let place = Arc::new(tempfile::tempdir().expect("a directory"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, served) = (asked.clone(), place.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, served.clone(), seen.clone()));
            }
        });
        Index { port, place, asked }
    }

    /// Runs a program where the files lie.
    fn make(&self, program: &str, arguments: &[&str]) {
        let made = Command::new(program).args(arguments).current_dir(self.place.path()).output().expect("it is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// As rooms name it.
    fn url(&self) -> String {
        format!("http://{HOST}:{}", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }

    fn server(&self) -> Server {
        Server::with(self.options())
    }

    fn options(&self) -> Options {
        self.options_for("pip_index", "/simple")
    }

    /// A server whose packages of one manager come from here.
    fn options_for(&self, setting: &str, path: &str) -> Options {
        let (port, url) = (self.port, self.url());
        Options::default().config(&format!(
            "[images]\n{setting} = \"{url}{path}\"\n\
             [network]\nallow_addresses = [\"{HOST}:{port}\"]\nhosts = {{ \"{HOST}\" = \"127.0.0.1\" }}\n"
        ))
    }
}

async fn answer(mut stream: TcpStream, place: Arc<TempDir>, asked: Arc<Mutex<Vec<String>>>) {
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
    let is_page = path.ends_with('/');
    let file = place.path().join(path.trim_matches('/')).join(if is_page { "index.html" } else { "" });
    let found = std::fs::read(file.components().as_path());
    let kind = if is_page { "text/html" } else { "application/octet-stream" };
    let (status, body) = found.map_or(("404 Not Found", b"nothing".to_vec()), |bytes| ("200 OK", bytes));
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    // Whoever goes away is no matter of the index's.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
    let _ = stream.shutdown().await;
}

fn has_pip() -> bool {
    has("/usr/bin/python3", &["-m", "pip", "--version"])
}

fn has(program: &str, arguments: &[&str]) -> bool {
    let there = Command::new(program).args(arguments).output().is_ok_and(|done| done.status.success());
    if !there {
        skip(&format!("`{program} {}` does not work", arguments.join(" ")));
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

/// What a session finds of one package that a manager took from an index.
async fn finds(index: &Index, (setting, path): (&str, &str), packages: Value, command: &str, expected: &str) {
    let server = Server::with(index.options_for(setting, path));
    let answer = run(&server.http(), packages, "none", command).await;
    assert_eq!(text(&answer["output"]).trim_end(), expected, "{answer}");
}

#[tokio::test]
async fn npm_installs_programs() {
    if !has("npm", &["--version"]) {
        return;
    }
    let index = Index::empty().await;
    index.make("/usr/bin/python3", &["-c", NPM, &index.url()]);
    finds(&index, ("npm_registry", ""), json!({"npm": ["greeting-of-a-test@1.0.0"]}), "greet", "hello from npm").await;
}

#[tokio::test]
async fn gem_installs_libraries() {
    if !has("gem", &["--version"]) {
        return;
    }
    let index = Index::empty().await;
    index.make("sh", &["-ec", GEM]);
    let command = "ruby -e 'require \"greeting_of_a_test\"; puts WORD'";
    finds(&index, ("gem_source", ""), json!({"gem": ["greeting-of-a-test:1.0"]}), command, "hello from a gem").await;
}

#[tokio::test]
async fn go_installs_programs() {
    if !has("go", &["version"]) {
        return;
    }
    let index = Index::empty().await;
    index.make("/usr/bin/python3", &["-c", GO]);
    let packages = json!({"go": ["greeting.test/hello@v1.0.0"]});
    finds(&index, ("go_proxy", ""), packages, "hello", "hello from a module").await;
}
