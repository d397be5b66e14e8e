//! The optional configuration file `loopd.toml`: read strictly, every key known.
//!
//! ```toml
//! listen = "127.0.0.1:7007"
//! data = "./.loopd"
//! room_idle_seconds = 300
//! room_orphan_seconds = 600        # how long a room lives on without a server
//! waiting_rooms = 16               # how many rooms may live and wait for a session, at the busiest; 0 to 16
//! master_key_file = "/run/secrets/loopd.key"   # under it lie the vaults; absent: `master.key` in the data directory
//!
//! [models]
//! silence_seconds = 300            # a provider that sends no byte for this long is given up
//!
//! [[models.providers]]             # an OpenAI-compatible or Anthropic-compatible server
//! name = "vllm"
//! kind = "openai"
//! base_url = "http://10.0.0.5:8000/v1"
//! api_key_env = "VLLM_API_KEY"     # the name of the variable, never the key
//!
//! [models.prices."vllm/qwen3"]     # US dollars for a million tokens
//! input = 0.20
//! output = 0.60
//!
//! [images]                         # what rooms may be made of besides this machine's `/usr`
//! allow_directories = ["/srv/roots"]           # roots and archives of images may lie below
//! allow_registries = ["docker.io", "registry.example.com:5000"]
//! plain_registries = ["registry.example.com:5000"]  # of those, the ones without TLS
//! pip_index = "https://mirror.example.com/pypi/simple"    # where packages come from instead of the public registries
//! npm_registry = "https://mirror.example.com/npm"
//! apt_mirror = "http://mirror.example.com/debian"
//! cargo_index = "https://mirror.example.com/crates"       # sparse
//! gem_source = "https://mirror.example.com/gems"
//! go_proxy = "https://mirror.example.com/go"
//!
//! [host_tools]                     # HTTP tools and MCP servers
//! allow_hosts = ["api.example.com", "*.internal.example.com", "127.0.0.1:8080"]
//!
//! [network]                        # connections of rooms
//! allow_addresses = ["10.0.0.0/8", "127.0.0.1:8080"]    # beside the public internet
//! extra_roots = "company-ca.pem"   # trusted beside Mozilla's list; from the working directory
//! hosts = { "git.internal" = "10.0.0.7" }               # addresses of names, without asking anybody
//!
//! [microvm]                        # rooms with a kernel of their own
//! waiting = 2                      # how many machines may live and wait for a session, once such rooms are asked for; 0 to 2
//!
//! [limits]                         # of each workspace alike
//! requests_per_second = 5000
//! requests_burst = 20000
//! turns = 2048                     # that run at the same time
//! sessions = 3072                  # that are alive at the same time
//! streams = 3072                   # that are open at the same time
//!
//! [audit]
//! retention_days = 400
//!
//! [oidc]                           # callers with a token instead of a key
//! issuer = "https://login.example.com"
//! audience = ["loopd"]
//! workspace_claim = "team"         # absent: every token is of the default workspace
//! scope_claim = "scope"
//!
//! [oidc.scopes]                    # absent: the words of the claim are scopes of loopd
//! "loopd.use" = ["sessions:write", "agents:read"]
//! ```
//!
//! Keys and other secrets are not read from here: they come from the environment.

use loopd_domain::usage::Price;
use loopd_host_tools::HostPattern;
use loopd_models::config::{ModelsConfig, ProviderConfig};
use loopd_policy::network::{Exception, ExceptionInvalid};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use toml::Table;

/// Read when nothing else is asked for and it is there.
const DEFAULT_PATH: &str = "loopd.toml";
const USD_MAX: f64 = 1e6;
const MICROS_OF_A_DOLLAR: f64 = 1e6;

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct Config {
    pub listen: Option<SocketAddr>,
    pub data: Option<PathBuf>,
    /// How long an idle session keeps its room.
    pub room_idle_seconds: Option<u64>,
    /// How long a room lives on without a server.
    pub room_orphan_seconds: Option<u64>,
    /// How many rooms may live and wait for a session.
    pub waiting_rooms: Option<u64>,
    /// Where the key is under which vaults lie.
    pub master_key_file: Option<PathBuf>,
    #[serde(default)]
    pub models: ModelsSection,
    #[serde(default)]
    pub host_tools: HostToolsSection,
    #[serde(default)]
    pub images: ImagesSection,
    #[serde(default)]
    pub network: NetworkSection,
    pub microvm: Option<MicrovmSection>,
    #[serde(default)]
    pub limits: LimitsSection,
    #[serde(default)]
    pub audit: AuditSection,
    pub oidc: Option<OidcSection>,
}

/// Rooms that are virtual machines. That it is there says that they are wanted here.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct MicrovmSection {
    /// How many machines may live and wait for a session.
    pub waiting: Option<u64>,
}

/// What one workspace may ask for.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct LimitsSection {
    pub requests_per_second: Option<NonZeroU32>,
    pub requests_burst: Option<NonZeroU32>,
    pub turns: Option<NonZeroU32>,
    pub sessions: Option<NonZeroU32>,
    pub streams: Option<NonZeroU32>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct AuditSection {
    pub retention_days: Option<u64>,
}

/// An issuer whose tokens are taken.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct OidcSection {
    pub issuer: String,
    pub audience: Vec<String>,
    pub workspace_claim: Option<String>,
    pub scope_claim: Option<String>,
    #[serde(default)]
    pub scopes: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct ImagesSection {
    /// Directories of this machine below which roots and archives may lie. Absent: none.
    #[serde(default)]
    pub allow_directories: Vec<PathBuf>,
    /// Registries that may be asked. Absent: the well-known public ones.
    pub allow_registries: Option<Vec<String>>,
    #[serde(default)]
    pub plain_registries: Vec<String>,
    /// Where packages of environments come from instead of the public registries.
    pub pip_index: Option<String>,
    pub npm_registry: Option<String>,
    pub apt_mirror: Option<String>,
    pub cargo_index: Option<String>,
    pub gem_source: Option<String>,
    pub go_proxy: Option<String>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct NetworkSection {
    /// Addresses that rooms may reach although they are not of the public internet: blocks, addresses, `host:port`.
    #[serde(default)]
    pub allow_addresses: Vec<String>,
    /// Certificates (PEM) of authorities that the proxy trusts beside the usual ones.
    pub extra_roots: Option<PathBuf>,
    /// Addresses of names. They are judged like those that a resolver says.
    #[serde(default)]
    pub hosts: BTreeMap<String, IpAddr>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct HostToolsSection {
    /// Hosts that tools which the host runs may reach. Absent: see `Settings::allow_hosts`.
    pub allow_hosts: Option<Vec<String>>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct ModelsSection {
    pub silence_seconds: Option<u64>,
    #[serde(default)]
    pub providers: Vec<ProviderConfig>,
    #[serde(default)]
    pub prices: BTreeMap<String, PriceSection>,
}

/// US dollars for a million tokens. Cached tokens cost what others do unless it is said.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct PriceSection {
    pub input: f64,
    pub output: f64,
    pub cache_read: Option<f64>,
    pub cache_write: Option<f64>,
}

impl PriceSection {
    fn price(&self) -> Price {
        let micros = |usd: f64| (usd * MICROS_OF_A_DOLLAR).round() as u64;
        Price {
            input: micros(self.input),
            output: micros(self.output),
            cache_read: micros(self.cache_read.unwrap_or(self.input)),
            cache_write: micros(self.cache_write.unwrap_or(self.input)),
        }
    }
}

impl ModelsSection {
    /// As the models' room wants it.
    pub fn to_models_config(&self) -> ModelsConfig {
        ModelsConfig {
            providers: self.providers.clone(),
            prices: self.prices.iter().map(|(id, price)| (id.clone(), price.price())).collect(),
            silence_ms: self.silence_seconds.map(|s| s.saturating_mul(1_000)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration `{path}`: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("configuration `{path}`: {message}")]
    Malformed { path: PathBuf, message: String },
    #[error("configuration `{path}`: unknown key `{key}` in {section}; {hint}")]
    UnknownKey { path: PathBuf, key: String, section: String, hint: String },
    #[error(
        "configuration `{path}`: price `{value}` of `{model}`; accepted: US dollars for a million tokens, from 0 to {USD_MAX}"
    )]
    Price { path: PathBuf, model: String, value: f64 },
    #[error(
        "configuration `{path}`: host `{value}` in [host_tools] allow_hosts; accepted: `host`, `host:port`, `*.domain` or \
         `*.domain:port`"
    )]
    Host { path: PathBuf, value: String },
    #[error("configuration `{path}`: [network] allow_addresses: {source}")]
    Address { path: PathBuf, source: ExceptionInvalid },
}

impl Config {
    /// The file that was asked for, or `./loopd.toml` where there is one.
    pub fn load(asked: Option<&Path>) -> Result<Self, ConfigError> {
        let path = asked.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(fault) if asked.is_none() && fault.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let malformed =
            |fault: toml::de::Error| ConfigError::Malformed { path: path.to_owned(), message: fault.to_string() };
        let table: Table = toml::from_str(text).map_err(malformed)?;
        known_keys_only(path, &table)?;
        let config: Config = toml::from_str(text).map_err(malformed)?;
        config.check_prices(path)?;
        config.check_hosts(path)?;
        config.check_addresses(path)?;
        Ok(config)
    }

    fn check_hosts(&self, path: &Path) -> Result<(), ConfigError> {
        let mut hosts = self.host_tools.allow_hosts.iter().flatten();
        match hosts.find(|host| HostPattern::parse(host).is_err()) {
            None => Ok(()),
            Some(value) => Err(ConfigError::Host { path: path.to_owned(), value: value.clone() }),
        }
    }

    fn check_addresses(&self, path: &Path) -> Result<(), ConfigError> {
        let mut faults = self.network.allow_addresses.iter().filter_map(|text| Exception::parse(text).err());
        match faults.next() {
            None => Ok(()),
            Some(source) => Err(ConfigError::Address { path: path.to_owned(), source }),
        }
    }

    fn check_prices(&self, path: &Path) -> Result<(), ConfigError> {
        for (model, price) in &self.models.prices {
            let given = [Some(price.input), Some(price.output), price.cache_read, price.cache_write];
            if let Some(value) = given.into_iter().flatten().find(|v| !(0.0..=USD_MAX).contains(v)) {
                return Err(ConfigError::Price { path: path.to_owned(), model: model.clone(), value });
            }
        }
        Ok(())
    }
}

const TOP_KEYS: &[&str] = &[
    "listen",
    "data",
    "room_idle_seconds",
    "room_orphan_seconds",
    "waiting_rooms",
    "master_key_file",
    "models",
    "host_tools",
    "images",
    "network",
    "microvm",
    "limits",
    "audit",
    "oidc",
];
const LIMITS_KEYS: &[&str] = &["requests_per_second", "requests_burst", "turns", "sessions", "streams"];
const MICROVM_KEYS: &[&str] = &["waiting"];
const AUDIT_KEYS: &[&str] = &["retention_days"];
const OIDC_KEYS: &[&str] = &["issuer", "audience", "workspace_claim", "scope_claim", "scopes"];
const HOST_TOOLS_KEYS: &[&str] = &["allow_hosts"];
const IMAGES_KEYS: &[&str] = &[
    "allow_directories",
    "allow_registries",
    "plain_registries",
    "pip_index",
    "npm_registry",
    "apt_mirror",
    "cargo_index",
    "gem_source",
    "go_proxy",
];
const NETWORK_KEYS: &[&str] = &["allow_addresses", "extra_roots", "hosts"];
const MODELS_KEYS: &[&str] = &["silence_seconds", "providers", "prices"];
const PROVIDER_KEYS: &[&str] = &["name", "kind", "base_url", "api_key_env"];
const PRICE_KEYS: &[&str] = &["input", "output", "cache_read", "cache_write"];

fn known_keys_only(path: &Path, table: &Table) -> Result<(), ConfigError> {
    let check = |table: &Table, section: &str, known: &[&str]| {
        let unknown = table.keys().find(|key| !known.contains(&key.as_str()));
        unknown.map_or(Ok(()), |key| {
            let (key, section, hint) = (key.clone(), section.to_owned(), hint(key, known));
            Err(ConfigError::UnknownKey { path: path.to_owned(), key, section, hint })
        })
    };
    check(table, "the top level", TOP_KEYS)?;
    let sections = [
        ("host_tools", HOST_TOOLS_KEYS),
        ("microvm", MICROVM_KEYS),
        ("limits", LIMITS_KEYS),
        ("audit", AUDIT_KEYS),
        ("oidc", OIDC_KEYS),
    ];
    for (name, known) in sections {
        if let Some(section) = table.get(name).and_then(|v| v.as_table()) {
            check(section, &format!("[{name}]"), known)?;
        }
    }
    if let Some(section) = table.get("images").and_then(|v| v.as_table()) {
        check(section, "[images]", IMAGES_KEYS)?;
    }
    if let Some(section) = table.get("network").and_then(|v| v.as_table()) {
        check(section, "[network]", NETWORK_KEYS)?;
    }
    let Some(models) = table.get("models").and_then(|v| v.as_table()) else { return Ok(()) };
    check(models, "[models]", MODELS_KEYS)?;
    let providers = models.get("providers").and_then(|v| v.as_array());
    for provider in providers.into_iter().flatten().filter_map(|v| v.as_table()) {
        check(provider, "[[models.providers]]", PROVIDER_KEYS)?;
    }
    let prices = models.get("prices").and_then(|v| v.as_table());
    for (model, price) in prices.into_iter().flatten() {
        if let Some(price) = price.as_table() {
            check(price, &format!("[models.prices.\"{model}\"]"), PRICE_KEYS)?;
        }
    }
    Ok(())
}

/// What was most likely meant, or all that could be.
fn hint(key: &str, known: &[&str]) -> String {
    let scored = known.iter().map(|k| (strsim::jaro_winkler(key, k), k));
    match scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(score, _)| *score > 0.75) {
        Some((_, nearest)) => format!("did you mean `{nearest}`?"),
        None => format!("accepted: `{}`", known.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("loopd.toml"), text).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_example_of_this_files_head_is_read() {
        let source = include_str!("config.rs");
        let example: String = source
            .lines()
            .skip_while(|l| !l.contains("```toml"))
            .skip(1)
            .take_while(|l| !l.contains("```"))
            .map(|l| format!("{}\n", l.trim_start_matches("//!").trim_start()))
            .collect();
        let config = parse(&example).expect("reads");
        assert_eq!(config.models.providers[0].name, "vllm");
        assert_eq!(config.models.to_models_config().prices["vllm/qwen3"].output, 600_000);
        assert_eq!(config.room_idle_seconds, Some(300));
        assert_eq!(config.limits.turns.map(NonZeroU32::get), Some(2_048));
        assert_eq!(config.audit.retention_days, Some(400));
        assert_eq!(config.oidc.as_ref().map(|oidc| oidc.scopes["loopd.use"].len()), Some(2));
        assert_eq!(config.master_key_file, Some(PathBuf::from("/run/secrets/loopd.key")));
        assert_eq!(config.host_tools.allow_hosts.map(|hosts| hosts.len()), Some(3));
        assert_eq!(config.network.allow_addresses, ["10.0.0.0/8", "127.0.0.1:8080"]);
        assert_eq!(config.network.hosts["git.internal"], IpAddr::from([10, 0, 0, 7]));
        assert_eq!(config.network.extra_roots.as_deref(), Some(Path::new("company-ca.pem")));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest() {
        assert!(parse("lisen = \"x\"").expect_err("unknown").contains("did you mean `listen`?"));
        let told = parse("[[models.providers]]\nname = \"x\"\nbaseurl = \"y\"").expect_err("unknown");
        assert!(told.contains("in [[models.providers]]; did you mean `base_url`?"), "{told}");
        let told = parse("[models.prices.\"a/b\"]\nzzz = 1").expect_err("unknown");
        assert!(told.contains("accepted: `input`, `output`"), "{told}");
    }

    #[test]
    fn wrong_types_and_values_say_where() {
        assert!(parse("listen = 7007").expect_err("type").contains("line 1"));
        assert!(parse("[limits]\nturns = 0").expect_err("nothing could run").contains("line 2"));
        assert!(parse("[limits]\nturn = 1").expect_err("unknown").contains("did you mean `turns`?"));
        assert!(parse("[oidc]\nissuer = \"https://x\"").expect_err("for whom?").contains("audience"));
        let told = parse("[[models.providers]]\nname=\"x\"\nkind=\"grpc\"\nbase_url=\"y\"").expect_err("kind");
        assert!(told.contains("`openai`") && told.contains("`anthropic`"), "{told}");
        assert!(parse("[models.prices.\"a/b\"]\ninput=-1.0\noutput=1.0").expect_err("price").contains("`a/b`"));
    }

    #[test]
    fn hosts_are_checked_when_they_are_read() {
        let told = parse("[host_tools]\nallow_hosts = [\"http://x\"]").expect_err("no host");
        assert!(told.contains("`http://x`") && told.contains("`*.domain`"), "{told}");
        assert!(parse("[host_tools]\nallow_host = []").expect_err("unknown").contains("did you mean `allow_hosts`?"));
        let told = parse("[network]\nallow_addresses = [\"10.0.0.0/33\"]").expect_err("no block");
        assert!(told.contains("allow_addresses") && told.contains("`10.0.0.0/33`"), "{told}");
        assert!(parse("[network]\nextra_root = \"x\"").expect_err("unknown").contains("did you mean `extra_roots`?"));
    }

    #[test]
    fn only_a_file_that_was_asked_for_must_exist() {
        let told = Config::load(Some(Path::new("/nonexistent/loopd.toml"))).expect_err("absent").to_string();
        assert!(told.contains("/nonexistent/loopd.toml"), "{told}");
    }
}
