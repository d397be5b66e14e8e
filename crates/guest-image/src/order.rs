//! What an image is to be made of.

use std::path::PathBuf;

/// Packages of the host whose files the base disk has when nobody says otherwise, with all that they depend on: what agents' tools
/// lean on, in seconds and without a network.
pub const PACKAGES_DEFAULT: [&str; 33] = [
    "apt",
    "bash",
    "bzip2",
    "ca-certificates",
    "coreutils",
    "curl",
    "diffutils",
    "dpkg",
    "file",
    "findutils",
    "gawk",
    "git",
    "grep",
    "gzip",
    "jq",
    "less",
    "make",
    "nodejs",
    "npm",
    "openssl",
    "patch",
    "procps",
    "python3",
    "python3-pip",
    "python3-venv",
    "ripgrep",
    "sed",
    "tar",
    "unzip",
    "util-linux",
    "wget",
    "xz-utils",
    "zip",
];

/// What tests' rooms need, and no more.
pub const PACKAGES_SMALL: [&str; 8] =
    ["bash", "coreutils", "findutils", "grep", "procps", "python3-minimal", "sed", "util-linux"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub kernel: KernelSource,
    pub base: BaseSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSource {
    /// A Debian package, fetched by `apt-get download`: a kernel, or one that depends on the newest.
    Package(String),
    /// A Debian package's file, or a `vmlinuz` or `vmlinux` with the directory that has its modules (`None`: `/lib/modules/<release>`
    /// of a file that is named after its release).
    File { kernel: PathBuf, modules: Option<PathBuf> },
}

impl KernelSource {
    /// Debian's kernel for virtual machines.
    pub fn usual() -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        KernelSource::Package(format!("linux-image-cloud-{architecture}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseSource {
    /// Files of packages that are installed on this host, and of those that they depend on. One that is not installed is left out if
    /// `is_usual`, and an error otherwise.
    Packages { names: Vec<String>, is_usual: bool },
    /// A root file system.
    Directory(PathBuf),
    /// Layers of one, the uppermost first, with whiteouts as overlayfs has them (ADR 7).
    Layers(Vec<PathBuf>),
}

impl BaseSource {
    pub fn usual() -> Self {
        Self::packages(&PACKAGES_DEFAULT, true)
    }

    pub fn packages(names: &[&str], is_usual: bool) -> Self {
        BaseSource::Packages { names: names.iter().map(|name| (*name).to_owned()).collect(), is_usual }
    }
}

/// The static programs of a guest.
#[derive(Debug, Clone, Copy)]
pub struct Programs<'a> {
    /// Its first process.
    pub guest: &'a [u8],
    pub jail: &'a [u8],
    pub cell: &'a [u8],
}

impl<'a> Programs<'a> {
    pub(crate) fn all(&self) -> [&'a [u8]; 3] {
        [self.guest, self.jail, self.cell]
    }
}

/// What is being done, for who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step begins: `fetching linux-image-…`.
    Step(String),
    /// A step has ended, with so many bytes as its result.
    Done { bytes: u64 },
    /// It was done before.
    Cached,
}
