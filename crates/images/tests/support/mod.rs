//! A registry that serves what a test publishes, images put together by hand, and a host that wants them.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use loopd_domain::{Clock, Timestamp};
use loopd_images::digest::Digest;
use loopd_images::unpack::Limits;
use loopd_images::{Images, Settings};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Bytes of a layer that hosts of these tests accept.
const LAYER_BYTES: u64 = 1 << 20;

pub fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// With a path that no honest writer takes.
pub fn tar_with(path: &str, content: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, content.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

pub struct Image {
    /// Plain archives, the lowest first.
    pub layers: Vec<Vec<u8>>,
    /// Whose digests the configuration names instead.
    pub diff_ids: Option<Vec<Vec<u8>>>,
    pub variables: Vec<String>,
    pub packing: &'static str,
}

impl Image {
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        Image { layers, diff_ids: None, variables: Vec::new(), packing: "gzip" }
    }

    fn architecture() -> &'static str {
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
    }

    fn config(&self) -> Vec<u8> {
        let layers = self.diff_ids.as_ref().unwrap_or(&self.layers);
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        json!({
            "architecture": Self::architecture(), "os": "linux",
            "config": {"Env": self.variables, "Entrypoint": ["/nothing"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes()
    }

    fn packed(&self) -> Vec<Vec<u8>> {
        self.layers.iter().map(|layer| pack(self.packing, layer)).collect()
    }

    fn manifest(&self) -> Value {
        let describe =
            |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let layers: Vec<Value> = self.packed().iter().map(|layer| describe(kind, layer)).collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("application/vnd.oci.image.config.v1+json", &self.config()),
            "layers": layers,
        })
    }

    fn index(manifest: &[u8]) -> Value {
        let entry = |digest: Digest, arch: &str| {
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
                   "platform": {"os": "linux", "architecture": arch}})
        };
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
               "manifests": [entry(Digest::of(b"another"), "s390x"), entry(Digest::of(manifest), Self::architecture())]})
    }

    /// As `skopeo copy … oci-archive:` writes it.
    pub fn oci_archive(&self) -> Vec<u8> {
        let manifest = self.manifest().to_string().into_bytes();
        let index = Self::index(&manifest).to_string().into_bytes();
        let mut files = vec![("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec())];
        files.push(("index.json".to_owned(), index));
        for blob in self.packed().into_iter().chain([manifest, self.config()]) {
            files.push((format!("blobs/sha256/{}", Digest::of(&blob).hex()), blob));
        }
        pack_files(&files)
    }

    /// As `docker save` wrote it for years.
    pub fn docker_archive(&self) -> Vec<u8> {
        let names: Vec<String> = (0..self.layers.len()).map(|n| format!("layer{n}/layer.tar")).collect();
        let manifest = json!([{"Config": "config.json", "RepoTags": ["app:1"], "Layers": names}]);
        let mut files: Vec<_> = names.into_iter().zip(self.layers.clone()).collect();
        files.push(("config.json".to_owned(), self.config()));
        files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        pack_files(&files)
    }
}

fn pack(packing: &str, layer: &[u8]) -> Vec<u8> {
    match packing {
        "gzip" => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(layer).unwrap();
            gzip.finish().unwrap()
        }
        "zstd" => zstd::encode_all(layer, 3).unwrap(),
        _ => layer.to_vec(),
    }
}

fn pack_files(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, &content[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

#[derive(Default)]
struct Content {
    /// By repository and tag or digest.
    manifests: HashMap<(String, String), Vec<u8>>,
    /// By repository and digest.
    blobs: HashMap<(String, String), Vec<u8>>,
    requests: usize,
    blobs_served: usize,
    demands: Option<String>,
    /// What is to be shown for a token, where tokens are wanted.
    token_for: Option<String>,
    /// Answers to paths with this in them have no end.
    endless: Option<&'static str>,
    /// Where blobs are sent on to; they lie in `/elsewhere/` too.
    elsewhere: Option<String>,
}

const TOKEN: &str = "the-token-of-a-test";

/// A registry on loopback, without TLS.
pub struct Server {
    pub address: String,
    content: Arc<Mutex<Content>>,
}

impl Server {
    pub async fn start() -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&content));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Server { address, content }
    }

    /// Answers the whole reference. `name`: `repository:tag`.
    pub fn publish(&self, name: &str, image: &Image) -> String {
        let manifest = image.manifest().to_string().into_bytes();
        self.put(name, image, manifest)
    }

    /// As an image for several machines.
    pub fn publish_index(&self, name: &str, image: &Image) -> String {
        let manifest = image.manifest().to_string().into_bytes();
        let index = Image::index(&manifest).to_string().into_bytes();
        self.put(name, image, manifest);
        let (repository, tag) = name.split_once(':').unwrap();
        let mut content = self.content.lock();
        content.manifests.insert((repository.to_owned(), Digest::of(&index).to_string()), index.clone());
        content.manifests.insert((repository.to_owned(), tag.to_owned()), index);
        format!("{}/{name}", self.address)
    }

    fn put(&self, name: &str, image: &Image, manifest: Vec<u8>) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        let mut content = self.content.lock();
        for blob in image.packed().into_iter().chain([image.config()]) {
            content.blobs.insert((repository.to_owned(), Digest::of(&blob).to_string()), blob);
        }
        content.manifests.insert((repository.to_owned(), Digest::of(&manifest).to_string()), manifest.clone());
        content.manifests.insert((repository.to_owned(), tag.to_owned()), manifest);
        format!("{}/{name}", self.address)
    }

    pub fn by_digest(&self, repository: &str, tag: &str) -> String {
        let content = self.content.lock();
        let manifest = &content.manifests[&(repository.to_owned(), tag.to_owned())];
        format!("{}/{repository}@{}", self.address, Digest::of(manifest))
    }

    /// Changes what is sent for a repository's layers, under the names that they have.
    pub fn tamper(&self, repository: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut content = self.content.lock();
        let blobs = content.blobs.iter_mut().filter(|((name, _), blob)| name == repository && !blob.starts_with(b"{"));
        blobs.for_each(|(_, blob)| change(blob));
    }

    /// From now on only with these credentials.
    pub fn demand(&self, user: &str, password: &str) {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.content.lock().demands = Some(format!("Basic {pair}"));
    }

    /// From now on only with a token, which is given for these credentials.
    pub fn demand_token(&self, user: &str, password: &str) {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.content.lock().token_for = Some(format!("Basic {pair}"));
    }

    pub fn never_end(&self, part: Option<&'static str>) {
        self.content.lock().endless = part;
    }

    pub fn send_on(&self, to: Option<String>) {
        self.content.lock().elsewhere = to;
    }

    pub fn requests(&self) -> usize {
        self.content.lock().requests
    }

    pub fn blobs_served(&self) -> usize {
        self.content.lock().blobs_served
    }
}

async fn serve(State(content): State<Arc<Mutex<Content>>>, request: Request) -> Response {
    let mut content = content.lock();
    content.requests += 1;
    let answer = |status: u16| Response::builder().status(status);
    let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if content.demands.is_some() && content.demands.as_deref() != given {
        return answer(401).header("www-authenticate", "Basic realm=\"registry\"").body(Body::empty()).unwrap();
    }
    let whole = request.uri().path().to_owned();
    if content.endless.is_some_and(|part| whole.contains(part)) {
        let more = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 << 10]));
        return answer(if whole.contains("absent") { 404 } else { 200 }).body(Body::from_stream(more)).unwrap();
    }
    if let Some(wanted) = &content.token_for {
        if whole == "/token" {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let fits = given == Some(wanted)
                && query.contains("scope=repository%3Aprivate%3Apull")
                && query.contains("service=tests");
            let body = serde_json::json!({"access_token": TOKEN}).to_string();
            return answer(if fits { 200 } else { 401 })
                .body(Body::from(if fits { body } else { "{}".to_owned() }))
                .unwrap();
        }
        if given != Some(&format!("Bearer {TOKEN}")) {
            let host = request.headers()["host"].to_str().unwrap();
            let challenge =
                format!("Bearer realm=\"http://{host}/token\",service=\"tests\",scope=\"repository:x:pull\"");
            return answer(401).header("www-authenticate", challenge).body(Body::empty()).unwrap();
        }
    }
    if let Some(to) = &content.elsewhere
        && let Some((_, digest)) = whole.split_once("/blobs/").filter(|_| whole.starts_with("/v2/"))
    {
        return answer(307).header("location", format!("{to}{digest}")).body(Body::empty()).unwrap();
    }
    if let Some(digest) = whole.strip_prefix("/elsewhere/") {
        let found = content.blobs.iter().find(|((_, name), _)| name == digest).map(|(_, blob)| blob.clone());
        return answer(200).body(Body::from(found.unwrap())).unwrap();
    }
    if whole.starts_with("/round/") {
        return answer(307).header("location", whole).body(Body::empty()).unwrap();
    }
    let path = whole.strip_prefix("/v2/").unwrap_or_default().to_owned();
    let named = |part: &str| path.split_once(part).map(|(repository, name)| (repository.to_owned(), name.to_owned()));
    if let Some(bytes) = named("/manifests/").and_then(|key| content.manifests.get(&key)) {
        let kind: Value = serde_json::from_slice(bytes).unwrap();
        let kind = kind["mediaType"].as_str().unwrap().to_owned();
        return answer(200).header("content-type", kind).body(Body::from(bytes.clone())).unwrap();
    }
    if let Some(bytes) = named("/blobs/").and_then(|key| content.blobs.get(&key).cloned()) {
        content.blobs_served += 1;
        return answer(200).body(Body::from(bytes)).unwrap();
    }
    let body = if path.is_empty() { "{}" } else { r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"# };
    answer(if path.is_empty() { 200 } else { 404 }).body(Body::from(body)).unwrap()
}

/// A clock that stands still until it is told.
#[derive(Default)]
pub struct Hands(AtomicI64);

impl Hands {
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms as i64, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + self.0.load(Ordering::Relaxed))
    }
}

pub struct Host {
    place: tempfile::TempDir,
    settings: Settings,
    pub clock: Arc<Hands>,
    /// The one directory that its operator allows.
    pub allowed: PathBuf,
    pub images: Images,
}

impl Host {
    pub fn new(server: &Server) -> Self {
        let place = tempfile::tempdir().unwrap();
        let allowed = place.path().canonicalize().unwrap().join("allowed");
        fs::create_dir(&allowed).unwrap();
        let settings = Settings {
            mirrors: Default::default(),
            directories: vec![allowed.clone()],
            registries: vec![server.address.clone()],
            plain_registries: vec![server.address.clone()],
            docker_config: Some(place.path().join("docker.json")),
        };
        let clock = Arc::new(Hands::default());
        let images = Self::open(&place, &settings, &clock);
        Host { place, settings, clock, allowed, images }
    }

    fn open(place: &tempfile::TempDir, settings: &Settings, clock: &Arc<Hands>) -> Images {
        let limits = Limits { bytes: LAYER_BYTES, ..Limits::default() };
        Images::with_limits(&place.path().join("data"), settings.clone(), clock.clone(), limits).unwrap()
    }

    /// The same host after a restart.
    pub fn again(self) -> Self {
        let images = Self::open(&self.place, &self.settings, &self.clock);
        Host { images, ..self }
    }

    pub fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    pub fn docker_login(&self, registry: &str, user: &str, password: &str) {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let config = json!({"auths": {registry: {"auth": auth}}});
        fs::write(Path::new(&self.place.path().join("docker.json")), config.to_string()).unwrap();
    }
}
