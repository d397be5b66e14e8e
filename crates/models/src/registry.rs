//! Which provider a model id belongs to, what is configured, and what a model costs.
//!
//! Built once at start. A provider without its key is known but cannot be called: the error names the variable to set. A key
//! goes only to the origin (scheme, host, port) that it was configured for: a caller who names another `base_url` gets the
//! wire, never the key.

use crate::builtin::{self, Builtin, Scripted, Shell};
use crate::config::{ConfigError, ModelsConfig, base_url};
use crate::known::{self, Known};
use crate::prices;
use crate::provider::Provider;
use crate::transport::Client;
use loopd_domain::Clock;
use loopd_domain::agent::ModelRef;
use loopd_domain::usage::Price;
use std::collections::BTreeMap;
use std::sync::Arc;

const FREE: Price = Price { input: 0, output: 0, cache_read: 0, cache_write: 0 };

/// Everything that is configured. Built once at start; cheap to share.
pub struct Registry {
    client: Client,
    /// By the name before the slash.
    known: BTreeMap<String, Known>,
    builtin: BTreeMap<&'static str, Arc<dyn Provider>>,
    prices: BTreeMap<String, Price>,
}

/// A model that can be called.
#[derive(Clone)]
pub struct Resolved {
    pub provider: Arc<dyn Provider>,
    /// As the provider knows it.
    pub name: String,
    /// `provider/name`, as events and traces show it.
    pub full_id: String,
    /// `None`: not known, so cost is not known either.
    pub price: Option<Price>,
}

/// Why a model reference cannot be called. `Display` names the value and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("model `{id}`: no provider is called `{provider}`; accepted: {accepted}")]
    UnknownProvider { id: String, provider: String, accepted: String },
    #[error("model `{id}` names no provider; accepted: `provider/name`, or a bare `claude-…` or `gpt-…`")]
    NoProvider { id: String },
    #[error("model `{id}` needs a key: set {variable} and start again")]
    MissingKey { id: String, variable: String },
    #[error("model `{id}`: {reason}")]
    Unusable { id: String, reason: String },
}

/// One row of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    pub id: String,
    pub display_name: String,
    pub scripted: bool,
    pub price: Option<Price>,
}

/// Beginnings of bare names and whose they are.
const BARE: [(&str, &str); 8] = [
    ("claude-", "anthropic"),
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("codex-", "openai"),
    ("gemini-", "gemini"),
];

impl Registry {
    /// `env` reads an environment variable; empty counts as not set.
    pub fn from_config(
        config: ModelsConfig,
        env: &dyn Fn(&str) -> Option<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let env = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let mut client = Client::new(clock)?;
        if let Some(silence_ms) = config.silence_ms {
            client = client.with_silence_ms(silence_ms);
        }
        let mut prices: BTreeMap<String, Price> =
            prices::built_in().map(|(id, price)| (id.to_owned(), price)).collect();
        prices.extend(config.prices);
        let known = known::from_environment(&client, &env)?;
        let mut registry = Registry { client, known, builtin: builtin_models(), prices };
        for provider in config.providers {
            let name = provider.name.clone();
            registry.known.insert(name, Known::configured(&registry.client, provider, &env)?);
        }
        Ok(registry)
    }

    /// Adds a provider that is neither configured nor built in, under `builtin/<name>`: for tests of other rooms.
    pub fn with_provider(mut self, name: &'static str, provider: Arc<dyn Provider>) -> Self {
        self.builtin.insert(name, provider);
        self
    }

    pub fn resolve(&self, model: &ModelRef) -> Result<Resolved, ResolveError> {
        let id = &model.id;
        let (provider, name) = self.split(id)?;
        if name.is_empty() {
            return Err(ResolveError::Unusable {
                id: id.clone(),
                reason: "no name stands after the provider".to_owned(),
            });
        }
        if provider == "builtin" {
            return self.resolve_builtin(model, name);
        }
        let Some(known) = self.known.get(provider) else {
            return Err(ResolveError::UnknownProvider {
                id: id.clone(),
                provider: provider.to_owned(),
                accepted: self.accepted(),
            });
        };
        let full_id = format!("{provider}/{name}");
        let resolved = |provider, price| Resolved { provider, name: name.to_owned(), full_id: full_id.clone(), price };
        if let Some(address) = &model.base_url {
            let unusable = |fault: ConfigError| ResolveError::Unusable { id: id.clone(), reason: fault.to_string() };
            let base = base_url("model.base_url", address).map_err(unusable)?;
            let own = base.origin() == known.base.origin();
            if !own || known.needs.is_none() {
                let key = known.key.clone().filter(|_| own);
                let price = self.price(&full_id).filter(|_| own);
                return Ok(resolved(known::connect(&self.client, known.kind, &base, key), price));
            }
        }
        match &known.needs {
            Some(variable) => Err(ResolveError::MissingKey { id: id.clone(), variable: variable.clone() }),
            None => Ok(resolved(known.provider.clone(), self.price(&full_id))),
        }
    }

    /// Models that can be called and are known by name: the scripted ones, and all with a price.
    pub fn list(&self) -> Vec<ModelInfo> {
        let scripted = builtin::NAMES.iter().map(|(name, display)| ModelInfo {
            id: format!("builtin/{name}"),
            display_name: (*display).to_owned(),
            scripted: true,
            price: Some(FREE),
        });
        let usable = |id: &str| {
            id.split_once('/')
                .and_then(|(provider, _)| self.known.get(provider))
                .is_some_and(|known| known.needs.is_none())
        };
        let priced = self.prices.iter().filter(|(id, _)| usable(id)).map(|(id, price)| ModelInfo {
            id: id.clone(),
            display_name: id.split_once('/').map_or(id.as_str(), |(_, name)| name).to_owned(),
            scripted: false,
            price: Some(*price),
        });
        scripted.chain(priced).collect()
    }

    fn split<'a>(&self, id: &'a str) -> Result<(&'a str, &'a str), ResolveError> {
        if let Some((provider, name)) = id.split_once('/') {
            return Ok((provider, name));
        }
        let owner = BARE.iter().find(|(start, _)| id.starts_with(start)).map(|(_, provider)| *provider);
        owner.map(|provider| (provider, id)).ok_or_else(|| ResolveError::NoProvider { id: id.to_owned() })
    }

    fn resolve_builtin(&self, model: &ModelRef, name: &str) -> Result<Resolved, ResolveError> {
        let unusable = |reason: String| ResolveError::Unusable { id: model.id.clone(), reason };
        if model.base_url.is_some() {
            return Err(unusable("a scripted model has no `base_url`".to_owned()));
        }
        let Some(provider) = self.builtin.get(name) else {
            let names: Vec<String> = self.builtin.keys().map(|name| format!("`builtin/{name}`")).collect();
            return Err(unusable(format!("no scripted model is called `{name}`; accepted: {}", names.join(", "))));
        };
        Ok(Resolved {
            provider: provider.clone(),
            name: name.to_owned(),
            full_id: format!("builtin/{name}"),
            price: Some(FREE),
        })
    }

    fn price(&self, full_id: &str) -> Option<Price> {
        self.prices.get(full_id).or_else(|| self.prices.get(prices::without_date(full_id))).copied()
    }

    fn accepted(&self) -> String {
        let names = self.known.keys().map(String::as_str).chain(["builtin"]);
        names.map(|name| format!("`{name}/…`")).collect::<Vec<_>>().join(", ")
    }
}

fn builtin_models() -> BTreeMap<&'static str, Arc<dyn Provider>> {
    let shell: Arc<dyn Provider> = Arc::new(Builtin(Shell));
    BTreeMap::from([("shell", shell), ("script", Arc::new(Builtin(Scripted::default())))])
}
