//! Providers as they are configured: by the environment, or by an operator.

use crate::anthropic::Anthropic;
use crate::config::{ConfigError, ProviderConfig, WireKind, base_url, ollama_url};
use crate::openai::OpenAi;
use crate::provider::Provider;
use crate::transport::key::ApiKey;
use crate::transport::{Client, Endpoint};
use std::collections::BTreeMap;
use std::sync::Arc;
use url::Url;

/// Reads an environment variable.
type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A provider as configured.
pub(crate) struct Known {
    pub kind: WireKind,
    pub base: Url,
    pub key: Option<ApiKey>,
    /// The variable that must hold a key before it can be called.
    pub needs: Option<String>,
    pub provider: Arc<dyn Provider>,
}

/// What the environment configures: name, wire, address, the variable that replaces the address, the variable of the key.
const FROM_ENVIRONMENT: [(&str, WireKind, &str, Option<&str>, &str); 3] = [
    ("anthropic", WireKind::Anthropic, "https://api.anthropic.com", Some("ANTHROPIC_BASE_URL"), "ANTHROPIC_API_KEY"),
    ("openai", WireKind::Openai, "https://api.openai.com/v1", Some("OPENAI_BASE_URL"), "OPENAI_API_KEY"),
    ("gemini", WireKind::Openai, "https://generativelanguage.googleapis.com/v1beta/openai", None, "GEMINI_API_KEY"),
];

impl Known {
    fn new(client: &Client, kind: WireKind, base: Url, key: Option<ApiKey>, needs: Option<String>) -> Self {
        let provider = connect(client, kind, &base, key.clone());
        Known { kind, base, key, needs, provider }
    }

    pub fn configured(client: &Client, config: ProviderConfig, env: &Env<'_>) -> Result<Self, ConfigError> {
        let base = base_url(&format!("models.providers.{}.base_url", config.name), &config.base_url)?;
        let key = match &config.api_key_env {
            Some(variable) => read_key(variable, env)?,
            None => None,
        };
        let needs = config.api_key_env.filter(|_| key.is_none());
        Ok(Known::new(client, config.kind, base, key, needs))
    }
}

/// The providers that are known without any configuration, by name.
pub(crate) fn from_environment(client: &Client, env: &Env<'_>) -> Result<BTreeMap<String, Known>, ConfigError> {
    let mut out = BTreeMap::new();
    for (name, kind, address, address_variable, key_variable) in FROM_ENVIRONMENT {
        let moved = address_variable.and_then(|variable| Some((variable, env(variable)?)));
        let base = match &moved {
            Some((variable, address)) => base_url(variable, address)?,
            None => base_url(name, address)?,
        };
        let key = read_key(key_variable, env)?;
        // A server of one's own may need no key; the provider itself does.
        let needs = (key.is_none() && moved.is_none()).then(|| key_variable.to_owned());
        out.insert(name.to_owned(), Known::new(client, kind, base, key, needs));
    }
    let ollama = ollama_url(env("OLLAMA_HOST").as_deref().unwrap_or("127.0.0.1"))?;
    out.insert("ollama".to_owned(), Known::new(client, WireKind::Openai, ollama, None, None));
    Ok(out)
}

/// A provider that speaks `kind` at `base`.
pub(crate) fn connect(client: &Client, kind: WireKind, base: &Url, key: Option<ApiKey>) -> Arc<dyn Provider> {
    let endpoint = Endpoint { url: kind.endpoint(base), key };
    match kind {
        WireKind::Anthropic => Arc::new(Anthropic::new(client.clone(), endpoint)),
        WireKind::Openai => Arc::new(OpenAi::new(client.clone(), endpoint)),
    }
}

fn read_key(variable: &str, env: &Env<'_>) -> Result<Option<ApiKey>, ConfigError> {
    let Some(secret) = env(variable) else { return Ok(None) };
    match ApiKey::new(variable, &secret) {
        Some(key) => Ok(Some(key)),
        None => Err(ConfigError::UnusableKey { variable: variable.to_owned() }),
    }
}
