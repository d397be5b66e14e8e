//! What tests need beside Rust: Debian packages where they are missing, and the official SDKs under `target/tools`.
//!
//! Versions are pinned by the lock files in `tests/sdk/`. An installation is kept until its lock file changes.

use crate::place;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// A program that tests start, how to see that it is there, and the Debian package that brings it.
const PROGRAMS: [(&str, &str, &str); 18] = [
    ("python3", "--version", "python3"),
    ("node", "--version", "nodejs"),
    ("npm", "--version", "npm"),
    ("curl", "--version", "curl"),
    ("git", "--version", "git"),
    ("openssl", "version", "openssl"),
    // A repository of a test's own is signed; who makes a key needs the agent as well.
    ("gpg", "--version", "gpg"),
    ("gpg-agent", "--version", "gpg-agent"),
    // What rooms compile with; Rust itself is content with any `cc`.
    ("/usr/bin/gcc", "--version", "gcc"),
    ("ip", "-V", "iproute2"),
    ("javac", "--version", "default-jdk-headless"),
    ("gem", "--version", "ruby"),
    ("go", "version", "golang-go"),
    // Rooms see no toolchain of ours; Debian 12's own cargo is too old for them.
    ("/usr/bin/cargo", "--version", "cargo-web"),
    // Rooms with a kernel of their own: the monitor, their disks, and a second reader of what their kernel starts with.
    ("qemu-system-x86_64", "--version", "qemu-system-x86"),
    ("mke2fs", "-V", "e2fsprogs"),
    ("cpio", "--version", "cpio"),
    // The first program of a machine that is a plain host.
    ("busybox", "--help", "busybox-static"),
];

/// What rooms on the host's root have.
const ROOMS_PYTHON: &str = "/usr/bin/python3";

/// The kernel that rooms with one of their own have in tests: a package that depends on the newest.
const GUEST_KERNEL: &str =
    if cfg!(target_arch = "aarch64") { "linux-image-cloud-arm64" } else { "linux-image-cloud-amd64" };

pub struct Python {
    pub program: PathBuf,
}

pub struct Node {
    /// Where `require` finds the SDKs.
    pub modules: PathBuf,
}

/// Debian packages, if something is missing and we may install it.
pub fn packages() -> Result<()> {
    let mut missing = absent(&PROGRAMS);
    // Debian ships Python without the part that makes environments.
    if missing.contains(&"python3") || !has_venv() {
        missing.push("python3-venv");
    }
    // Rooms see the distribution's, whichever comes first in the path.
    if !place::command(ROOMS_PYTHON).args(["-m", "pip", "--version"]).output().is_ok_and(|done| done.status.success()) {
        missing.push("python3-pip");
    }
    install_packages(&missing)
}

/// The Debian packages of programs that are not there.
pub fn install_debian(programs: &[(&'static str, &str, &'static str)]) -> Result<()> {
    install_packages(&absent(programs))
}

fn absent(programs: &[(&'static str, &str, &'static str)]) -> Vec<&'static str> {
    programs.iter().filter(|(program, flag, _)| !place::starts(program, flag)).map(|(_, _, package)| *package).collect()
}

fn install_packages(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    apt(&["update", "-qq"]).with_context(|| format!("missing: {}", missing.join(", ")))?;
    apt(&[["install", "-y", "-qq", "--no-install-recommends"].as_slice(), missing].concat())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let Some(prefix) = privilege() else {
        bail!(
            "`apt-get {}` needs root; run it, or run this as root or with sudo that asks for no password",
            arguments.join(" ")
        );
    };
    let words: Vec<&str> = prefix.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]).collect();
    place::run(place::command(words[0]).args(&words[1..]).args(arguments))
}

fn has_venv() -> bool {
    let probe = place::command("python3").args(["-c", "import venv, ensurepip"]).output();
    probe.is_ok_and(|done| done.status.success())
}

/// How to become root: not at all, by sudo, or there is no way.
fn privilege() -> Option<&'static [&'static str]> {
    let id = place::output(place::command("id").arg("-u")).ok()?;
    match id.trim() {
        "0" => Some(&[]),
        _ if place::starts("sudo", "-n") || sudo_is_silent() => Some(&["sudo", "-n"]),
        _ => None,
    }
}

fn sudo_is_silent() -> bool {
    place::command("sudo").args(["-n", "true"]).output().is_ok_and(|done| done.status.success())
}

/// The package of a kernel, fetched to `target/tools/guest-kernel` once. Nothing is installed.
pub fn guest_kernel() -> Result<PathBuf> {
    let home = place::tools().join("guest-kernel");
    fs::create_dir_all(&home).with_context(|| format!("`{}`", home.display()))?;
    if let Some(package) = package_in(&home)? {
        return Ok(package);
    }
    let depends = || {
        let mut show = place::command("apt-cache");
        let about = place::output(show.args(["show", "--no-all-versions", GUEST_KERNEL]))?;
        anyhow::Ok(about.lines().find_map(|line| line.strip_prefix("Depends:")).unwrap_or_default().to_owned())
    };
    // A container's image has no lists of packages.
    let depends = depends().or_else(|_| apt(&["update", "-qq"]).and_then(|()| depends()))?;
    let mut names = depends.split([',', ' ', '(']).filter(|word| word.starts_with("linux-image-"));
    let name = names.next().with_context(|| format!("`{GUEST_KERNEL}` depends on no kernel: `{depends}`"))?;
    // As root it would fetch as a user who may not write there. What is cut off has another name until it is whole.
    let mut download = place::command("apt-get");
    place::run(download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", name]).current_dir(&home))?;
    package_in(&home)?.with_context(|| format!("`apt-get download {name}` left no package in `{}`", home.display()))
}

fn package_in(home: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(home).with_context(|| format!("`{}`", home.display()))?;
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    Ok(paths?.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "deb")))
}

pub fn python() -> Result<Python> {
    let home = place::tools().join("python");
    let program = home.join("bin/python");
    install(&home, &sdk_file("python/requirements.txt"), || {
        place::run(place::command("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
        let mut pip = place::command(&program);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]);
        place::run(pip.arg(sdk_file("python/requirements.txt")))
    })?;
    Ok(Python { program })
}

/// Wheels that rooms of tests install, in a directory: for their Python, which compiled ones are made for.
pub fn wheels() -> Result<PathBuf> {
    let home = place::tools().join("wheels");
    let list = sdk_file("python/wheels.txt");
    install(&home, &list, || {
        let mut pip = place::command(ROOMS_PYTHON);
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
        ]);
        place::run(pip.arg("--dest").arg(&home).arg("-r").arg(&list))
    })?;
    Ok(home)
}

pub fn node() -> Result<Node> {
    Ok(Node { modules: node_modules("node", &sdk_file("node"))? })
}

/// The Node modules of what attacks are tried under beside loopd.
pub fn attack_peers() -> Result<PathBuf> {
    node_modules("attack-peers", &place::root().join("tests/attacks/peers"))
}

/// Installs what a lock file names, below `target/tools/<name>`.
fn node_modules(name: &str, from: &Path) -> Result<PathBuf> {
    let home = place::tools().join(name);
    install(&home, &from.join("package-lock.json"), || {
        for file in ["package.json", "package-lock.json"] {
            let from = from.join(file);
            fs::copy(&from, home.join(file)).with_context(|| format!("`{}`", from.display()))?;
        }
        let mut npm = place::command("npm");
        npm.args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&home);
        place::run(&mut npm)
    })?;
    Ok(home.join("node_modules"))
}

fn sdk_file(name: &str) -> PathBuf {
    place::root().join("tests/sdk").join(name)
}

/// Runs `work` unless it was done for this very lock file before.
fn install(home: &Path, lock: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = home.join("installed");
    let wanted = fs::read(lock).with_context(|| format!("`{}`", lock.display()))?;
    if fs::read(&stamp).is_ok_and(|done| done == wanted) {
        return Ok(());
    }
    fs::create_dir_all(home).with_context(|| format!("`{}`", home.display()))?;
    work()?;
    fs::write(&stamp, wanted).with_context(|| format!("`{}`", stamp.display()))
}
