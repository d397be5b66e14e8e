//! An image in a registry: a reference becomes a manifest, and layers become files.
//!
//! ```text
//!  reference ─► manifest, or an index that names one for this machine ─► configuration ─► layers
//!                 │ 401: the registry says where a token is given ([`login`]), and is asked again
//! ```
//!
//! What a registry sends is a stranger's: documents are bounded before they are read, and everything is checked against the digest that
//! named it, layers once more by whoever unpacks them. Which registries are asked at all is the operator's to say ([`crate::Settings`]).

mod login;

pub(crate) use login::{Login, credentials};

use crate::digest::Digest;
use crate::document::{Config, Index, Manifest, parse};
use crate::telling::Count;
use crate::{ImageError, Settings};
use loopd_domain::limits::{
    IMAGE_DOCUMENT_BYTES_MAX, IMAGE_DOCUMENT_MS, IMAGE_PACKED_BYTES_MAX, REGISTRY_REDIRECTS_MAX, REGISTRY_SILENCE_MS,
    REGISTRY_WORDS_BYTES_MAX,
};
use oci_spec::distribution::Reference;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const CONNECT: Duration = Duration::from_secs(20);
/// What a registry's words may take in a message.
const TOLD_CHARS: usize = 300;
/// Kinds of documents that are taken, <https://github.com/opencontainers/image-spec/blob/main/media-types.md>.
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

pub(crate) struct Registry {
    plain: Vec<String>,
}

/// A conversation with one registry. It remembers who it is for, so it serves one pull.
pub(crate) struct Connection {
    http: reqwest::Client,
    /// Without TLS.
    is_plain: bool,
    /// Of the repository.
    base: String,
    repository: String,
    login: Option<Login>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// What a reference led to.
pub(crate) struct Found {
    pub digest: Digest,
    pub config: Config,
    /// Layers as they are fetched, in the order of [`Config::layers`]: digest and bytes.
    pub packed: Vec<(Digest, u64)>,
}

/// What every document says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Option<IgnoredAny>,
}

impl Registry {
    pub(crate) fn new(settings: &Settings) -> Self {
        Registry { plain: settings.plain_registries.clone() }
    }

    pub(crate) fn connect(&self, reference: &Reference, login: Option<Login>) -> Result<Connection, ImageError> {
        let is_plain = self.plain.iter().any(|plain| plain == reference.registry());
        let follow = move || {
            Policy::custom(move |attempt| {
                // Layers often lie elsewhere; who asked over TLS goes on over TLS.
                match (attempt.previous().len(), attempt.url().scheme()) {
                    (REGISTRY_REDIRECTS_MAX.., _) => attempt.error("it leads from one address to the next"),
                    (_, "https") => attempt.follow(),
                    (_, "http") if is_plain => attempt.follow(),
                    _ => attempt.error("it leads to an address without TLS"),
                }
            })
        };
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("loopd/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .read_timeout(Duration::from_millis(REGISTRY_SILENCE_MS))
        };
        // A machine without CA certificates makes the first one fail; the bundled Mozilla roots stand in there.
        let http = builder().redirect(follow()).build();
        let http =
            http.or_else(|_| builder().redirect(follow()).tls_certs_only(bundled_roots()?).build()).map_err(told)?;
        let scheme = if is_plain { "http" } else { "https" };
        let (host, repository) = (reference.resolve_registry(), reference.repository().to_owned());
        let base = format!("{scheme}://{host}/v2/{repository}");
        Ok(Connection { http, is_plain, base, repository, login, authorization: Mutex::new(None) })
    }
}

impl Connection {
    /// Asks what a reference means now.
    pub(crate) async fn find(&self, reference: &Reference) -> Result<Found, ImageError> {
        let named = reference.digest().or(reference.tag()).unwrap_or("latest");
        let (digest, document) = self.document("manifests", named, reference.digest().is_some()).await?;
        let head = Head::of(&document)?;
        let manifest: Manifest = if head.is_index() {
            let index: Index = parse("index", &document)?;
            let entry = index.pick()?.digest.to_string();
            let (_, document) = self.document("manifests", &entry, true).await?;
            if Head::of(&document)?.is_index() {
                return Err(ImageError::broken("its index leads to another index"));
            }
            parse("manifest", &document)?
        } else {
            parse("manifest", &document)?
        };
        manifest.check()?;
        let (_, config) = self.document("blobs", manifest.config.digest.as_str(), true).await?;
        let config = Config::parse(&config)?;
        if config.layers.len() != manifest.layers.len() {
            let (has, names) = (manifest.layers.len(), config.layers.len());
            return Err(ImageError::broken(format!("it has {has} layers, and its configuration names {names}")));
        }
        let packed: Vec<_> = manifest.layers.into_iter().map(|layer| (layer.digest, layer.size)).collect();
        let total = packed.iter().fold(0u64, |sum, (_, size)| sum.saturating_add(*size));
        if total > IMAGE_PACKED_BYTES_MAX {
            return Err(ImageError::broken(format!(
                "its layers have {total} bytes; accepted: {IMAGE_PACKED_BYTES_MAX}"
            )));
        }
        Ok(Found { digest, config, packed })
    }

    /// Fetches one layer, as it is, into a file. It has the digest, and no more bytes than were announced, or this fails.
    pub(crate) async fn fetch(
        &self,
        digest: &Digest,
        size: u64,
        into: &Path,
        mut count: Count,
    ) -> Result<(), ImageError> {
        let disk = |fault| ImageError::disk(into, fault);
        let mut file = tokio::fs::File::create(into).await.map_err(disk)?;
        // By digest alone: a descriptor could name other addresses to fetch from.
        let mut response = self.ask(&format!("blobs/{digest}")).await?;
        let (mut hasher, mut left) = (Sha256::new(), size);
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            let longer = || ImageError::broken(format!("layer {digest} has more than the {size} bytes announced"));
            left = left.checked_sub(chunk.len() as u64).ok_or_else(longer)?;
            hasher.update(&chunk);
            file.write_all(&chunk).await.map_err(disk)?;
            count.add(chunk.len() as u64);
        }
        file.flush().await.map_err(disk)?;
        match (left, Digest::finish(hasher)) {
            (0, found) if found == *digest => Ok(()),
            (0, found) => Err(ImageError::broken(format!("layer {digest} came with the digest {found}"))),
            (left, _) => Err(ImageError::broken(format!("layer {digest} has {left} bytes less than announced"))),
        }
    }

    /// A whole document that is named by a tag or, then `is_digest`, by its own digest.
    async fn document(&self, kind: &str, name: &str, is_digest: bool) -> Result<(Digest, Vec<u8>), ImageError> {
        let whole = async {
            let response = self.ask(&format!("{kind}/{name}")).await?;
            let most = IMAGE_DOCUMENT_BYTES_MAX as usize;
            let longer = || ImageError::broken(format!("`{kind}/{name}` has more than {most} bytes"));
            bounded(response, most).await?.ok_or_else(longer)
        };
        let slow = |_| {
            ImageError::unavailable(format!(
                "the registry took longer than {} s for one document",
                IMAGE_DOCUMENT_MS / 1_000
            ))
        };
        let document = tokio::time::timeout(Duration::from_millis(IMAGE_DOCUMENT_MS), whole).await.map_err(slow)??;
        let digest = Digest::of(&document);
        match is_digest && digest.as_str() != name {
            true => Err(ImageError::broken(format!("what was asked for as {name} came with the digest {digest}"))),
            false => Ok((digest, document)),
        }
    }

    /// The answer, if it is a good one. Who is asked for a token gets one, and asks again.
    async fn ask(&self, path: &str) -> Result<Response, ImageError> {
        let known = self.authorization.lock().clone();
        let mut response = self.send(path, known).await?;
        // Whoever the registry sends on to is not asked where our credentials are to go.
        if response.status() == StatusCode::UNAUTHORIZED
            && response.url().as_str().starts_with(&self.base)
            && let Some(new) = self.authorize(response.headers()).await?
        {
            *self.authorization.lock() = Some(new.clone());
            response = self.send(path, Some(new)).await?;
        }
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(refusal(status, response).await),
        }
    }

    async fn send(&self, path: &str, authorization: Option<HeaderValue>) -> Result<Response, ImageError> {
        let accept = [MANIFESTS, INDEXES].concat().join(", ");
        let mut request = self.http.get(format!("{}/{path}", self.base)).header(ACCEPT, accept);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(told)
    }

    /// As a challenge wants it. `None`: we have nothing that would answer it.
    async fn authorize(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, ImageError> {
        let Some(challenge) = login::challenge(headers) else { return Ok(None) };
        let login::Challenge::Bearer { realm, service } = challenge else {
            return Ok(self.login.as_ref().map(Login::basic));
        };
        if realm.scheme() != "https" && !self.is_plain {
            return Err(ImageError::broken("its registry gives tokens at an address without TLS"));
        }
        let scope = format!("repository:{}:pull", self.repository);
        let mut address = realm;
        address.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            address.query_pairs_mut().append_pair("service", &service);
        }
        let mut request = self.http.get(address);
        if let Some(login) = &self.login {
            request = request.header(AUTHORIZATION, login.basic());
        }
        let response = request.send().await.map_err(told)?;
        match response.status() {
            status if status.is_success() => {
                let longer = || {
                    ImageError::broken(format!(
                        "its registry gave a token of more than {REGISTRY_WORDS_BYTES_MAX} bytes"
                    ))
                };
                let words = bounded(response, REGISTRY_WORDS_BYTES_MAX).await?.ok_or_else(longer)?;
                login::bearer(&words).map(Some)
            }
            status => Err(refusal(status, response).await),
        }
    }
}

impl Head {
    fn of(document: &[u8]) -> Result<Self, ImageError> {
        let head: Head = parse("manifest", document)?;
        let is_known =
            head.media_type.is_empty() || MANIFESTS.iter().chain(&INDEXES).any(|kind| *kind == head.media_type);
        match is_known && head.schema_version == 2 {
            true => Ok(head),
            false => Err(ImageError::broken(format!(
                "its manifest is of version {} and kind `{}`; accepted: 2, `{}` and their like",
                head.schema_version,
                shortened(&head.media_type),
                MANIFESTS[0]
            ))),
        }
    }

    fn is_index(&self) -> bool {
        INDEXES.contains(&self.media_type.as_str()) || (self.media_type.is_empty() && self.manifests.is_some())
    }
}

/// The whole body, or `None` where it is longer.
async fn bounded(mut response: Response, most: usize) -> Result<Option<Vec<u8>>, ImageError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if bytes.len() + chunk.len() > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

/// `{"errors": [{"code", "message"}]}`
#[derive(Deserialize)]
struct Words {
    errors: Vec<Word>,
}

#[derive(Deserialize)]
struct Word {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

async fn refusal(status: StatusCode, response: Response) -> ImageError {
    // Words that are too long, or do not come, change nothing about the answer.
    let words = bounded(response, REGISTRY_WORDS_BYTES_MAX).await.ok().flatten().unwrap_or_default();
    let words = serde_json::from_slice::<Words>(&words).ok().and_then(|words| words.errors.into_iter().next());
    let words = words.map(|word| shortened(&format!(": {} {}", word.code, word.message))).unwrap_or_default();
    let text = format!("the registry answered {status}{words}");
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ImageError::refused(format!(
            "the registry does not let this host have it: {text}; credentials are taken from the docker configuration of whoever runs loopd"
        )),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ImageError::unavailable(text),
        status if status.is_server_error() => ImageError::unavailable(text),
        _ => ImageError::broken(text),
    }
}

fn bundled_roots() -> Result<Vec<reqwest::Certificate>, reqwest::Error> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| reqwest::Certificate::from_der(der)).collect()
}

fn shortened(text: &str) -> String {
    text.escape_debug().to_string().chars().take(TOLD_CHARS).collect()
}

fn told(fault: reqwest::Error) -> ImageError {
    // A cause says more than what it caused: `error sending request` alone helps nobody.
    let mut text = fault.to_string();
    let mut cause = std::error::Error::source(&fault);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    let text = shortened(&text);
    if fault.is_redirect() { ImageError::broken(text) } else { ImageError::unavailable(text) }
}
