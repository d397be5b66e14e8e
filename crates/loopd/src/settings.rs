//! What holds in the end: command line over environment over configuration file over default.

use crate::args::Place;
use crate::config::{Config, ConfigError, LimitsSection, OidcSection};
use loopd_domain::limits;
use loopd_domain::rate::Rate;
use loopd_host_tools::{AllowHosts, HostPattern};
use loopd_images::{Mirror, Mirrors};
use loopd_server::{OidcConfig, OidcError, WorkspaceLimits};
use loopd_session::Share;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// A variable of the environment; empty counts as absent.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

const DATA_DEFAULT: &str = "./.loopd";
const PORT_DEFAULT: u16 = 7007;
/// A sign of life is due every third of a lease; shorter ones would measure the machine's load.
const LEASE_MS_MIN: u64 = 300;

#[derive(Debug, Clone)]
pub struct Settings {
    pub listen: SocketAddr,
    pub data: PathBuf,
    pub room_idle_ms: u64,
    pub room_orphan_seconds: u64,
    /// How many rooms may live and wait for a session.
    pub waiting_rooms: usize,
    /// How many virtual machines may live and wait for a session.
    pub waiting_machines: usize,
    /// A holder of the data directory without a sign of life for so long may be replaced. Shorter than the default only for
    /// tests (`LOOPD_LEASE_MS`).
    pub lease: Duration,
    /// Keys that callers must show; none: development mode.
    pub api_keys: Vec<String>,
    /// Tokens of this issuer are taken.
    pub oidc: Option<OidcConfig>,
    pub workspace_limits: WorkspaceLimits,
    pub workspace_share: Share,
    pub audit_retention_days: u64,
    pub config: Config,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("LOOPD_URL is `{url}`, and --data names a directory; accepted: one of them")]
    TwoPlaces { url: String },
    #[error(
        "LOOPD_LEASE_MS is `{text}`; accepted: {LEASE_MS_MIN} to {} (and shorter than that only for tests)",
        limits::LEASE_MS
    )]
    Lease { text: String },
    #[error("LOOPD_URL is `{url}`; accepted: `http://host:port` or `https://host`")]
    Url { url: String },
    #[error("[images] allow_directories names `{path}`: {source}; accepted: directories that are there")]
    ImageDirectory { path: PathBuf, source: std::io::Error },
    #[error(
        "[images] {name} is `{text}`; accepted: `https://host/path`, or `http://` without TLS, and no user or password, as rooms see it"
    )]
    Mirror { name: &'static str, text: String },
    #[error("the number of waiting rooms is `{text}`; accepted: 0 to {}", limits::ROOMS_WAITING_MAX)]
    WaitingRooms { text: String },
    #[error("configuration: `microvm.waiting` is `{number}`; accepted: 0 to {}", limits::MACHINES_WAITING_MAX)]
    WaitingMachines { number: u64 },
    #[error("{name} is `{text}`; accepted: a number of seconds")]
    Seconds { name: &'static str, text: String },
    #[error(
        "refusing to listen on {listen} without an API key: everybody who reaches it could run commands here; make one with \
         `loopd keys create`, set LOOPD_API_KEY (or LOOPD_API_KEYS, separated by commas), configure [oidc], or listen on a loopback \
         address"
    )]
    OpenToTheWorld { listen: SocketAddr },
    #[error("configuration: {0}")]
    Oidc(#[from] OidcError),
    #[error("configuration: `audit.retention_days` is `{days}`; accepted: 1 to {}", limits::AUDIT_RETENTION_DAYS_MAX)]
    Retention { days: u64 },
}

impl Settings {
    pub fn resolve(place: &Place, env: Env<'_>) -> Result<Self, SettingsError> {
        let config = Config::load(place.config.as_deref())?;
        let data = place.data.clone().or_else(|| env("LOOPD_DATA").map(PathBuf::from)).or_else(|| config.data.clone());
        let idle_ms = config.room_idle_seconds.map(|s| s.saturating_mul(1_000));
        Ok(Settings {
            listen: config.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT))),
            data: data.unwrap_or_else(|| PathBuf::from(DATA_DEFAULT)),
            lease: lease(env)?,
            room_orphan_seconds: seconds(env, "LOOPD_ROOM_ORPHAN_SECONDS")?
                .or(config.room_orphan_seconds)
                .unwrap_or(limits::ROOM_ORPHAN_SECONDS_DEFAULT)
                .max(1),
            waiting_rooms: waiting_rooms(env, config.waiting_rooms)?,
            waiting_machines: waiting_machines(&config)?,
            room_idle_ms: idle_ms.unwrap_or(limits::ROOM_IDLE_MS),
            api_keys: api_keys(env),
            oidc: config.oidc.as_ref().map(oidc).transpose()?,
            workspace_limits: workspace_limits(&config.limits),
            workspace_share: workspace_share(&config.limits),
            audit_retention_days: retention(&config)?,
            config,
        })
    }

    /// Where tools that the host runs may go. With nothing said: anywhere in development, where only this machine's own
    /// programs can ask for it, and nowhere on an address that others reach.
    pub fn allow_hosts(&self) -> AllowHosts {
        match &self.config.host_tools.allow_hosts {
            Some(patterns) => AllowHosts::Only(patterns.iter().filter_map(|p| HostPattern::parse(p).ok()).collect()),
            None if self.listen.ip().is_loopback() => AllowHosts::Any,
            None => AllowHosts::Only(Vec::new()),
        }
    }

    /// What rooms may be made of. The directories must be there.
    pub fn images(&self, env: Env<'_>) -> Result<loopd_images::Settings, SettingsError> {
        let section = &self.config.images;
        let real = |path: &PathBuf| {
            let found = loopd_images::real_directory(path);
            found.map_err(|source| SettingsError::ImageDirectory { path: path.clone(), source })
        };
        let registries = section.allow_registries.clone();
        let docker = env("DOCKER_CONFIG").map(PathBuf::from);
        let docker = docker.or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".docker")));
        Ok(loopd_images::Settings {
            directories: section.allow_directories.iter().map(real).collect::<Result<_, _>>()?,
            registries: registries.unwrap_or_else(|| loopd_images::Settings::default().registries),
            plain_registries: section.plain_registries.clone(),
            mirrors: Mirrors {
                apt: mirror("apt_mirror", &section.apt_mirror)?,
                npm: mirror("npm_registry", &section.npm_registry)?,
                pip: mirror("pip_index", &section.pip_index)?,
                cargo: mirror("cargo_index", &section.cargo_index)?,
                gem: mirror("gem_source", &section.gem_source)?,
                go: mirror("go_proxy", &section.go_proxy)?,
            },
            docker_config: docker.map(|directory| directory.join("config.json")),
        })
    }

    /// Is it safe to serve there? `keyed`: callers need a key.
    pub fn check_exposure(&self, keyed: bool) -> Result<(), SettingsError> {
        match self.listen.ip().is_loopback() || keyed {
            true => Ok(()),
            false => Err(SettingsError::OpenToTheWorld { listen: self.listen }),
        }
    }
}

fn oidc(section: &OidcSection) -> Result<OidcConfig, OidcError> {
    let OidcSection { issuer, audience, workspace_claim, scope_claim, scopes } = section.clone();
    OidcConfig::new(issuer, audience, workspace_claim, scope_claim, &scopes)
}

fn workspace_limits(section: &LimitsSection) -> WorkspaceLimits {
    let default = WorkspaceLimits::default();
    let rate = section.requests_per_second.map_or(default.requests.per_second, NonZeroU32::get);
    // Whoever lowers the rate alone does not mean to keep the large burst.
    let burst = match (section.requests_burst, section.requests_per_second) {
        (Some(burst), _) => burst.get(),
        (None, Some(rate)) => default.requests.burst.min(rate.get()),
        (None, None) => default.requests.burst,
    };
    WorkspaceLimits {
        requests: Rate { per_second: rate, burst },
        streams: section.streams.map_or(default.streams, |n| n.get() as usize),
    }
}

fn workspace_share(section: &LimitsSection) -> Share {
    let default = Share::default();
    Share {
        turns: section.turns.map_or(default.turns, |n| n.get() as usize),
        sessions: section.sessions.map_or(default.sessions, |n| n.get() as usize),
    }
}

fn retention(config: &Config) -> Result<u64, SettingsError> {
    let days = config.audit.retention_days.unwrap_or(limits::AUDIT_RETENTION_DAYS_DEFAULT);
    match (1..=limits::AUDIT_RETENTION_DAYS_MAX).contains(&days) {
        true => Ok(days),
        false => Err(SettingsError::Retention { days }),
    }
}

/// The running server that commands are to use, where one is named.
pub fn server_url(place: &Place, env: Env<'_>) -> Result<Option<url::Url>, SettingsError> {
    let Some(text) = env("LOOPD_URL") else { return Ok(None) };
    if place.data.is_some() {
        return Err(SettingsError::TwoPlaces { url: text });
    }
    let parsed = url::Url::parse(&text).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    parsed.map(Some).ok_or(SettingsError::Url { url: text })
}

fn lease(env: Env<'_>) -> Result<Duration, SettingsError> {
    let Some(text) = env("LOOPD_LEASE_MS") else { return Ok(Duration::from_millis(limits::LEASE_MS)) };
    let given = text.parse().ok().filter(|ms| (LEASE_MS_MIN..=limits::LEASE_MS).contains(ms));
    given.map(Duration::from_millis).ok_or(SettingsError::Lease { text })
}

fn seconds(env: Env<'_>, name: &'static str) -> Result<Option<u64>, SettingsError> {
    let Some(text) = env(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| SettingsError::Seconds { name, text })
}

fn waiting_rooms(env: Env<'_>, configured: Option<u64>) -> Result<usize, SettingsError> {
    let Some(text) = env("LOOPD_WAITING_ROOMS").or_else(|| configured.map(|number| number.to_string())) else {
        return Ok(limits::ROOMS_WAITING_MAX);
    };
    let number = text.parse().ok().filter(|number| *number <= limits::ROOMS_WAITING_MAX);
    number.ok_or(SettingsError::WaitingRooms { text })
}

fn waiting_machines(config: &Config) -> Result<usize, SettingsError> {
    let Some(number) = config.microvm.as_ref().and_then(|section| section.waiting) else {
        return Ok(limits::MACHINES_WAITING_MAX);
    };
    let most = usize::try_from(number).ok().filter(|number| *number <= limits::MACHINES_WAITING_MAX);
    most.ok_or(SettingsError::WaitingMachines { number })
}

fn api_keys(env: Env<'_>) -> Vec<String> {
    let given = ["LOOPD_API_KEY", "LOOPD_API_KEYS"].into_iter().filter_map(env);
    given
        .flat_map(|list| list.split(',').map(|k| k.trim().to_owned()).collect::<Vec<_>>())
        .filter(|k| !k.is_empty())
        .collect()
}

/// The process's own environment.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn mirror(name: &'static str, text: &Option<String>) -> Result<Option<Mirror>, SettingsError> {
    let Some(text) = text else { return Ok(None) };
    Mirror::parse(text).map(Some).ok_or_else(|| SettingsError::Mirror { name, text: text.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(data: Option<&str>) -> Place {
        Place { data: data.map(PathBuf::from), config: None }
    }

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
    }

    #[test]
    fn flag_over_environment_over_default() {
        let data = |place: &Place, vars: &[(&str, &str)]| Settings::resolve(place, &env(vars)).expect("fine").data;
        assert_eq!(data(&place(Some("/flag")), &[("LOOPD_DATA", "/env")]), PathBuf::from("/flag"));
        assert_eq!(data(&place(None), &[("LOOPD_DATA", "/env")]), PathBuf::from("/env"));
        assert_eq!(data(&place(None), &[]), PathBuf::from("./.loopd"));
    }

    #[test]
    fn with_nothing_said_only_this_machine_is_served() {
        let settings = Settings::resolve(&place(None), &env(&[])).expect("fine");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7007");
        assert!(settings.check_exposure(false).is_ok());
    }

    #[test]
    fn other_addresses_need_a_key() {
        let on = |text: &str| {
            let settings = Settings::resolve(&place(None), &env(&[])).expect("fine");
            Settings { listen: text.parse().expect("an address"), ..settings }
        };
        for here in ["127.0.0.1:1", "[::1]:1"] {
            assert!(on(here).check_exposure(false).is_ok(), "{here}");
        }
        for everywhere in ["0.0.0.0:7007", "[::]:7007", "10.1.2.3:80"] {
            let told = on(everywhere).check_exposure(false).expect_err("refused").to_string();
            assert!(told.contains("LOOPD_API_KEY") && told.contains("loopd keys create"), "{told}");
            assert!(on(everywhere).check_exposure(true).is_ok());
        }
        let closed = Settings::resolve(&place(None), &env(&[("LOOPD_API_KEYS", "a, b,,")])).expect("fine");
        assert_eq!(closed.api_keys, ["a", "b"]);
    }

    #[test]
    fn a_lease_is_bounded() {
        let lease = |text| Settings::resolve(&place(None), &env(&[("LOOPD_LEASE_MS", text)])).map(|s| s.lease);
        assert_eq!(lease("300").expect("fine"), Duration::from_millis(300));
        for bad in ["0", "299", "10001", "-1", "soon"] {
            let told = lease(bad).expect_err("refused").to_string();
            assert!(told.contains(&format!("`{bad}`")) && told.contains("300 to 10000"), "{told}");
        }
    }

    #[test]
    fn a_url_that_is_none_is_named() {
        let url = |text| server_url(&place(None), &env(&[("LOOPD_URL", text)]));
        assert_eq!(url("http://h:1").expect("fine").expect("there").as_str(), "http://h:1/");
        for bad in ["h:1", "ftp://h", "7007"] {
            assert!(url(bad).expect_err("refused").to_string().contains("http://host:port"), "{bad}");
        }
        let both = server_url(&place(Some("/d")), &env(&[("LOOPD_URL", "http://h")]));
        assert!(both.expect_err("refused").to_string().contains("one of them"));
        assert!(server_url(&place(Some("/d")), &env(&[])).expect("fine").is_none());
    }
}
