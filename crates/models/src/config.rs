//! What an operator configures about models, and how the environment adds to it.
//!
//! Keys never stand in a configuration: it names the environment variables that hold them.

use crate::transport::ClientError;
use loopd_domain::usage::Price;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use url::Url;

/// The `models` section of the configuration; empty by default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsConfig {
    /// Providers beside the built-in ones; one with a built-in name replaces it.
    pub providers: Vec<ProviderConfig>,
    /// By full id (`provider/name`); adds to the built-in table and replaces its entries.
    pub prices: BTreeMap<String, Price>,
    /// Milliseconds without a byte after which a provider is given up; `limits::MODEL_SILENCE_MS` by default.
    pub silence_ms: Option<u64>,
}

/// One provider by its wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// What stands before the slash of a model id.
    pub name: String,
    pub kind: WireKind,
    /// With the version where the wire has one in its address: `http://127.0.0.1:8000/v1`.
    pub base_url: String,
    /// The environment variable that holds the key; none: no key is sent.
    #[serde(default)]
    pub api_key_env: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireKind {
    Openai,
    Anthropic,
}

/// Why the models cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("`{field}` is `{value}`; accepted: {accepted}")]
    Invalid { field: String, value: String, accepted: String },
    #[error("{variable} holds no usable key; accepted: one line of visible ASCII characters")]
    UnusableKey { variable: String },
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl ConfigError {
    fn invalid(field: impl Into<String>, value: impl Into<String>, accepted: &str) -> Self {
        ConfigError::Invalid { field: field.into(), value: value.into(), accepted: accepted.to_owned() }
    }
}

impl ModelsConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (at, provider) in self.providers.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
            if provider.name.is_empty() || !provider.name.chars().all(plain) || provider.name == "builtin" {
                let field = format!("models.providers[{at}].name");
                return Err(ConfigError::invalid(
                    field,
                    &provider.name,
                    "lower-case letters, digits, `-` and `_`, and not `builtin`",
                ));
            }
            if self.providers[..at].iter().any(|other| other.name == provider.name) {
                let field = format!("models.providers[{at}].name");
                return Err(ConfigError::invalid(field, &provider.name, "a name that no other provider has"));
            }
        }
        if let Some(id) = self.prices.keys().find(|id| !id.contains('/')) {
            return Err(ConfigError::invalid("models.prices", id, "`provider/name` as key"));
        }
        Ok(())
    }
}

impl WireKind {
    /// The address that requests go to. Anthropic's SDKs take a base without the version, so both forms are accepted.
    pub(crate) fn endpoint(self, base: &Url) -> Url {
        let path = base.path().trim_end_matches('/');
        let path = match self {
            WireKind::Openai => format!("{path}/chat/completions"),
            WireKind::Anthropic if path.ends_with("/v1") => format!("{path}/messages"),
            WireKind::Anthropic => format!("{path}/v1/messages"),
        };
        let mut url = base.clone();
        url.set_path(&path);
        url
    }
}

/// Reads a base URL: http or https, with a host, without credentials and fragment.
pub(crate) fn base_url(field: &str, text: &str) -> Result<Url, ConfigError> {
    let refuse = |shown: &str| {
        ConfigError::invalid(
            field,
            shown,
            "an http or https URL without user name and password, e.g. `https://api.example.com/v1`",
        )
    };
    let url = Url::parse(text.trim()).map_err(|_| refuse(text))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("a URL with credentials"));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) || url.fragment().is_some()
    {
        return Err(refuse(text));
    }
    Ok(url)
}

/// `OLLAMA_HOST` as Ollama itself reads it: scheme and port may be missing; an address to listen on everywhere is this
/// machine for a client.
pub(crate) fn ollama_url(host: &str) -> Result<Url, ConfigError> {
    let host = host.trim();
    let text = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
    let mut url = base_url("OLLAMA_HOST", &text)?;
    if url.port().is_none() && !host.contains("://") {
        // A URL with a host always takes a port.
        let _ = url.set_port(Some(11_434));
    }
    if url.host_str() == Some("0.0.0.0") {
        let _ = url.set_host(Some("127.0.0.1"));
    }
    if matches!(url.path(), "" | "/") {
        url.set_path("/v1");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let of = |kind: WireKind, base: &str| kind.endpoint(&base_url("x", base).expect("valid")).to_string();
        assert_eq!(of(WireKind::Anthropic, "https://api.anthropic.com"), "https://api.anthropic.com/v1/messages");
        assert_eq!(of(WireKind::Anthropic, "http://h/proxy/v1/"), "http://h/proxy/v1/messages");
        assert_eq!(of(WireKind::Openai, "http://h:8000/v1/"), "http://h:8000/v1/chat/completions");
        assert_eq!(of(WireKind::Openai, "http://h/v1?api-version=3"), "http://h/v1/chat/completions?api-version=3");
    }

    #[test]
    fn base_urls_are_checked_and_credentials_not_repeated() {
        for bad in ["", "ftp://h", "localhost:80", "http://", "http://h#f"] {
            assert!(base_url("x", bad).is_err(), "{bad}");
        }
        let said = base_url("base_url", "http://user:secret@h").expect_err("credentials").to_string();
        assert!(!said.contains("secret") && said.contains("`base_url`"));
    }

    #[test]
    fn ollama_hosts() {
        let of = |host: &str| ollama_url(host).expect("valid").to_string();
        assert_eq!(of("127.0.0.1"), "http://127.0.0.1:11434/v1");
        assert_eq!(of("0.0.0.0:9999"), "http://127.0.0.1:9999/v1");
        assert_eq!(of("https://box.example/v1"), "https://box.example/v1");
    }
}
