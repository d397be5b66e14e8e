//! What the operator allows.

use crate::ImageError;
use loopd_domain::packages::Manager;
use std::io;
use std::path::{Component, Path, PathBuf};
use url::Url;

/// Registries that are asked unless the operator names others.
pub const REGISTRIES_DEFAULT: [&str; 7] =
    ["docker.io", "ghcr.io", "quay.io", "gcr.io", "mcr.microsoft.com", "public.ecr.aws", "registry.gitlab.com"];

#[derive(Debug, Clone)]
pub struct Settings {
    /// Directories of the host below which roots and archives may lie. Absolute, without symbolic links.
    pub directories: Vec<PathBuf>,
    /// Registries that may be asked, as `host` or `host:port`. A request of this host leads there, so callers do not choose it.
    pub registries: Vec<String>,
    /// Of those, the ones that speak HTTP without TLS.
    pub plain_registries: Vec<String>,
    /// The operator's docker configuration, for credentials.
    pub docker_config: Option<PathBuf>,
    pub mirrors: Mirrors,
}

/// Where packages come from instead of the public registries.
#[derive(Debug, Clone, Default)]
pub struct Mirrors {
    pub apt: Option<Mirror>,
    pub npm: Option<Mirror>,
    pub pip: Option<Mirror>,
    /// A sparse index.
    pub cargo: Option<Mirror>,
    pub gem: Option<Mirror>,
    /// A module proxy. The checksum database is not asked about what comes from it.
    pub go: Option<Mirror>,
}

impl Mirrors {
    pub(crate) fn of(&self, manager: Manager) -> Option<&Mirror> {
        match manager {
            Manager::Apt => self.apt.as_ref(),
            Manager::Npm => self.npm.as_ref(),
            Manager::Pip => self.pip.as_ref(),
            Manager::Cargo => self.cargo.as_ref(),
            Manager::Gem => self.gem.as_ref(),
            Manager::Go => self.go.as_ref(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub(crate) url: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Without TLS.
    pub(crate) is_plain: bool,
}

impl Mirror {
    /// `None`: it is no address of a mirror. Rooms see it, so it holds no secret.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_plain = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return None,
        };
        let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let (host, port) = (url.host_str()?.to_owned(), url.port_or_known_default()?);
        is_bare.then(|| Mirror { url: url.as_str().trim_end_matches('/').to_owned(), host, port, is_plain })
    }
}

impl Default for Settings {
    fn default() -> Self {
        let registries = REGISTRIES_DEFAULT.map(str::to_owned).to_vec();
        Settings {
            directories: Vec::new(),
            registries,
            plain_registries: Vec::new(),
            docker_config: None,
            mirrors: Mirrors::default(),
        }
    }
}

impl Settings {
    /// A room must never be made of what other sessions wrote.
    pub(crate) fn keep_apart(&self, data: &Path) -> Result<(), ImageError> {
        let data = std::fs::canonicalize(data).map_err(|fault| ImageError::disk(data, fault))?;
        match self.directories.iter().find(|allowed| data.starts_with(allowed) || allowed.starts_with(&data)) {
            None => Ok(()),
            Some(allowed) => Err(ImageError::refused(format!(
                "`{}` in `[images] allow_directories` and the data directory `{}` hold one another; accepted: directories apart from it",
                allowed.display(),
                data.display()
            ))),
        }
    }

    /// Where a path of an environment really is, if that lies where the operator allows it.
    pub(crate) fn locate(&self, path: &str) -> Result<PathBuf, ImageError> {
        let asked = Path::new(path);
        if !asked.is_absolute() || asked.components().any(|part| part == Component::ParentDir) {
            return Err(ImageError::refused("the path is not absolute, or has `..` in it"));
        }
        let outside = || {
            let allowed: Vec<String> = self.directories.iter().map(|d| format!("`{}`", d.display())).collect();
            ImageError::refused(match allowed.is_empty() {
                true => "this host allows no directories; its operator names them in `[images] allow_directories`"
                    .to_owned(),
                false => format!("it is not below a directory that this host allows: {}", allowed.join(", ")),
            })
        };
        // Before anything is looked up: whether a path exists elsewhere is nobody's business.
        if !self.directories.iter().any(|allowed| asked.starts_with(allowed)) {
            return Err(outside());
        }
        let real = std::fs::canonicalize(asked).map_err(|fault| match fault.kind() {
            io::ErrorKind::NotFound => ImageError::refused("it does not exist"),
            _ => ImageError::unavailable(fault.to_string()),
        })?;
        match self.directories.iter().any(|allowed| real.starts_with(allowed)) {
            true => Ok(real),
            false => Err(outside()),
        }
    }
}
