//! An environment: the definition of the room that a session gets. Not versioned; a change affects new rooms only.

use crate::agent::Metadata;
use crate::{EnvironmentId, Timestamp, WorkspaceId, limits};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    pub id: EnvironmentId,
    pub workspace: WorkspaceId,
    pub name: String,
    pub description: Option<String>,
    pub config: EnvironmentConfig,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EnvironmentConfig {
    #[serde(default)]
    pub networking: Networking,
    /// Part of `networking` on the wire.
    #[serde(default)]
    pub ports: Ports,
    #[serde(default)]
    pub isolation: Isolation,
    #[serde(default)]
    pub limits: RoomLimits,
    #[serde(default)]
    pub root: RootSource,
    #[serde(default, skip_serializing_if = "Packages::is_empty")]
    pub packages: Packages,
}

/// Where the room's root file system comes from. A session sees it read-only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RootSource {
    /// The host's `/usr`.
    #[default]
    Host,
    /// A directory of the host, absolute, below one that the operator allows.
    Directory { path: String },
    /// An OCI image in a registry: `debian:12`, `ghcr.io/org/name@sha256:…`.
    Image { reference: String },
    /// An OCI archive on the host, as `docker save` or `skopeo copy … oci-archive:` writes it.
    Archive { path: String },
}

/// What is installed into the room's root before a session sees it. Each as its package manager takes it: `numpy==2.1`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Packages {
    pub apt: Vec<String>,
    pub cargo: Vec<String>,
    pub gem: Vec<String>,
    pub go: Vec<String>,
    pub npm: Vec<String>,
    pub pip: Vec<String>,
}

impl Packages {
    pub fn is_empty(&self) -> bool {
        [&self.apt, &self.cargo, &self.gem, &self.go, &self.npm, &self.pip].into_iter().all(Vec::is_empty)
    }
}

/// Where programs of the room may connect to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Networking {
    /// The public internet.
    #[default]
    Unrestricted,
    /// Nowhere.
    None,
    Limited {
        #[serde(default)]
        allowed_hosts: Vec<String>,
        #[serde(default)]
        allow_mcp_servers: bool,
        #[serde(default)]
        allow_package_managers: bool,
    },
}

/// Ports that programs of the room may connect to, wherever `networking` lets them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ports(pub Vec<u16>);

impl Default for Ports {
    fn default() -> Self {
        Ports(vec![80, 443])
    }
}

/// The kind of walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    #[default]
    Namespaces,
}

/// What one room may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomLimits {
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Largest file that a process may write.
    pub file_bytes: u64,
}

impl Default for RoomLimits {
    fn default() -> Self {
        RoomLimits {
            memory_bytes: limits::ROOM_MEMORY_BYTES_DEFAULT,
            pids: limits::ROOM_PIDS_DEFAULT,
            open_files: limits::ROOM_OPEN_FILES_DEFAULT,
            file_bytes: limits::ROOM_FILE_BYTES_DEFAULT,
        }
    }
}
