//! Packages of an environment: installed in a room of their own from an index that the operator names, kept as a layer, and
//! there for every session after that.

use loopd_tests::http::{Frame, text};
use loopd_tests::index::{Index, NPM, PIP};
use loopd_tests::script::{runs, says, script};
use loopd_tests::server::Options;
use loopd_tests::{Http, Server, has, root, skip, wheels};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's nobody.
const ORDINARY: u32 = 65534;

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

/// A crate with a program, and the sparse index that names it, <https://doc.rust-lang.org/cargo/reference/registry-index.html>.
const CARGO: &str = r#"
import hashlib, io, json, os, sys, tarfile
at, name = sys.argv[1], "greeting-of-a-test"
files = {
    "Cargo.toml": f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2021"\n[[bin]]\nname = "greet"\npath = "main.rs"\n',
    "Cargo.lock": f'version = 3\n\n[[package]]\nname = "{name}"\nversion = "1.0.0"\n',
    "main.rs": 'fn main() { println!("hello from a crate"); }\n',
}
os.makedirs("index/gr/ee"), os.makedirs("crates")
with tarfile.open(f"crates/{name}.crate", "w:gz") as packed:
    for path, text in files.items():
        entry = tarfile.TarInfo(f"{name}-1.0.0/{path}")
        entry.size, entry.mode = len(text), 0o644
        packed.addfile(entry, io.BytesIO(text.encode()))
cksum = hashlib.sha256(open(f"crates/{name}.crate", "rb").read()).hexdigest()
json.dump({"dl": f"{at}/crates/{{crate}}.crate"}, open("index/config.json", "w"))
json.dump({"name": name, "vers": "1.0.0", "deps": [], "cksum": cksum, "features": {}, "yanked": False}, open(f"index/gr/ee/{name}", "w"))
"#;

/// A repository with one package, <https://wiki.debian.org/DebianRepository/Format>. `key.gpg` knows who signed it, `other.gpg` does not.
const APT: &str = r#"
export GNUPGHOME=$PWD/keys
trap 'gpgconf --kill all' EXIT
mkdir -m 700 keys
for name in key other; do
    gpg --batch --quiet --passphrase '' --quick-generate-key $name@greeting.test rsa2048 sign never
    gpg --batch --quiet --export $name@greeting.test > $name.gpg
done
mkdir -p pool src/DEBIAN src/usr/bin
cat > src/DEBIAN/control <<END
Package: greeting-of-a-test
Version: 1.0
Architecture: all
Maintainer: x <x@greeting.test>
Description: x
END
printf '%s\n' '#!/bin/sh' 'echo hello from apt' > src/usr/bin/greet
chmod 755 src/usr/bin/greet
dpkg-deb --root-owner-group -b src pool/greeting.deb
machine=$(dpkg --print-architecture)
packages=main/binary-$machine/Packages
for suite in tested tested-updates; do
    mkdir -p dists/$suite/main/binary-$machine
    : > dists/$suite/$packages
done
{
    cat src/DEBIAN/control
    echo "Filename: pool/greeting.deb"
    echo "Size: $(stat -c %s pool/greeting.deb)"
    echo "SHA256: $(sha256sum < pool/greeting.deb | cut -d' ' -f1)"
} > dists/tested/$packages
for suite in tested tested-updates; do
    cd dists/$suite
    cat > Release <<END
Suite: $suite
Codename: $suite
Architectures: $machine
Components: main
Date: $(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S UTC')
SHA256:
 $(sha256sum < $packages | cut -d' ' -f1) $(stat -c %s $packages) $packages
END
    gpg --batch --quiet --local-user key@greeting.test --clearsign -o InRelease Release
    cd ../..
done
"#;

/// What a root must have for packages by apt. Some of it only some versions of apt have.
const APT_ROOT: [&str; 30] = [
    "/usr/bin/apt-config",
    "/usr/bin/apt-get",
    "/usr/bin/apt-key",
    "/usr/bin/bash",
    "/usr/bin/cat",
    "/usr/bin/chmod",
    "/usr/bin/cmp",
    "/usr/bin/cp",
    "/usr/bin/dpkg",
    "/usr/bin/dpkg-deb",
    "/usr/bin/find",
    "/usr/bin/gpgv",
    "/usr/bin/grep",
    "/usr/bin/id",
    "/usr/bin/ls",
    "/usr/bin/mkdir",
    "/usr/bin/mktemp",
    "/usr/bin/readlink",
    "/usr/bin/rm",
    "/usr/bin/sed",
    "/usr/bin/sh",
    "/usr/bin/sort",
    "/usr/bin/sqv",
    "/usr/bin/tail",
    "/usr/bin/tar",
    "/usr/bin/touch",
    "/usr/lib/apt/methods/gpgv",
    "/usr/lib/apt/methods/http",
    "/usr/lib/apt/methods/sqv",
    "/usr/lib/apt/methods/store",
];

async fn pip_index() -> Index {
    let index = Index::empty().await;
    index.make("/usr/bin/python3", &["-c", PIP]);
    index
}

fn options(index: &Index) -> Options {
    options_for(index, "pip_index", "/simple")
}

/// A server whose packages of one manager come from here.
fn options_for(index: &Index, setting: &str, path: &str) -> Options {
    options_with(index, &format!("{setting} = \"{}{path}\"", index.url()))
}

fn options_with(index: &Index, images: &str) -> Options {
    let (host, port) = (Index::HOST, index.port());
    Options::default().config(&format!(
        "[images]\n{images}\n\
         [network]\nallow_addresses = [\"{host}:{port}\"]\nhosts = {{ \"{host}\" = \"127.0.0.1\" }}\n"
    ))
}

fn has_pip() -> bool {
    has("/usr/bin/python3", &["-m", "pip", "--version"])
}

async fn run(http: &Http, packages: Value, networking: &str, command: &str) -> Value {
    run_in(http, json!({"networking": {"type": networking}, "packages": packages}), command).await
}

async fn run_in(http: &Http, environment: Value, command: &str) -> Value {
    let system = script(vec![runs(command), says("{{last_result}}")]);
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
    let index = pip_index().await;
    let mut server = Server::with(options(&index));
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
    let index = pip_index().await;
    let user = rustix::process::geteuid().is_root().then_some(ORDINARY);
    let server = Server::with(Options { user, ..options(&index) });
    let command = "/usr/bin/python3 -c 'import greeting_of_a_test as g; print(g.WORD)'";
    let answer = run(&server.http(), json!({"pip": ["greeting-of-a-test"]}), "none", command).await;
    assert_eq!(text(&answer["output"]), "hello from a package\n", "{answer}");
}

#[tokio::test]
async fn what_cannot_be_installed_ends_the_turn_and_names_its_log() {
    if !has_pip() {
        return;
    }
    let index = pip_index().await;
    let server = Server::with(options(&index));
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

#[tokio::test]
async fn whoever_waits_for_an_installation_sees_how_far_it_is() {
    if !has_pip() {
        return;
    }
    let index = pip_index().await;
    let server = Server::with(options(&index));
    let http = server.http();
    index.holds.send_replace(true);
    let system = script(vec![says("done")]);
    let environment = json!({"packages": {"pip": ["greeting-of-a-test"]}});
    let mut stream = http
        .invoke_stream(json!({"model": "builtin/script", "system": system, "input": "go", "environment": environment}))
        .await;
    let is_progress = |frame: &Frame| frame.event == "loopd.room_progress";
    let prints = |frame: &Frame| is_progress(frame) && frame.data["line"].is_string();
    let mut seen = stream.until(prints).await;
    let first = &seen.iter().find(|frame| is_progress(frame)).expect("one at least").data;
    assert_eq!((&first["stage"], &first["what"]), (&json!("install"), &json!("packages by pip")), "{first}");
    let printed = &seen.last().expect("the last").data;
    assert_eq!((&printed["unit"], printed["done"].as_u64() > Some(0)), (&json!("lines"), true), "{printed}");
    // Who comes late is told how it stands; who did not ask, and whoever looks at what is kept, is told nothing.
    let session = seen[0].data["session_id"].as_str().expect("an id").to_owned();
    let mut late = http.follow_with(&session, "event_deltas[]=loopd.room_progress").await;
    let told = late.until(is_progress).await;
    assert_eq!(told.last().expect("the last").data["what"], "packages by pip");
    let mut plain = http.follow(&session, 0).await;
    index.holds.send_replace(false);
    seen.extend(stream.until_end().await);
    let at = |event: &str| seen.iter().position(|frame| frame.event == event).expect(event);
    let last = seen.iter().rposition(is_progress).expect("one at least");
    assert!(at("loopd.invoke_started") < last && last < at("span.model_request_start"), "{seen:?}");
    assert!(
        seen.iter().filter(|frame| is_progress(frame)).all(|frame| frame.seq.is_none() && frame.data["id"].is_null())
    );
    assert_eq!(seen.last().expect("a result").data["status"], "completed");
    let others = plain.until(|frame| frame.event == "session.status_idle").await;
    assert!(!others.iter().any(is_progress));
    assert!(http.events(&session).await.iter().all(|event| event["type"] != "loopd.room_progress"));
}

/// What a session finds of one package that a manager took from an index.
async fn finds(index: &Index, (setting, path): (&str, &str), packages: Value, command: &str, expected: &str) {
    let server = Server::with(options_for(index, setting, path));
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

/// Whether rooms have one that can read a sparse index.
fn has_cargo() -> bool {
    let said = Command::new("/usr/bin/cargo").arg("--version").output().map(|done| done.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let minor = said.strip_prefix("cargo 1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    let reads = minor.is_some_and(|minor| minor >= 68);
    if !reads {
        skip(&format!("`/usr/bin/cargo` is not 1.68 or later, but `{}`: install the package `cargo-web`", said.trim()));
    }
    reads
}

#[tokio::test]
async fn cargo_compiles_programs() {
    if !has_cargo() {
        return;
    }
    let index = Index::empty().await;
    index.make("/usr/bin/python3", &["-c", CARGO, &index.url()]);
    let packages = json!({"cargo": ["greeting-of-a-test@1.0.0"]});
    finds(&index, ("cargo_index", "/index"), packages, "greet", "hello from a crate").await;
}

/// A repository of apt's, and a server that allows roots which trust it, or somebody else. The host's own trusts Debian alone.
struct Debian {
    index: Index,
    server: Server,
    roots: PathBuf,
}

impl Debian {
    /// `None`: this is no Debian, which is said.
    async fn new() -> Option<Self> {
        if !["apt-get", "dpkg-deb", "gpg", "gpg-agent"].iter().all(|program| has(program, &["--version"])) {
            return None;
        }
        let index = Index::empty().await;
        index.make("sh", &["-ec", APT]);
        let place = tempfile::TempDir::with_prefix("loopd-test-").expect("a directory");
        let roots = place.path().canonicalize().expect("there").join("roots");
        for keys in ["key", "other"] {
            lay(&roots.join(keys), &index.place().join(format!("{keys}.gpg")));
        }
        let images = format!("apt_mirror = \"{}\"\nallow_directories = [{roots:?}]", index.url());
        let server = Server::on(place, options_with(&index, &images));
        Some(Debian { index, server, roots })
    }

    async fn run(&self, keys: &str, package: &str, command: &str) -> Value {
        let root = json!({"type": "directory", "path": self.roots.join(keys)});
        let packages = json!({"apt": [package]});
        let environment = json!({"root": root, "packages": packages, "networking": {"type": "none"}});
        run_in(&self.server.http(), environment, command).await
    }
}

/// A root of a distribution that calls itself Debian, with nothing installed, and with these keys.
fn lay(tree: &Path, keys: &Path) {
    let there: Vec<&str> = APT_ROOT.into_iter().filter(|program| Path::new(program).exists()).collect();
    fs::create_dir_all(tree).expect("made");
    root::lay(tree, &there);
    for table in ["cputable", "tupletable"] {
        root::put(tree, &Path::new("/usr/share/dpkg").join(table));
    }
    for directory in ["usr/share/keyrings", "var/lib/dpkg"] {
        fs::create_dir_all(tree.join(directory)).expect("made");
    }
    fs::write(tree.join("etc/os-release"), "ID=debian\nVERSION_CODENAME=tested\n").expect("written");
    fs::write(tree.join("var/lib/dpkg/status"), "").expect("written");
    fs::copy(keys, tree.join("usr/share/keyrings/debian-archive-keyring.gpg")).expect("copied");
}

#[tokio::test]
async fn apt_installs_programs() {
    let Some(debian) = Debian::new().await else { return };
    let command = "greet; command -v greet; touch /usr/bin/x";
    let answer = debian.run("key", "greeting-of-a-test", command).await;
    let said = text(&answer["output"]);
    assert!(said.starts_with("hello from apt\n/usr/bin/greet\n"), "{answer}");
    assert!(said.contains("Read-only file system"), "{answer}");
    // Once for all sessions.
    let asked = debian.index.asked();
    assert_eq!(asked.iter().filter(|path| path.ends_with(".deb")).count(), 1, "{asked:?}");
    let again = debian.run("key", "greeting-of-a-test", command).await;
    assert!(text(&again["output"]).starts_with("hello from apt\n"), "{again}");
    assert_eq!(debian.index.asked(), asked);
}

#[tokio::test]
async fn what_apt_does_not_have_or_does_not_trust_ends_the_turn_and_names_its_log() {
    let Some(debian) = Debian::new().await else { return };
    for (keys, package, told) in [
        ("key", "absent-of-a-test", "Unable to locate package absent-of-a-test"),
        // Somebody else's signature is none.
        ("other", "greeting-of-a-test", "is not signed"),
    ] {
        let said = debian.run(keys, package, "echo never").await.to_string();
        assert!(said.contains("packages by apt: exit status 100; its log, `images/logs/"), "{said}");
        assert!(said.contains(told), "{said}");
        let logs = debian.server.data().join("images/logs");
        let log = names(&logs).into_iter().find(|name| said.contains(name.as_str())).expect("it is named");
        let log = fs::read_to_string(logs.join(log)).expect("it is there");
        assert!(log.contains(told), "{log}");
    }
    assert!(names(&debian.server.data().join("images/layers")).is_empty());
    assert!(debian.index.asked().iter().all(|path| !path.ends_with(".deb")), "{:?}", debian.index.asked());
}

#[tokio::test]
async fn numpy_calculates_from_a_layer_and_from_the_workspace() {
    let Some(wheels) = wheels().filter(|_| has_pip()) else { return };
    let index = Index::of_wheels(&wheels).await;
    let server = Server::with(options(&index));
    let sum = "(numpy.eye(2)@numpy.ones((2,2))).sum()";
    let command = format!(
        "/usr/bin/python3 -c 'import numpy; print({sum})' && \
         at=$(/usr/bin/python3 -c 'import numpy; print(numpy.__path__[0])') && \
         mkdir copy && cp -r \"${{at%/*}}\"/numpy* copy && \
         PYTHONPATH=$PWD/copy /usr/bin/python3 -c 'import numpy; print(numpy.__path__[0], {sum})'"
    );
    let answer = run(&server.http(), json!({"pip": ["numpy"]}), "none", &command).await;
    assert_eq!(text(&answer["output"]), "4.0\n/workspace/copy/numpy 4.0\n", "{answer}");
}
