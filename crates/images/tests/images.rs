//! Images from a registry of our own, from archives, and directories: good ones, torn ones and hostile ones.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

mod support;

use loopd_domain::environment::RootSource;
use loopd_domain::limits::{IMAGE_UNUSED_MS, LAYER_GRACE_MS};
use loopd_domain::progress::{Part, Stage, Unit};
use loopd_images::{ImageErrorKind, Images, Resolved, Settings};
use loopd_sandbox::RoomRoot;
use loopd_sandbox::progress::Teller;
use std::fs;
use std::path::{Path, PathBuf};
use support::{Host, Image, Server, layer};

fn paths(resolved: &Resolved) -> Vec<PathBuf> {
    match &resolved.root {
        RoomRoot::Layers(paths) => paths.clone(),
        RoomRoot::Host | RoomRoot::HostWith(_) => panic!("the host's"),
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

async fn resolve(host: &Host, reference: &str) -> Result<Resolved, String> {
    let source = RootSource::Image { reference: reference.to_owned() };
    host.images.resolve(&source, &Teller::silent()).await.map_err(|fault| fault.to_string())
}

async fn archive(host: &Host, name: &str) -> Result<Resolved, String> {
    let source = RootSource::Archive { path: host.allowed.join(name).to_str().unwrap().to_owned() };
    host.images.resolve(&source, &Teller::silent()).await.map_err(|fault| fault.to_string())
}

fn two_layers() -> Image {
    let mut image = Image::new(vec![layer(&[("etc/a", "below"), ("etc/b", "b")]), layer(&[("etc/a", "above")])]);
    image.variables = vec!["PATH=/opt/bin:/bin".to_owned(), "HOME=/root".to_owned()];
    image
}

#[tokio::test]
async fn an_image_is_fetched_once_and_then_is_what_it_was() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let reference = server.publish("team/app:1", &two_layers());
    let first = resolve(&host, &reference).await.unwrap();
    let layers = paths(&first);
    // The uppermost first, as overlayfs wants it.
    assert_eq!((read(&layers[0].join("etc/a")), read(&layers[1].join("etc/a"))), ("above".into(), "below".into()));
    assert_eq!(first.variables, [("PATH".to_owned(), "/opt/bin:/bin".to_owned())]);
    // The tag moves on. Who is here stays with what it was, through restarts, also when the cache is lost.
    server.publish("team/app:1", &Image::new(vec![layer(&[("etc/a", "other")])]));
    assert_eq!(resolve(&host, &reference).await.unwrap(), first);
    let asked = server.requests();
    let host = host.again();
    assert_eq!(resolve(&host, &reference).await.unwrap(), first);
    assert_eq!(server.requests(), asked);
    assert_eq!(host.images.variables(&RootSource::Image { reference: reference.clone() }), first.variables);
    fs::remove_dir_all(&layers[0]).unwrap();
    assert_eq!(resolve(&host, &reference).await.unwrap(), first);
    assert_eq!(read(&layers[0].join("etc/a")), "above");
    // Until the operator asks.
    let (name, pin) = host.images.pull(&reference).await.unwrap();
    assert_eq!(name, reference);
    assert_eq!(pin.layers.len(), 1);
    assert_eq!(read(&paths(&resolve(&host, &reference).await.unwrap())[0].join("etc/a")), "other");
}

#[tokio::test]
async fn many_who_want_the_same_are_one_request() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let reference = server.publish("app:1", &two_layers());
    let wants: Vec<_> = (0..8).map(|_| resolve(&host, &reference)).collect();
    for resolved in futures_util::future::join_all(wants).await {
        assert_eq!(paths(&resolved.unwrap()).len(), 2);
    }
    assert_eq!(server.blobs_served(), 3);
    // Layers are shared between images.
    let mut more = two_layers();
    more.layers.push(layer(&[("etc/c", "c")]));
    let reference = server.publish("app:2", &more);
    resolve(&host, &reference).await.unwrap();
    assert_eq!(server.blobs_served(), 5);
}

#[tokio::test]
async fn the_platform_and_the_packing_are_found() {
    let server = Server::start().await;
    let host = Host::new(&server);
    for packing in ["plain", "gzip", "zstd"] {
        let mut image = two_layers();
        image.packing = packing;
        let reference = server.publish_index(&format!("multi:{packing}"), &image);
        let resolved = resolve(&host, &reference).await.unwrap();
        assert_eq!(paths(&resolved).len(), 2, "{packing}");
    }
    let digest = server.publish_index("pinned:1", &two_layers());
    let by_digest = server.by_digest("pinned", "1");
    assert_ne!(digest, by_digest);
    assert_eq!(paths(&resolve(&host, &by_digest).await.unwrap()).len(), 2);
}

#[tokio::test]
async fn what_is_not_as_it_was_named_is_refused_and_leaves_nothing() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let reference = server.publish("torn:1", &two_layers());
    server.tamper("torn", |blob| blob.truncate(blob.len() - 10));
    assert!(resolve(&host, &reference).await.is_err());
    let reference = server.publish("turned:1", &two_layers());
    server.tamper("turned", |blob| blob[20] ^= 1);
    let told = resolve(&host, &reference).await.unwrap_err();
    assert!(told.starts_with(&format!("image `{reference}`")), "{told}");
    let reference = server.publish("long:1", &two_layers());
    server.tamper("long", |blob| blob.extend([0; 4096]));
    assert!(resolve(&host, &reference).await.is_err());
    // Digests that fit, content that does not.
    let mut lies = two_layers();
    lies.diff_ids = Some(vec![layer(&[("x", "x")]), layer(&[("y", "y")])]);
    let reference = server.publish("lies:1", &lies);
    let told = resolve(&host, &reference).await.unwrap_err();
    assert!(told.contains("its content has the digest"), "{told}");
    let mut fewer = two_layers();
    fewer.diff_ids = Some(vec![layer(&[("x", "x")])]);
    let told = resolve(&host, &server.publish("fewer:1", &fewer)).await.unwrap_err();
    assert!(told.contains("it has 2 layers, and its configuration names 1"), "{told}");
    let hostile = Image::new(vec![support::tar_with("../../outside", "hit")]);
    let told = resolve(&host, &server.publish("hostile:1", &hostile)).await.unwrap_err();
    assert!(told.contains("leads outside"), "{told}");
    let bomb = Image::new(vec![layer(&[("zeros", &"\0".repeat(8 << 20))])]);
    let told = resolve(&host, &server.publish("bomb:1", &bomb)).await.unwrap_err();
    assert!(told.contains("larger than 1048576 bytes"), "{told}");
    let told = resolve(&host, &format!("{}/absent:1", server.address)).await.unwrap_err();
    assert!(told.contains("image `"), "{told}");
    let left = |name: &str| fs::read_dir(host.data().join("images").join(name)).unwrap().count();
    // One layer of `lies` may not be there, of `torn` neither; nothing is unfinished.
    assert_eq!((left("layers"), left("work")), (0, 0));
    assert_eq!(host.images.list(), []);
}

#[tokio::test]
async fn only_registries_and_directories_that_are_allowed_are_asked() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let port: u16 = server.address.rsplit_once(':').unwrap().1.parse().unwrap();
    for reference in
        [format!("localhost:{port}/app:1"), "169.254.169.254/latest:1".to_owned(), "evil.example/x".to_owned()]
    {
        let told = resolve(&host, &reference).await.unwrap_err();
        assert!(told.contains("is not one that this host asks") && told.contains("allow_registries"), "{told}");
    }
    assert!(resolve(&host, "Not A Reference").await.unwrap_err().contains("accepted: `debian:12`"));
    assert_eq!(server.requests(), 0);

    let root = host.allowed.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(host.allowed.join("file"), "").unwrap();
    std::os::unix::fs::symlink("/etc", host.allowed.join("away")).unwrap();
    std::os::unix::fs::symlink("root", host.allowed.join("alias")).unwrap();
    let directory = async |path: &str| {
        let source = RootSource::Directory { path: path.to_owned() };
        host.images.resolve(&source, &Teller::silent()).await.map_err(|fault| (fault.kind(), fault.to_string()))
    };
    let at = |name: &str| host.allowed.join(name).to_str().unwrap().to_owned();
    assert_eq!(paths(&directory(&at("alias")).await.unwrap()), std::slice::from_ref(&root));
    for (path, told) in [
        (at("absent"), "does not exist"),
        (at("file"), "not a directory"),
        (at("away"), "not below a directory that this host allows"),
        (at("../../etc"), "has `..` in it"),
        ("/etc".to_owned(), "not below"),
        ("root".to_owned(), "not absolute"),
    ] {
        let (kind, fault) = directory(&path).await.unwrap_err();
        assert!(fault.contains(told), "{path}: {fault}");
        assert_eq!(kind, ImageErrorKind::Refused);
    }
}

#[tokio::test]
async fn directories_that_hold_what_sessions_wrote_are_no_roots() {
    let server = Server::start().await;
    let host = Host::new(&server);
    for name in ["", "data", "data/sessions"] {
        let directory = host.allowed.parent().unwrap().join(name);
        fs::create_dir_all(&directory).unwrap();
        let settings = Settings { directories: vec![directory], ..Settings::default() };
        let told = Images::open(&host.data(), settings, host.clock.clone()).err().unwrap().to_string();
        assert!(told.contains("accepted: directories apart from it"), "{told}");
    }
}

#[tokio::test]
async fn credentials_are_the_operators() {
    let server = Server::start().await;
    server.demand("loopd", "open sesame");
    let host = Host::new(&server);
    let reference = server.publish("private:1", &two_layers());
    assert!(resolve(&host, &reference).await.is_err());
    host.docker_login(&server.address, "loopd", "wrong");
    let told = resolve(&host, &reference).await.unwrap_err();
    assert!(!told.contains("wrong"), "{told}");
    host.docker_login(&server.address, "loopd", "open sesame");
    assert_eq!(paths(&resolve(&host, &reference).await.unwrap()).len(), 2);
}

#[tokio::test]
async fn a_token_is_asked_for_where_the_registry_says_and_shown_to_nobody_else() {
    let server = Server::start().await;
    server.demand_token("loopd", "open sesame");
    let host = Host::new(&server);
    let reference = server.publish("private:1", &two_layers());
    host.docker_login(&server.address, "loopd", "wrong");
    let told = resolve(&host, &reference).await.unwrap_err();
    assert!(
        told.contains("answered 401") && told.contains("docker configuration") && !told.contains("wrong"),
        "{told}"
    );
    host.docker_login(&server.address, "loopd", "open sesame");
    assert_eq!(paths(&resolve(&host, &reference).await.unwrap()).len(), 2);
}

#[tokio::test]
async fn layers_may_lie_elsewhere_and_not_everywhere() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let reference = server.publish("app:1", &two_layers());
    for (to, told) in [("round/", "it leads from one address to the next"), ("ftp://127.0.0.1/", "without TLS")] {
        let to = if to.contains(':') { to.to_owned() } else { format!("http://{}/{to}", server.address) };
        server.send_on(Some(to));
        let fault = resolve(&host, &reference).await.unwrap_err();
        assert!(fault.contains(told), "{fault}");
    }
    server.send_on(Some(format!("http://{}/elsewhere/", server.address)));
    assert_eq!(paths(&resolve(&host, &reference).await.unwrap()).len(), 2);
    // Who sends layers is not told who we are, whatever it asks for.
    let thief = Server::start().await;
    thief.demand_token("loopd", "open sesame");
    host.docker_login(&server.address, "loopd", "open sesame");
    let reference = server.publish("app:2", &Image::new(vec![layer(&[("etc/a", "another")])]));
    server.send_on(Some(format!("http://{}/v2/x/blobs/", thief.address)));
    let fault = resolve(&host, &reference).await.unwrap_err();
    assert!(fault.contains("answered 401"), "{fault}");
    assert_eq!(thief.requests(), 1, "no token was asked for");
}

#[tokio::test]
async fn a_registry_that_never_stops_is_cut_off() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let source = |name: &str| RootSource::Image { reference: server.publish(name, &two_layers()) };
    let fault = async |source: &RootSource| host.images.resolve(source, &Teller::silent()).await.unwrap_err();
    for (part, told) in
        [("/manifests/1", "`manifests/1` has more than 4194304 bytes"), ("/blobs/", "has more than 4194304 bytes")]
    {
        server.never_end(Some(part));
        let fault = fault(&source("app:1")).await;
        assert!(fault.to_string().contains(told), "{fault}");
        assert_eq!(fault.kind(), ImageErrorKind::Broken);
    }
    // What it says of a refusal, and the token that it gives.
    server.never_end(Some("/absent/"));
    let absent = RootSource::Image { reference: format!("{}/absent:1", server.address) };
    let told = fault(&absent).await.to_string();
    assert!(told.contains("the registry answered 404 Not Found"), "{told}");
    server.demand_token("nobody", "x");
    server.never_end(Some("/token"));
    let told = fault(&source("private:1")).await.to_string();
    assert!(told.contains("gave a token of more than 65536 bytes"), "{told}");
    assert_eq!(fs::read_dir(host.data().join("images/work")).unwrap().count(), 0);
}

#[tokio::test]
async fn whoever_waits_for_an_image_hears_of_each_layer() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let (teller, heard) = Teller::new();
    let source = RootSource::Image { reference: server.publish("app:1", &two_layers()) };
    host.images.resolve(&source, &teller).await.unwrap();
    let last = heard.borrow().clone().unwrap();
    assert_eq!((last.stage, last.what), (Stage::Unpack, format!("image `{}/app:1`", server.address)));
    assert_eq!(last.part, Some(Part { part: 2, parts: 2 }));
    let amount = last.amount.unwrap();
    assert_eq!((Some(amount.done), amount.unit), (amount.total, Unit::Bytes));
    // Nobody waits for what is here.
    let (teller, heard) = Teller::new();
    host.images.resolve(&source, &teller).await.unwrap();
    assert_eq!(*heard.borrow(), None);
}

#[tokio::test]
async fn archives_of_both_kinds_are_read() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let image = two_layers();
    fs::write(host.allowed.join("oci.tar"), image.oci_archive()).unwrap();
    fs::write(host.allowed.join("docker.tar"), image.docker_archive()).unwrap();
    let oci = archive(&host, "oci.tar").await.unwrap();
    assert_eq!(read(&paths(&oci)[0].join("etc/a")), "above");
    assert_eq!(oci.variables.len(), 1);
    assert_eq!(archive(&host, "docker.tar").await.unwrap(), oci);
    // Another content under the same name is another root.
    fs::write(host.allowed.join("oci.tar"), Image::new(vec![layer(&[("etc/a", "new")])]).oci_archive()).unwrap();
    assert_eq!(read(&paths(&archive(&host, "oci.tar").await.unwrap())[0].join("etc/a")), "new");

    let whole = image.docker_archive();
    for (name, bytes, told) in [
        ("cut.tar", &whole[..whole.len() / 2], "no archive"),
        ("text.tar", b"hello, this is no archive at all".as_slice(), "image archive `"),
        ("empty.tar", &[0; 1024], "has neither"),
        ("gzip.tar", &[0x1f, 0x8b, 8, 0], "unpack it with `gunzip`"),
    ] {
        fs::write(host.allowed.join(name), bytes).unwrap();
        let fault = archive(&host, name).await.unwrap_err();
        assert!(fault.contains(told), "{name}: {fault}");
    }
    // Each byte of the archive turned: never another content under the digest of this one.
    let small = Image::new(vec![layer(&[("etc/a", "small")])]).oci_archive();
    for at in (0..small.len()).step_by(211) {
        let mut turned = small.clone();
        turned[at] ^= 0x10;
        fs::write(host.allowed.join("turned.tar"), turned).unwrap();
        if let Ok(resolved) = archive(&host, "turned.tar").await {
            assert_eq!(read(&paths(&resolved)[0].join("etc/a")), "small", "byte {at}");
        }
    }
}

#[tokio::test]
async fn what_nobody_needs_goes_and_what_a_room_is_made_of_stays() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let old = server.publish("app:1", &Image::new(vec![layer(&[("a", "old")]), layer(&[("b", "shared")])]));
    let layers = paths(&resolve(&host, &old).await.unwrap());
    server.publish("app:1", &Image::new(vec![layer(&[("a", "new")]), layer(&[("b", "shared")])]));
    host.images.pull(&old).await.unwrap();
    // Somebody may be about to start a room.
    assert_eq!(host.images.collect(&[]).unwrap().removed, 0);
    host.clock.advance(LAYER_GRACE_MS + 1_000);
    let in_use = std::slice::from_ref(&layers[1]);
    assert_eq!(host.images.collect(in_use).unwrap().removed, 0);
    assert_eq!(host.images.collect(&[]).unwrap().removed, 1);
    assert!(!layers[1].exists() && layers[0].exists());
    // An image that was removed, and one that nobody has wanted for long.
    assert!(host.images.remove(&old).unwrap());
    let other = server.publish("other:1", &Image::new(vec![layer(&[("c", "c")])]));
    resolve(&host, &other).await.unwrap();
    assert_eq!(host.images.collect(&[]).unwrap().removed, 2);
    host.clock.advance(IMAGE_UNUSED_MS + LAYER_GRACE_MS);
    assert_eq!(host.images.collect(&[]).unwrap().removed, 1);
    assert_eq!(host.images.list(), []);
}

#[tokio::test]
async fn what_a_killed_host_left_unfinished_is_cleared_away() {
    let server = Server::start().await;
    let host = Host::new(&server);
    let left = host.data().join("images/work/7/layer");
    fs::create_dir_all(left.join("etc")).unwrap();
    fs::write(left.join("etc/half"), "").unwrap();
    let host = host.again();
    assert!(!left.exists());
    let reference = server.publish("app:1", &two_layers());
    assert_eq!(paths(&resolve(&host, &reference).await.unwrap()).len(), 2);
}
