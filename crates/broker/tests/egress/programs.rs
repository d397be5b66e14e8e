//! Real programs with a placeholder for their token, against servers of ours.

use crate::world::server::{Answer, Flaw, full, text_of};
use crate::world::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::Command;

/// Is it there? Otherwise the test is skipped, aloud.
async fn has(program: &str) -> bool {
    let mut probe = Command::new(program);
    let found = probe.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    let found = found.is_ok_and(|status| status.success());
    if !found {
        skip(&format!("`{program}` is not installed"));
    }
    found
}

/// A program with the room's usual variables and nothing else of this machine's.
fn program(name: &str, world: &World, outlet: &Outlet) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("HOME", world.directory()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env(proxy, outlet.address());
    }
    for bundle in [
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "PIP_CERT",
        "npm_config_cafile",
    ] {
        command.env(bundle, world.certificate());
    }
    command.env("TOKEN", PLACEHOLDER).env("GIT_TERMINAL_PROMPT", "0").current_dir(world.directory());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What it printed, both ways; it must have ended well.
async fn run(command: &mut Command) -> String {
    let done = command.output().await.expect("it starts");
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {text}");
    text
}

/// Files by their path, for whoever shows the real secret.
fn shelf(files: HashMap<String, Vec<u8>>, scheme: &'static str, wanted: String) -> Server {
    let files = Arc::new(files);
    Server::answering(move |request: Request<Incoming>| -> Answer {
        let (files, wanted) = (files.clone(), wanted.clone());
        Box::pin(async move {
            let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            if shown != Some(wanted.as_str()) {
                let mut refused = text_of(StatusCode::UNAUTHORIZED, "who are you?");
                let asks = format!("{scheme} realm=\"x\"").parse().expect("a value");
                refused.headers_mut().insert("www-authenticate", asks);
                return refused;
            }
            match files.get(request.uri().path()) {
                None => text_of(StatusCode::NOT_FOUND, "no such file"),
                Some(file) => {
                    let mut response = Response::new(full(file.clone()));
                    let kind =
                        if request.uri().path().ends_with('/') { "text/html" } else { "application/octet-stream" };
                    response.headers_mut().insert("content-type", kind.parse().expect("a value"));
                    response
                }
            }
        })
    })
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{SECRET}")))
}

async fn serve(world: &mut World, name: &str, server: Server) -> Arc<Server> {
    world.vault.hold(vec![credential(PLACEHOLDER, SECRET, Some(&[name]))]);
    let config = world.authorities.config(&[name], Flaw::None, &["h2", "http/1.1"]);
    world.server(server.tls(config)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn curl() {
    if !has("curl").await {
        return;
    }
    let mut world = World::new();
    let server = serve(&mut world, "api.test", Server::echo()).await;
    let outlet = world.port().await;
    for (flag, version) in [("--http1.1", hyper::Version::HTTP_11), ("--http2", hyper::Version::HTTP_2)] {
        let mut curl = program("curl", &world, &outlet);
        curl.args(["-sS", "--fail", flag, "-H", &format!("Authorization: Bearer {PLACEHOLDER}"), "-d", PLACEHOLDER]);
        let told = run(curl.arg(format!("https://api.test:{}/v1", server.port()))).await;
        assert!(told.contains(PLACEHOLDER) && !told.contains(SECRET), "{told}");
        let seen = server.last();
        assert_eq!((seen.version, seen.header("authorization")), (version, format!("Bearer {SECRET}").as_str()));
        assert_eq!(seen.body, SECRET.as_bytes());
    }
    let big = world.file("big", &vec![b'x'; 3 << 20]);
    let mut curl = program("curl", &world, &outlet);
    curl.args(["-sS", "--fail", "--http1.1", "-H", "Expect: 100-continue", "-o", "/dev/null", "-T"]).arg(big);
    run(curl.arg(format!("https://api.test:{}/upload", server.port()))).await;
    assert_eq!((server.last().method.as_str(), server.last().body.len()), ("PUT", 3 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_says_why_it_was_refused() {
    if !has("curl").await {
        return;
    }
    let mut world = World::new();
    world.limited(&["api.test"]);
    let outlet = world.port().await;
    for address in ["https://evil.test/", "http://evil.test/"] {
        let mut curl = program("curl", &world, &outlet);
        let told = run(curl.args(["-sS", "-i", address])).await;
        assert!(
            told.contains("host `evil.test` is not in the environment's allowed_hosts; accepted: `api.test`"),
            "{told}"
        );
        assert!(told.contains("403"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_with_a_token_in_its_address() {
    if !has("git").await {
        return;
    }
    let mut world = World::new();
    let script = "git init -q w && cd w && echo hello > a && git add a && git -c user.name=x -c user.email=x@x commit -qm one && \
                  cd .. && git clone -q --bare w r.git && git -C r.git update-server-info";
    let outlet = world.port().await;
    run(program("sh", &world, &outlet).args(["-c", script])).await;
    let mut files = HashMap::new();
    let bare = world.directory().join("r.git");
    collect_files(&bare, &bare, &mut files);
    let server = serve(&mut world, "git.test", shelf(files, "Basic", basic("x-token"))).await;
    let outlet = world.port().await;
    let mut git = program("git", &world, &outlet);
    let address = format!("https://x-token:{PLACEHOLDER}@git.test:{}/r.git", server.port());
    run(git.args(["clone", "-q", &address, "cloned"])).await;
    assert_eq!(std::fs::read(world.directory().join("cloned/a")).expect("a file"), b"hello\n");
    assert!(world.book.uses() > 0);
}

fn collect_files(base: &Path, directory: &Path, files: &mut HashMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect_files(base, &path, files);
        } else {
            let name = path.strip_prefix(base).expect("below").display().to_string();
            files.insert(format!("/r.git/{name}"), std::fs::read(&path).expect("a file"));
        }
    }
}

const WHEEL: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    wheel.writestr('loopd_probe.py', 'word = \"found\"\\n')
    wheel.writestr('loopd_probe-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: loopd-probe\\nVersion: 1.0\\n')
    wheel.writestr('loopd_probe-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr('loopd_probe-1.0.dist-info/RECORD', '')
";

#[tokio::test(flavor = "multi_thread")]
async fn pip_installs_from_a_private_index() {
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output().await;
    if !pip.is_ok_and(|done| done.status.success()) {
        return skip("`python3 -m pip` does not run");
    }
    let mut world = World::new();
    let wheel = world.directory().join("loopd_probe-1.0-py3-none-any.whl");
    let outlet = world.port().await;
    run(program("python3", &world, &outlet).arg("-c").arg(WHEEL).arg(&wheel)).await;
    let name = "loopd_probe-1.0-py3-none-any.whl";
    let files = HashMap::from([
        ("/simple/loopd-probe/".to_owned(), format!("<a href=\"/files/{name}\">{name}</a>").into_bytes()),
        (format!("/files/{name}"), std::fs::read(&wheel).expect("a wheel")),
    ]);
    let server = serve(&mut world, "pypi.test", shelf(files, "Basic", basic("u"))).await;
    let outlet = world.port().await;
    let mut pip = program("python3", &world, &outlet);
    let index = format!("https://u:{PLACEHOLDER}@pypi.test:{}/simple/", server.port());
    let options =
        ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir", "--root-user-action=ignore"];
    run(pip.args(options).args(["--target", "site", "--index-url", &index, "loopd-probe"])).await;
    assert!(world.directory().join("site/loopd_probe.py").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_installs_from_a_private_registry() {
    if !has("npm").await {
        return;
    }
    let mut world = World::new();
    world.file("package/package.json", br#"{"name":"loopd-probe","version":"1.0.0"}"#);
    world.file("package/index.js", b"module.exports = 'found'\n");
    let outlet = world.port().await;
    run(program("tar", &world, &outlet).args(["-czf", "probe.tgz", "package"])).await;
    let tarball = std::fs::read(world.directory().join("probe.tgz")).expect("an archive");
    let files =
        HashMap::from([("/loopd-probe".to_owned(), Vec::new()), ("/files/loopd-probe-1.0.0.tgz".to_owned(), tarball)]);
    // The listing names the address of the tarball: it is made when the port is known.
    let listing = Arc::new(parking_lot::Mutex::new(String::new()));
    let (told, wanted) = (listing.clone(), format!("Bearer {SECRET}"));
    let server = Server::answering(move |request: Request<Incoming>| -> Answer {
        let (listing, file) = (told.lock().clone(), files.get(request.uri().path()).cloned());
        let shown =
            request.headers().get("authorization").and_then(|value| value.to_str().ok()) == Some(wanted.as_str());
        Box::pin(async move {
            match file {
                _ if !shown => text_of(StatusCode::UNAUTHORIZED, "{}"),
                None => text_of(StatusCode::NOT_FOUND, "{}"),
                Some(file) if file.is_empty() => text_of(StatusCode::OK, listing),
                Some(file) => text_of(StatusCode::OK, file),
            }
        })
    });
    let server = serve(&mut world, "npm.test", server).await;
    let port = server.port();
    *listing.lock() = format!(
        r#"{{"name":"loopd-probe","dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{{"name":"loopd-probe","version":"1.0.0",
        "dist":{{"tarball":"https://npm.test:{port}/files/loopd-probe-1.0.0.tgz"}}}}}}}}"#
    );
    let config = format!("registry=https://npm.test:{port}/\n//npm.test:{port}/:_authToken=${{TOKEN}}\n");
    world.file("work/.npmrc", config.as_bytes());
    world.file("work/package.json", b"{}");
    let outlet = world.port().await;
    let mut npm = program("npm", &world, &outlet);
    npm.args(["install", "--no-audit", "--no-fund", "--no-update-notifier", "loopd-probe"]);
    run(npm.current_dir(world.directory().join("work"))).await;
    assert!(world.directory().join("work/node_modules/loopd-probe/index.js").exists());
}

const REQUESTS: &str = "
import os, sys
try:
    import requests
except ImportError:
    from pip._vendor import requests
session = requests.Session()
for _ in range(3):
    answer = session.post(sys.argv[1], headers={'X-Key': os.environ['TOKEN']}, json={'token': os.environ['TOKEN']})
    answer.raise_for_status()
    assert os.environ['TOKEN'] in answer.text, answer.text
refused = session.get('https://evil.test/')
print(refused.status_code, refused.reason)
";

/// Where `requests` is under its own name, if its wheel was fetched; pip has a copy in itself.
async fn requests(world: &World) -> Option<PathBuf> {
    let wheels = std::env::var_os("E2E_WHEELS")?;
    let place = world.directory().join("libraries");
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--find-links"]);
    run(pip.arg(wheels).arg("--target").arg(&place).arg("requests")).await;
    Some(place)
}

#[tokio::test(flavor = "multi_thread")]
async fn python_requests() {
    if !has("/usr/bin/python3").await {
        return;
    }
    let mut world = World::new();
    world.limited(&["api.test"]);
    let server = serve(&mut world, "api.test", Server::echo()).await;
    let outlet = world.port().await;
    let mut python = program("/usr/bin/python3", &world, &outlet);
    if let Some(place) = requests(&world).await {
        python.env("PYTHONPATH", place);
    }
    let told = run(python.args(["-c", REQUESTS, &format!("https://api.test:{}/", server.port())])).await;
    assert!(told.starts_with("403 Forbidden: host `evil.test` is not in the environment's allowed_hosts"), "{told}");
    assert_eq!(server.count(), 3);
    assert!(server.seen.lock().iter().all(|seen| seen.header("x-key") == SECRET));
    assert_eq!(*server.connections.lock(), 1);
}

const FETCH: &str = "
require('dns').lookup = (name, options, done) => {
  if (typeof options === 'function') done = options
  options.all ? done(null, [{ address: '127.0.0.2', family: 4 }]) : done(null, '127.0.0.2', 4)
}
const ask = async () => {
  const token = process.env.TOKEN
  const answer = await fetch(process.argv[1], { method: 'POST', headers: { 'x-key': token }, body: token })
  const text = await answer.text()
  if (answer.status !== 200 || !text.includes(token)) throw new Error(text)
}
ask().then(ask).catch(fault => { console.error(fault); process.exit(1) })
";

/// It knows of no proxy: what stands in its way is a stub, as in a room.
#[tokio::test(flavor = "multi_thread")]
async fn node_fetch() {
    if !has("node").await {
        return;
    }
    let mut world = World::new();
    let server = serve(&mut world, "api.test", Server::echo()).await;
    let _stub = world.stub("api.test", server.port()).await;
    let outlet = world.port().await;
    let mut node = program("node", &world, &outlet);
    run(node.args(["-e", FETCH, &format!("https://api.test:{}/", server.port())])).await;
    assert_eq!(server.count(), 2);
    assert!(server.seen.lock().iter().all(|seen| seen.header("x-key") == SECRET && seen.body == SECRET.as_bytes()));
}
