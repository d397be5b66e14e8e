//! Environments: reading a definition and a patch; writing the object.

use crate::error::ApiError;
use crate::fields::{Field, Fields, Kind, Patch, describe, items, may, must, request_body, text, unavailable};
use crate::wire::metadata;
use loopd_domain::environment::{
    Environment as Definition, EnvironmentConfig, Hibernation, Isolation, Networking, Packages, Ports, RoomLimits,
    RootSource,
};
use loopd_domain::limits::{
    DESCRIPTION_CHARS_MAX, IMAGE_REFERENCE_CHARS_MAX, NAME_CHARS_MAX, NETWORK_PORTS_MAX, PACKAGE_CHARS_MAX,
    PACKAGES_MAX, ROOM_CALL_SECONDS_MAX, ROOT_PATH_CHARS_MAX,
};
use loopd_domain::packages::Manager;
use loopd_domain::{Invalid, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

const HOSTS_MAX: usize = 256;
const HOST_CHARS_MAX: usize = 253;
const MIB: u64 = 1 << 20;

pub const CREATE: &[Field] = &[
    must("name", Kind::Text, "1 to 256 characters; need not be unique"),
    may(
        "config",
        Kind::Object,
        "{type: \"cloud\", root?, networking?, packages?, isolation?, hibernation?, limits?}; absent: the default room",
    ),
    may("description", Kind::Text, "up to 2,048 characters"),
    may("metadata", Kind::Object, "up to 16 pairs of texts"),
    may("scope", Kind::Text, "`organization`"),
];
request_body!(
    /// Body of `POST /v1/environments`.
    EnvironmentCreate, CREATE
);

pub const UPDATE: &[Field] = &[
    may("name", Kind::Text, "absent keeps it"),
    may("config", Kind::Object, "what it names is replaced; its type cannot change"),
    may("description", Kind::Text, "absent keeps it, null clears it"),
    may("metadata", Kind::Object, "key by key: a text sets, null or an empty text removes"),
    may("scope", Kind::Text, "`organization`"),
];
request_body!(
    /// Body of `POST /v1/environments/{environment_id}`.
    EnvironmentUpdate, UPDATE
);

/// What a caller says of a new environment.
pub struct NewEnvironment {
    pub name: String,
    pub description: Option<String>,
    pub config: EnvironmentConfig,
    pub metadata: loopd_domain::agent::Metadata,
}

pub fn read_new(body: Value) -> Result<NewEnvironment, Invalid> {
    let mut fields = Fields::body(body, CREATE)?;
    fields.word("scope", &["organization"])?;
    Ok(NewEnvironment {
        name: fields.need_text("name", 1..=NAME_CHARS_MAX)?,
        description: fields.text("description", 0..=DESCRIPTION_CHARS_MAX)?,
        config: match fields.given("config") {
            None => EnvironmentConfig::default(),
            Some(value) => read_config("config", value, EnvironmentConfig::default())?,
        },
        metadata: metadata::read_new("metadata", fields.given("metadata"))?,
    })
}

/// The environment after a patch; `updated_at` is the caller's business.
pub fn patch(body: Value, mut old: Definition) -> Result<Definition, ApiError> {
    let mut fields = Fields::body(body, UPDATE)?;
    fields.word("scope", &["organization"])?;
    if let Some(name) = fields.text("name", 1..=NAME_CHARS_MAX)? {
        old.name = name;
    }
    match fields.patch_text("description", 0..=DESCRIPTION_CHARS_MAX)? {
        Patch::Keep => {}
        Patch::Clear => old.description = None,
        Patch::Set(text) => old.description = Some(text),
    }
    if let Some(value) = fields.given("config") {
        if value.get("type").and_then(Value::as_str) == Some("self_hosted") {
            let fault = Invalid::new("config.type", "self_hosted", "`cloud`: the type of an environment cannot change");
            return Err(ApiError::from(fault).with_code("invalid_config_type_change"));
        }
        old.config = read_config("config", value, old.config)?;
    }
    let patch = metadata::read_patch("metadata", fields.given("metadata"), true)?;
    old.metadata = metadata::apply("metadata", old.metadata, &patch)?;
    Ok(old)
}

/// What `value` names, and the rest of `base`.
pub fn read_config(at: &str, value: Value, base: EnvironmentConfig) -> Result<EnvironmentConfig, Invalid> {
    let names = ["type", "root", "networking", "packages", "isolation", "hibernation", "limits"];
    let mut fields = Fields::open(at, value, &names)?;
    if let Some("self_hosted") = fields.word("type", &["cloud", "anthropic_cloud", "self_hosted"])? {
        return Err(unavailable(&fields.path("type"), &json!("self_hosted")));
    }
    let mut config = base;
    if let Some(value) = fields.given("packages") {
        config.packages = read_packages(&fields.path("packages"), value)?;
    }
    if let Some(value) = fields.given("root") {
        config.root = read_root(&fields.path("root"), value)?;
    }
    if let Some(value) = fields.given("networking") {
        (config.networking, config.ports) = read_networking(&fields.path("networking"), value)?;
    }
    if let Some(word) = fields.word("isolation", &Isolation::ALL.map(Isolation::as_str))? {
        config.isolation = Isolation::parse(word).unwrap_or_default();
    }
    if let Some(word) = fields.word("hibernation", &Hibernation::ALL.map(Hibernation::as_str))? {
        config.hibernation = Hibernation::parse(word).unwrap_or_default();
    }
    if let Some(value) = fields.given("limits") {
        config.limits = read_limits(&fields.path("limits"), value, config.limits)?;
    }
    if config.hibernation == Hibernation::Memory && config.isolation != Isolation::Microvm {
        let accepted =
            "`workspace`; or `memory` with `isolation` `microvm`, as only a machine of its own can be suspended";
        return Err(Invalid::new(fields.path("hibernation"), config.hibernation.as_str(), accepted));
    }
    Ok(config)
}

/// All lists at once: a manager that is not named installs nothing.
fn read_packages(at: &str, value: Value) -> Result<Packages, Invalid> {
    let known = Manager::ALL.map(Manager::name);
    let names: Vec<&str> = known.into_iter().chain(["type"]).collect();
    let mut fields = Fields::open(at, value, &names)?;
    fields.word("type", &["packages"])?;
    let mut packages = Packages::default();
    for manager in Manager::ALL {
        let at = fields.path(manager.name());
        let given = fields.given(manager.name()).map_or(Ok(Vec::new()), |value| items(&at, value, PACKAGES_MAX))?;
        let read = given.into_iter().enumerate().map(|(i, value)| read_package(manager, &format!("{at}[{i}]"), value));
        let read = read.collect::<Result<_, _>>()?;
        match manager {
            Manager::Apt => packages.apt = read,
            Manager::Npm => packages.npm = read,
            Manager::Pip => packages.pip = read,
            Manager::Cargo => packages.cargo = read,
            Manager::Gem => packages.gem = read,
            Manager::Go => packages.go = read,
        }
    }
    Ok(packages)
}

fn read_package(manager: Manager, at: &str, value: Value) -> Result<String, Invalid> {
    let name = text(at, value, 1..=PACKAGE_CHARS_MAX)?;
    match manager.takes(&name) {
        true => Ok(name),
        false => Err(Invalid::new(at, name, manager.accepted())),
    }
}

/// Where the root file system comes from. Whether this host has it is not said here.
fn read_root(at: &str, value: Value) -> Result<RootSource, Invalid> {
    const KINDS: [&str; 4] = ["host", "directory", "image", "archive"];
    let mut fields = Fields::open(at, value, &["type", "path", "reference"])?;
    let kind = fields.word("type", &KINDS)?;
    let root = match kind {
        None => return Err(Invalid::missing(fields.path("type"), "`host`, `directory`, `image` or `archive`")),
        Some("image") => RootSource::Image { reference: fields.need_text("reference", 1..=IMAGE_REFERENCE_CHARS_MAX)? },
        Some("directory") => RootSource::Directory { path: read_path(&mut fields)? },
        Some("archive") => RootSource::Archive { path: read_path(&mut fields)? },
        Some(_) => RootSource::Host,
    };
    for name in ["path", "reference"] {
        if let Some(value) = fields.given(name) {
            let accepted = format!("nothing: a root of type `{}` has no `{name}`", kind.unwrap_or_default());
            return Err(Invalid::new(fields.path(name), describe(&value), accepted));
        }
    }
    Ok(root)
}

fn read_path(fields: &mut Fields) -> Result<String, Invalid> {
    let path = fields.need_text("path", 1..=ROOT_PATH_CHARS_MAX)?;
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(path),
        false => Err(Invalid::new(fields.path("path"), path, "an absolute path of the host")),
    }
}

fn read_networking(at: &str, value: Value) -> Result<(Networking, Ports), Invalid> {
    let names = ["type", "allowed_hosts", "allow_mcp_servers", "allow_package_managers", "ports"];
    let mut fields = Fields::open(at, value, &names)?;
    let ports = match fields.given("ports") {
        None => Ports::default(),
        Some(value) => read_ports(&fields.path("ports"), value)?,
    };
    let networking = match fields.word("type", &["unrestricted", "limited", "none"])? {
        None => Err(Invalid::missing(fields.path("type"), "`unrestricted`, `limited` or `none`")),
        Some("none") => Ok(Networking::None),
        Some("unrestricted") => Ok(Networking::Unrestricted),
        Some(_) => {
            let at = fields.path("allowed_hosts");
            let hosts = fields.given("allowed_hosts").map_or(Ok(Vec::new()), |v| items(&at, v, HOSTS_MAX))?;
            let hosts = hosts.into_iter().enumerate().map(|(i, v)| read_host(&format!("{at}[{i}]"), v));
            Ok(Networking::Limited {
                allowed_hosts: hosts.collect::<Result<_, _>>()?,
                allow_mcp_servers: fields.boolean("allow_mcp_servers")?.unwrap_or(false),
                allow_package_managers: fields.boolean("allow_package_managers")?.unwrap_or(false),
            })
        }
    }?;
    Ok((networking, ports))
}

/// Each once, in ascending order, so that two lists of the same ports are the same room.
fn read_ports(at: &str, value: Value) -> Result<Ports, Invalid> {
    let mut ports = Vec::new();
    for (i, value) in items(at, value, NETWORK_PORTS_MAX)?.into_iter().enumerate() {
        let port = value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        ports.push(port.ok_or_else(|| Invalid::new(format!("{at}[{i}]"), &value, "a port from 1 to 65535"))?);
    }
    ports.sort_unstable();
    ports.dedup();
    match ports.is_empty() {
        true => {
            Err(Invalid::new(at, "[]", "one port or more; a room without a way out has `networking` of type `none`"))
        }
        false => Ok(Ports(ports)),
    }
}

/// `example.com` or `*.example.com`: no scheme, port or path.
pub fn read_host(at: &str, value: Value) -> Result<String, Invalid> {
    let host = text(at, value, 1..=HOST_CHARS_MAX)?;
    let bare = host.strip_prefix("*.").unwrap_or(&host);
    let label = |l: &str| !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match bare.split('.').all(label) {
        true => Ok(host.to_ascii_lowercase()),
        false => Err(Invalid::new(at, host, "a host name such as `example.com` or `*.example.com`")),
    }
}

fn read_limits(at: &str, value: Value, base: RoomLimits) -> Result<RoomLimits, Invalid> {
    if !value.is_object() {
        return Err(Invalid::new(at, describe(&value), "an object"));
    }
    let names = [
        "memory_bytes",
        "pids",
        "open_files",
        "file_bytes",
        "cpu_millis",
        "disk_bytes",
        "io_bytes_per_second",
        "output_bytes",
        "call_seconds",
    ];
    let mut fields = Fields::open(at, value, &names)?;
    let mut read = |name: &str, accepted, base| Ok::<_, Invalid>(fields.integer(name, accepted)?.unwrap_or(base));
    Ok(RoomLimits {
        memory_bytes: read("memory_bytes", 16 * MIB..=MIB * MIB, base.memory_bytes)?,
        pids: read("pids", 8..=65_536, base.pids)?,
        open_files: read("open_files", 16..=1_048_576, base.open_files)?,
        file_bytes: read("file_bytes", MIB..=MIB * MIB, base.file_bytes)?,
        cpu_millis: read("cpu_millis", 10..=1_024_000, base.cpu_millis)?,
        disk_bytes: read("disk_bytes", MIB..=16 * MIB * MIB, base.disk_bytes)?,
        io_bytes_per_second: read("io_bytes_per_second", MIB..=MIB * MIB, base.io_bytes_per_second)?,
        output_bytes: read("output_bytes", 64 << 10..=MIB * MIB, base.output_bytes)?,
        call_seconds: read("call_seconds", 1..=ROOM_CALL_SECONDS_MAX, base.call_seconds)?,
    })
}

/// An environment as clients see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Environment {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub name: String,
    pub description: Option<String>,
    #[schema(value_type = Object)]
    pub config: Value,
    #[schema(value_type = Object)]
    pub metadata: Value,
    pub scope: &'static str,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub archived_at: Option<Timestamp>,
}

pub fn write(environment: &Definition) -> Environment {
    Environment {
        id: environment.id.to_string(),
        kind: "environment",
        name: environment.name.clone(),
        description: environment.description.clone(),
        config: write_config(&environment.config),
        metadata: json!(environment.metadata),
        scope: "organization",
        created_at: environment.created_at,
        updated_at: environment.updated_at,
        archived_at: environment.archived_at,
    }
}

pub fn write_config(config: &EnvironmentConfig) -> Value {
    let mut networking = json!(config.networking);
    if config.networking != Networking::None {
        networking["ports"] = json!(config.ports);
    }
    json!({
        "type": "cloud",
        "root": config.root,
        "networking": networking,
        "packages": {
            "type": "packages",
            "apt": config.packages.apt,
            "cargo": config.packages.cargo,
            "gem": config.packages.gem,
            "go": config.packages.go,
            "npm": config.packages.npm,
            "pip": config.packages.pip,
        },
        "isolation": config.isolation,
        "hibernation": config.hibernation,
        "limits": config.limits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_config_is_the_default_room() {
        let new = read_new(json!({"name": "e"})).expect("valid");
        assert_eq!(new.config, EnvironmentConfig::default());
        let wire = write_config(&new.config);
        assert_eq!(wire["networking"], json!({"type": "unrestricted", "ports": [80, 443]}));
        assert_eq!(wire["packages"]["pip"], json!([]));
        // What was echoed can be sent back.
        assert_eq!(read_config("config", wire, EnvironmentConfig::default()).expect("valid"), new.config);
    }

    #[test]
    fn a_root_is_read_as_it_is_written() {
        for root in [
            json!({"type": "host"}),
            json!({"type": "directory", "path": "/srv/roots/debian"}),
            json!({"type": "image", "reference": "debian:12"}),
            json!({"type": "archive", "path": "/srv/roots/app.tar"}),
        ] {
            let config = read_config("config", json!({ "root": root }), EnvironmentConfig::default()).expect("valid");
            assert_eq!(write_config(&config)["root"], root);
            // What a patch does not name stays.
            let patched = read_config("config", json!({"isolation": "namespaces"}), config.clone()).expect("valid");
            assert_eq!(patched.root, config.root);
        }
    }

    #[test]
    fn limited_networking_is_resolved() {
        let config = json!({"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["*.Example.com"]}});
        let config = read_config("config", config, EnvironmentConfig::default()).expect("valid");
        let expected = json!({"type": "limited", "allowed_hosts": ["*.example.com"], "allow_mcp_servers": false, "allow_package_managers": false, "ports": [80, 443]});
        assert_eq!(write_config(&config)["networking"], expected);
    }

    #[test]
    fn a_limit_that_is_not_named_stays() {
        let config = json!({"limits": {"cpu_millis": 500, "call_seconds": 60}});
        let first = read_config("config", config, EnvironmentConfig::default()).expect("valid");
        let expected = RoomLimits { cpu_millis: 500, call_seconds: 60, ..RoomLimits::default() };
        assert_eq!(first.limits, expected);
        let second = read_config("config", json!({"limits": {"pids": 9}}), first).expect("valid");
        assert_eq!(second.limits, RoomLimits { pids: 9, ..expected });
    }

    #[test]
    fn ports_are_a_set_and_go_with_their_networking() {
        let read = |networking: Value| {
            read_config("config", json!({"networking": networking}), EnvironmentConfig::default()).expect("valid")
        };
        let config = read(json!({"type": "unrestricted", "ports": [8443, 22, 8443]}));
        assert_eq!(write_config(&config)["networking"], json!({"type": "unrestricted", "ports": [22, 8443]}));
        // What is replaced is replaced whole.
        let again = read_config("config", json!({"networking": {"type": "unrestricted"}}), config).expect("valid");
        assert_eq!(again, EnvironmentConfig::default());
        assert_eq!(write_config(&read(json!({"type": "none"})))["networking"], json!({"type": "none"}));
    }

    #[test]
    fn packages_come_back_as_they_were_said() {
        let read = |packages: Value| {
            read_config("config", json!({"packages": packages}), EnvironmentConfig::default()).expect("valid")
        };
        let config =
            read(json!({"type": "packages", "pip": ["numpy==2.1"], "npm": ["@a/b@1"], "apt": ["jq"], "go": []}));
        let wire = write_config(&config);
        assert_eq!(wire["packages"]["pip"], json!(["numpy==2.1"]));
        assert_eq!(read(wire["packages"].clone()), config);
        // What is replaced is replaced whole.
        let none = read_config("config", json!({"packages": {}}), config).expect("valid");
        assert!(none.packages.is_empty());
    }

    #[test]
    fn memory_is_kept_of_machines_alone() {
        let machine = json!({"isolation": "microvm", "hibernation": "memory"});
        let config = read_config("config", machine, EnvironmentConfig::default()).expect("valid");
        assert_eq!((config.isolation, config.hibernation), (Isolation::Microvm, Hibernation::Memory));
        let wire = write_config(&config);
        assert_eq!((&wire["isolation"], &wire["hibernation"]), (&json!("microvm"), &json!("memory")));
        assert_eq!(read_config("config", wire, EnvironmentConfig::default()).expect("valid"), config);
        // What a patch does not name stays, and has to fit.
        let patch = |patch| read_config("config", patch, config.clone());
        let fault = patch(json!({"isolation": "namespaces"})).expect_err("refused");
        assert_eq!((fault.field.as_str(), fault.value.as_str()), ("config.hibernation", "memory"));
        assert!(fault.accepted.contains("`workspace`") && fault.accepted.contains("`microvm`"), "{}", fault.accepted);
        assert_eq!(patch(json!({"limits": {"pids": 9}})).expect("valid").hibernation, Hibernation::Memory);
        let plain = patch(json!({"isolation": "namespaces", "hibernation": "workspace"})).expect("valid");
        assert_eq!(plain, EnvironmentConfig::default());
    }

    #[test]
    fn refusals_name_the_place() {
        let cases = [
            (json!({"type": "self_hosted"}), "config.type"),
            (json!({"type": "clowd"}), "config.type"),
            (json!({"packages": {"gem": ["-v"]}}), "config.packages.gem[0]"),
            (json!({"packages": {"pip": "requests"}}), "config.packages.pip"),
            (json!({"packages": {"pip": ["requests", "-r"]}}), "config.packages.pip[1]"),
            (json!({"packages": {"npm": ["https://x.test/y.tgz"]}}), "config.packages.npm[0]"),
            (json!({"packages": {"apt": [""]}}), "config.packages.apt[0]"),
            (json!({"packages": {"apt": vec!["jq"; 257]}}), "config.packages.apt"),
            (json!({"packages": {"brew": []}}), "config.packages.brew"),
            (json!({"networking": {}}), "config.networking.type"),
            (
                json!({"networking": {"type": "limited", "allowed_hosts": ["https://x"]}}),
                "config.networking.allowed_hosts[0]",
            ),
            (json!({"networking": {"type": "limited", "ports": [443, 0]}}), "config.networking.ports[1]"),
            (json!({"networking": {"type": "limited", "ports": [65536]}}), "config.networking.ports[0]"),
            (json!({"networking": {"type": "limited", "ports": ["443"]}}), "config.networking.ports[0]"),
            (json!({"networking": {"type": "limited", "ports": []}}), "config.networking.ports"),
            (json!({"networking": {"type": "limited", "ports": vec![1; 17]}}), "config.networking.ports"),
            (json!({"limits": {"memory_bytes": 1}}), "config.limits.memory_bytes"),
            (json!({"limits": {"cpu_millis": 9}}), "config.limits.cpu_millis"),
            (json!({"limits": {"disk_bytes": "10 GiB"}}), "config.limits.disk_bytes"),
            (json!({"limits": {"io_bytes_per_second": 0}}), "config.limits.io_bytes_per_second"),
            (json!({"limits": {"output_bytes": 1024}}), "config.limits.output_bytes"),
            (json!({"limits": {"call_seconds": 3_601}}), "config.limits.call_seconds"),
            (json!({"limits": {"swap_bytes": 1}}), "config.limits.swap_bytes"),
            (json!({"isolation": "jail"}), "config.isolation"),
            (json!({"isolation": null, "hibernation": "disk"}), "config.hibernation"),
            (json!({"hibernation": "memory"}), "config.hibernation"),
            (json!({"hibernation": "memory", "isolation": "namespaces"}), "config.hibernation"),
            (json!({"root": {}}), "config.root.type"),
            (json!({"root": {"type": "floppy"}}), "config.root.type"),
            (json!({"root": {"type": "image"}}), "config.root.reference"),
            (json!({"root": {"type": "image", "reference": ""}}), "config.root.reference"),
            (json!({"root": {"type": "image", "reference": "a", "path": "/b"}}), "config.root.path"),
            (json!({"root": {"type": "directory", "path": "srv"}}), "config.root.path"),
            (json!({"root": {"type": "host", "path": "/srv"}}), "config.root.path"),
            (json!({"root": {"type": "image", "reference": "a", "digest": "b"}}), "config.root.digest"),
        ];
        for (value, field) in cases {
            let fault = read_config("config", value.clone(), EnvironmentConfig::default()).expect_err("refused");
            assert_eq!(fault.field, field, "{value}");
        }
    }
}
