//! A site of files: what an index of packages is to whoever asks, and a registry that nobody pushes to.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Packs a wheel and the page that names it, without anything but the standard library.
pub const PIP: &str = r#"
import os, sys, zipfile
name = "greeting_of_a_test-1.0-py3-none-any.whl"
info = "greeting_of_a_test-1.0.dist-info/"
os.makedirs("files"), os.makedirs("simple/greeting-of-a-test")
with open("simple/greeting-of-a-test/index.html", "w") as page:
    page.write(f'<!DOCTYPE html><html><body><a href="../../files/{name}">{name}</a></body></html>')
with zipfile.ZipFile("files/" + name, "w") as wheel:
    wheel.writestr("greeting_of_a_test.py", "WORD = 'hello from a package'\n")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: greeting-of-a-test\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
"#;

/// A package of npm with a program, to be found at the address that is its argument: <https://github.com/npm/registry/blob/main/docs/REGISTRY-API.md>.
pub const NPM: &str = r##"
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

/// An image as registries have it, <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull>.
const IMAGE: &str = r#"
import gzip, hashlib, io, json, os, sys, tarfile
repository, tag, tree = sys.argv[1:]
def name(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()
def put(kind, content, *more):
    os.makedirs(f"v2/{repository}/{kind}", exist_ok=True)
    for file in [name(content), *more]:
        open(f"v2/{repository}/{kind}/{file}", "wb").write(content)
    return {"digest": name(content), "size": len(content)}
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as packed:
    packed.add(tree, arcname=".")
layer = layer.getvalue()
of = "application/vnd.oci.image."
config = {"os": "linux", "config": {"Env": ["APP=image"]}, "rootfs": {"type": "layers", "diff_ids": [name(layer)]}}
manifest = {
    "schemaVersion": 2,
    "mediaType": of + "manifest.v1+json",
    "config": {"mediaType": of + "config.v1+json", **put("blobs", json.dumps(config).encode())},
    "layers": [{"mediaType": of + "layer.v1.tar+gzip", **put("blobs", gzip.compress(layer, 1))}],
}
print(put("manifests", json.dumps(manifest).encode(), tag)["digest"])
"#;

/// A site of files that remembers what was asked.
pub struct Index {
    port: u16,
    place: Arc<TempDir>,
    asked: Arc<Mutex<Vec<String>>>,
    /// While this is true wheels are not handed out.
    pub holds: watch::Sender<bool>,
}

impl Index {
    /// As rooms name it.
    pub const HOST: &'static str = "index.test";

    pub async fn empty() -> Self {
        let place = Arc::new(tempfile::tempdir().expect("a directory"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, served) = (asked.clone(), place.clone());
        let holds = watch::Sender::new(false);
        let held = holds.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, served.clone(), seen.clone(), held.clone()));
            }
        });
        Index { port, place, asked, holds }
    }

    /// Runs a program where the files lie; answers what it prints.
    pub fn make(&self, program: &str, arguments: &[&str]) -> String {
        let made = Command::new(program).args(arguments).current_dir(self.place.path()).output().expect("it is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8_lossy(&made.stdout).trim_end().to_owned()
    }

    /// Where the files lie.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// Publishes an image with one layer, which has all that is in `tree`, as a registry that speaks HTTP without TLS. Answers the
    /// digest of its manifest.
    pub fn publish(&self, repository: &str, tag: &str, tree: &Path) -> String {
        let tree = tree.to_str().expect("a path");
        self.make("python3", &["-c", IMAGE, repository, tag, tree])
    }

    /// As images' references name the registry.
    pub fn registry(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// As rooms name it.
    pub fn url(&self) -> String {
        format!("http://{}:{}", Self::HOST, self.port)
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Of wheels that lie in a directory, as pip wants to find them.
    pub async fn of_wheels(wheels: &Path) -> Self {
        let index = Self::empty().await;
        let script = r#"
import os, pathlib, re, shutil, sys
for wheel in pathlib.Path(sys.argv[1]).glob("*.whl"):
    name = re.sub("[-_.]+", "-", wheel.name.split("-")[0]).lower()
    os.makedirs("files", exist_ok=True), os.makedirs("simple/" + name, exist_ok=True)
    shutil.copy(wheel, "files")
    with open(f"simple/{name}/index.html", "a") as page:
        page.write(f'<a href="/files/{wheel.name}">{wheel.name}</a>\n')
"#;
        index.make("python3", &["-c", script, wheels.to_str().expect("a path")]);
        index
    }
}

async fn answer(
    mut stream: TcpStream,
    place: Arc<TempDir>,
    asked: Arc<Mutex<Vec<String>>>,
    mut held: watch::Receiver<bool>,
) {
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
    if path.ends_with(".whl") && held.wait_for(|held| !held).await.is_err() {
        return;
    }
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
