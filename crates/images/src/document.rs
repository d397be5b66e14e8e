//! What an image says of itself: manifests, indexes and configurations, as far as a room needs them.

use crate::ImageError;
use crate::digest::Digest;
use loopd_domain::limits::{IMAGE_LAYERS_MAX, IMAGE_VARIABLES_BYTES_MAX, IMAGE_VARIABLES_MAX};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// One platform's image: its configuration, and its layers from the lowest up.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// Images for several platforms, or of an archive.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    pub manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    #[serde(default)]
    pub size: u64,
    pub platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
}

#[derive(Debug, Deserialize)]
struct ConfigDocument {
    architecture: Option<String>,
    os: Option<String>,
    #[serde(default)]
    config: Option<Process>,
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct Process {
    #[serde(rename = "Env")]
    env: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// What a room takes of an image's configuration. Its entry point, command, user, working directory, volumes and ports are not
/// a room's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Of the layers no longer compressed, from the lowest up.
    pub layers: Vec<Digest>,
    pub variables: Vec<(String, String)>,
}

/// The name that OCI has for what this program was built for.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Index {
    /// The image for this machine. One that names no platform will do where it is the only one.
    pub(crate) fn pick(&self) -> Result<&Descriptor, ImageError> {
        let fits = |entry: &&Descriptor| {
            entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture())
        };
        if let Some(entry) = self.manifests.iter().find(fits) {
            return Ok(entry);
        }
        match self.manifests.as_slice() {
            [only] if only.platform.is_none() => Ok(only),
            [] => Err(ImageError::broken("its index is empty")),
            entries => {
                let platforms = entries.iter().filter_map(|entry| entry.platform.as_ref());
                let mut names: Vec<String> = platforms
                    .take(16)
                    .map(|p| format!("{}/{}", p.os, p.architecture).escape_debug().to_string())
                    .collect();
                names.dedup();
                let names = names.join(", ");
                Err(ImageError::broken(format!("it has no image for linux/{}, but for: {names}", architecture())))
            }
        }
    }
}

impl Manifest {
    pub(crate) fn check(&self) -> Result<(), ImageError> {
        check_layers(self.layers.len())
    }
}

fn check_layers(count: usize) -> Result<(), ImageError> {
    match count {
        1..=IMAGE_LAYERS_MAX => Ok(()),
        _ => Err(ImageError::broken(format!("it has {count} layers; accepted: 1 to {IMAGE_LAYERS_MAX}"))),
    }
}

impl Config {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let document: ConfigDocument = parse("configuration", bytes)?;
        let is = |value: &Option<String>, ours: &str| value.as_deref().is_none_or(|v| v.is_empty() || v == ours);
        if !is(&document.os, "linux") || !is(&document.architecture, architecture()) {
            let (os, arch) = (document.os.unwrap_or_default(), document.architecture.unwrap_or_default());
            let other = format!("{os}/{arch}").escape_debug().to_string();
            return Err(ImageError::broken(format!("it is for {other}; accepted: linux/{}", architecture())));
        }
        check_layers(document.rootfs.diff_ids.len())?;
        let lines = document.config.and_then(|process| process.env).unwrap_or_default();
        Ok(Config { layers: document.rootfs.diff_ids, variables: variables(lines)? })
    }
}

/// `NAME=value` lines; later ones win. What is no variable is left out.
fn variables(lines: Vec<String>) -> Result<Vec<(String, String)>, ImageError> {
    let bytes: usize = lines.iter().map(String::len).sum();
    if lines.len() > IMAGE_VARIABLES_MAX || bytes > IMAGE_VARIABLES_BYTES_MAX {
        return Err(ImageError::broken(format!(
            "it sets {} variables of {bytes} bytes; accepted: {IMAGE_VARIABLES_MAX} of {IMAGE_VARIABLES_BYTES_MAX} bytes",
            lines.len()
        )));
    }
    let mut variables: Vec<(String, String)> = Vec::new();
    for line in lines {
        let Some((name, value)) = line.split_once('=') else { continue };
        if !is_name(name) || value.contains('\0') || is_ours(name) {
            continue;
        }
        variables.retain(|(known, _)| known != name);
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

fn is_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.bytes().next().is_some_and(letter) && name.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

/// What a room says itself: who the agent is, and how it reaches the network.
fn is_ours(name: &str) -> bool {
    const OURS: [&str; 10] =
        ["BASH_ENV", "ENV", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "HOSTNAME", "TERM", "NO_PROXY"];
    let upper = name.to_ascii_uppercase();
    OURS.contains(&upper.as_str()) || upper.ends_with("_PROXY") || upper.starts_with("LOOPD_")
}

pub(crate) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|fault| ImageError::broken(format!("its {what} cannot be read: {fault}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut serde_json::Value)) -> Result<Config, String> {
        let layer = Digest::of(b"layer");
        let mut document = serde_json::json!({"architecture": architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer]}});
        change(&mut document);
        Config::parse(document.to_string().as_bytes()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_room_takes_variables_and_layers() {
        let lines =
            ["PATH=/a:/b", "A=1", "A=2=3", "HOME=/root", "https_proxy=x", "LOOPD_TOOL_UID=0", "1X=y", "broken", "Z=\0"];
        let config = config(|c| c["config"] = serde_json::json!({"Env": lines, "User": "x"})).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(config.variables, [pair("PATH", "/a:/b"), pair("A", "2=3")]);
        assert_eq!(config.layers, [Digest::of(b"layer")]);
    }

    #[test]
    fn what_is_for_another_machine_or_too_much_is_refused() {
        assert!(config(|c| c["architecture"] = "s390x".into()).unwrap_err().contains("it is for linux/s390x"));
        assert!(config(|c| c["os"] = "windows".into()).unwrap_err().contains("accepted: linux/"));
        assert!(config(|c| c["rootfs"]["diff_ids"] = serde_json::json!([])).unwrap_err().contains("0 layers"));
        let many = vec![Digest::of(b"x"); IMAGE_LAYERS_MAX + 1];
        assert!(config(|c| c["rootfs"]["diff_ids"] = serde_json::json!(many)).unwrap_err().contains("129 layers"));
        let outside = config(|c| c["rootfs"]["diff_ids"] = serde_json::json!(["sha256:../../x"]));
        assert!(outside.unwrap_err().contains("is no digest"));
        let lines = vec!["A=1"; IMAGE_VARIABLES_MAX + 1];
        assert!(config(|c| c["config"] = serde_json::json!({"Env": lines})).unwrap_err().contains("257 variables"));
        assert!(config(|c| *c = serde_json::json!([])).unwrap_err().contains("its configuration cannot be read"));
    }

    #[test]
    fn an_index_is_asked_for_this_machine() {
        let entry = |name: &[u8], arch: Option<&str>| {
            let platform = arch.map(|arch| serde_json::json!({"os": "linux", "architecture": arch}));
            serde_json::json!({"digest": Digest::of(name), "size": 1, "platform": platform})
        };
        let index = |entries: serde_json::Value| -> Index {
            parse("index", serde_json::json!({ "manifests": entries }).to_string().as_bytes()).unwrap()
        };
        let two = index(serde_json::json!([entry(b"a", Some("s390x")), entry(b"b", Some(architecture()))]));
        assert_eq!(two.pick().unwrap().digest, Digest::of(b"b"));
        assert_eq!(index(serde_json::json!([entry(b"a", None)])).pick().unwrap().digest, Digest::of(b"a"));
        let other = index(serde_json::json!([entry(b"a", Some("s390x"))]));
        assert!(other.pick().unwrap_err().to_string().contains("but for: linux/s390x"));
    }
}
