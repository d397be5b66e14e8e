//! An image in a registry: a reference becomes a manifest, and layers become files.
//!
//! What a registry sends is a stranger's. Manifests and configurations are checked against the digests that named them, layers
//! by whoever unpacks them. Which registries are asked at all is the operator's to say ([`crate::Settings`]).

use crate::digest::Digest;
use crate::document::{Config, Manifest, parse};
use crate::telling::Count;
use crate::{ImageError, Settings};
use loopd_domain::limits::{IMAGE_DOCUMENT_BYTES_MAX, IMAGE_PACKED_BYTES_MAX, REGISTRY_SILENCE_MS};
use oci_client::client::{ClientConfig, ClientProtocol, current_platform_resolver};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde::Deserialize;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;

const CONNECT: Duration = Duration::from_secs(20);
/// What a registry's words may take in a message.
const TOLD_CHARS: usize = 300;

pub(crate) struct Registry {
    plain: Vec<String>,
}

/// A conversation with one registry. It remembers who it is for, so it serves one pull.
pub(crate) struct Connection {
    client: Client,
    auth: RegistryAuth,
}

/// What a reference led to.
pub(crate) struct Found {
    pub digest: Digest,
    pub config: Config,
    /// Layers as they are fetched, in the order of [`Config::layers`]: digest and bytes.
    pub packed: Vec<(Digest, u64)>,
}

impl Registry {
    pub(crate) fn new(settings: &Settings) -> Self {
        Registry { plain: settings.plain_registries.clone() }
    }

    pub(crate) fn connect(&self, auth: RegistryAuth) -> Connection {
        let client = Client::new(ClientConfig {
            protocol: ClientProtocol::HttpsExcept(self.plain.clone()),
            platform_resolver: Some(Box::new(current_platform_resolver)),
            read_timeout: Some(Duration::from_millis(REGISTRY_SILENCE_MS)),
            connect_timeout: Some(CONNECT),
            user_agent: concat!("loopd/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        });
        Connection { client, auth }
    }
}

impl Connection {
    /// Asks what a reference means now.
    pub(crate) async fn find(&self, reference: &Reference) -> Result<Found, ImageError> {
        let pulled = self.client.pull_image_manifest_and_list_digest(reference, &self.auth).await;
        let (manifest, digest, index) = pulled.map_err(told)?;
        let text = serde_json::to_vec(&manifest).map_err(|fault| ImageError::broken(fault.to_string()))?;
        let manifest: Manifest = parse("manifest", &text)?;
        manifest.check()?;
        let named = index.unwrap_or(digest);
        let digest = Digest::parse(&named)
            .ok_or_else(|| ImageError::broken(format!("its digest is `{named}`; accepted: SHA-256")))?;
        let mut bytes = Bounded { bytes: Vec::new(), most: IMAGE_DOCUMENT_BYTES_MAX as usize };
        self.client.pull_blob(reference, manifest.config.digest.as_str(), &mut bytes).await.map_err(told)?;
        let config = Config::parse(&bytes.bytes)?;
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
        reference: &Reference,
        digest: &Digest,
        size: u64,
        into: &Path,
        count: Count,
    ) -> Result<(), ImageError> {
        let file = tokio::fs::File::create(into).await.map_err(|fault| ImageError::disk(into, fault))?;
        let mut file = Announced { file, left: size, count };
        // By digest alone: a descriptor could name other addresses to fetch from.
        self.client.pull_blob(reference, digest.as_str(), &mut file).await.map_err(told)?;
        match file.left {
            0 => Ok(()),
            left => Err(ImageError::broken(format!("layer {digest} has {left} bytes less than announced"))),
        }
    }
}

/// Takes so many bytes, and none more.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

struct Announced {
    file: tokio::fs::File,
    left: u64,
    count: Count,
}

fn too_long() -> io::Error {
    io::Error::other("the registry sent more bytes than announced or accepted")
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.bytes.len() + bytes.len() > self.most {
            return Poll::Ready(Err(too_long()));
        }
        self.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Announced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.len() as u64 > self.left {
            return Poll::Ready(Err(too_long()));
        }
        let written = std::task::ready!(Pin::new(&mut self.file).poll_write(context, bytes))?;
        self.left -= written as u64;
        self.count.add(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(context)
    }
}

fn told(fault: OciDistributionError) -> ImageError {
    use OciDistributionError as F;
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
    let text: String = text.escape_debug().to_string().chars().take(TOLD_CHARS).collect();
    match fault {
        F::RequestError(_) | F::IoError(_) | F::ServerError { .. } => ImageError::unavailable(text),
        F::AuthenticationFailure(_) | F::UnauthorizedError { .. } => ImageError::refused(format!(
            "the registry does not let this host have it: {text}; credentials are taken from the docker configuration of whoever runs loopd"
        )),
        _ => ImageError::broken(text),
    }
}

/// Who this host is to registries: `~/.docker/config.json`, without credential helpers.
#[derive(Default, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    auth: Option<String>,
}

/// The credentials for a registry, read anew each time: an operator who logs in need not restart anything.
pub(crate) fn credentials(config: Option<&Path>, registry: &str) -> Result<RegistryAuth, ImageError> {
    let Some(path) = config else { return Ok(RegistryAuth::Anonymous) };
    let bytes = match std::fs::read(path) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        other => other.map_err(|fault| ImageError::disk(path, fault))?,
    };
    // The parser's own words could repeat a secret.
    let unreadable = || ImageError::refused(format!("`{}` cannot be read as a docker configuration", path.display()));
    let config: DockerConfig = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    let names: &[&str] = match registry {
        "docker.io" => &["https://index.docker.io/v1/", "docker.io", "index.docker.io"],
        other => &[other],
    };
    let matches = |key: &str| {
        names.iter().any(|name| key == *name || key.trim_start_matches("https://").trim_end_matches('/') == *name)
    };
    let Some(auth) = config.auths.iter().find(|(key, _)| matches(key)).and_then(|(_, auth)| auth.auth.as_ref()) else {
        return Ok(RegistryAuth::Anonymous);
    };
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, auth).map_err(|_| unreadable())?;
    let pair = String::from_utf8(decoded).map_err(|_| unreadable())?;
    let (user, password) = pair.split_once(':').ok_or_else(unreadable)?;
    Ok(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()))
}
