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
    pub hibernation: Hibernation,
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

/// The kind of walls, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    #[default]
    Namespaces,
    /// A virtual machine with a kernel of its own.
    Microvm,
}

impl Isolation {
    pub const ALL: [Isolation; 2] = [Isolation::Namespaces, Isolation::Microvm];

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::Namespaces => "namespaces",
            Isolation::Microvm => "microvm",
        }
    }
}

/// How the processor of a virtual machine is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// The machine's own, by the kernel's KVM.
    Kvm,
    /// In software: slow.
    Emulation,
}

impl Accelerator {
    pub fn as_str(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Emulation => "emulation",
        }
    }
}

/// What an idle session keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hibernation {
    /// Its files. Processes end, and the model is told.
    #[default]
    Workspace,
    /// The whole machine, with its processes. Only a `microvm` can.
    Memory,
}

impl Hibernation {
    pub const ALL: [Hibernation; 2] = [Hibernation::Workspace, Hibernation::Memory];

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Hibernation::Workspace => "workspace",
            Hibernation::Memory => "memory",
        }
    }
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
    /// Thousandths of a processor: 1,000 is one core.
    pub cpu_millis: u64,
    /// What the session may keep on disk, over all its directories.
    pub disk_bytes: u64,
    /// From and to the disk that sessions lie on, each way.
    pub io_bytes_per_second: u64,
    /// What one tool call may print before it is stopped.
    pub output_bytes: u64,
    /// How long one tool call may run, whatever it asks for.
    pub call_seconds: u64,
}

impl Default for RoomLimits {
    fn default() -> Self {
        RoomLimits {
            memory_bytes: limits::ROOM_MEMORY_BYTES_DEFAULT,
            pids: limits::ROOM_PIDS_DEFAULT,
            open_files: limits::ROOM_OPEN_FILES_DEFAULT,
            file_bytes: limits::ROOM_FILE_BYTES_DEFAULT,
            cpu_millis: limits::ROOM_CPU_MILLIS_DEFAULT,
            disk_bytes: limits::ROOM_DISK_BYTES_DEFAULT,
            io_bytes_per_second: limits::ROOM_IO_BYTES_PER_SECOND_DEFAULT,
            output_bytes: limits::ROOM_OUTPUT_BYTES_DEFAULT,
            call_seconds: limits::ROOM_CALL_SECONDS_DEFAULT,
        }
    }
}

/// Bytes as a person says them: `2 GiB`, `1.5 MiB`. For what the model and clients read about limits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut unit, mut tenths) = (0, u128::from(bytes) * 10);
    while tenths >= 10 << 10 && unit + 1 < UNITS.len() {
        unit += 1;
        tenths = (tenths + (1 << 9)) >> 10;
    }
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, UNITS[unit]),
        tenth => format!("{}.{tenth} {}", tenths / 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        let said = [0, 1_023, 1 << 10, 3 << 19, 2 << 30, 1 << 40, u64::MAX].map(size);
        let expected = ["0 bytes", "1023 bytes", "1 KiB", "1.5 MiB", "2 GiB", "1 TiB", "16384 PiB"];
        assert_eq!(said, expected);
    }

    #[test]
    fn limits_written_before_there_were_more_are_read() {
        let old = r#"{"memory_bytes":1,"pids":2,"open_files":3,"file_bytes":4}"#;
        let read: RoomLimits = serde_json::from_str(old).expect("an old row");
        assert_eq!(
            read,
            RoomLimits { memory_bytes: 1, pids: 2, open_files: 3, file_bytes: 4, ..RoomLimits::default() }
        );
        assert_eq!(read.call_seconds, limits::ROOM_CALL_SECONDS_DEFAULT);
    }
}
