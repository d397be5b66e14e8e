//! Builds the programs that rooms need, cell, launcher and the first process of a virtual machine, as static programs that run in
//! any root file system, for `programs.rs` to carry inside this crate.
//!
//! They are built by a cargo of their own, in a directory of their own: static linking is asked for with flags that must not
//! reach the server, and a target named explicitly keeps those flags away from build scripts and macros.

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 3] = ["loopd-cell", "loopd-jail", "loopd-guest"];
/// Rooms whose sources end up in the programs.
const SOURCES: [&str; 7] = ["cell", "jail", "guest", "files", "domain", "agent-loop", "protocol"];

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    for room in SOURCES {
        watch(&root.join("crates").join(room).join("src"));
        watch(&root.join("crates").join(room).join("Cargo.toml"));
    }
    watch(&root.join("Cargo.toml"));
    watch(&root.join("Cargo.lock"));
    watch(Path::new("build.rs"));
    let built = build(&root);
    for name in PROGRAMS {
        let key = name.to_uppercase().replace('-', "_");
        println!("cargo::rustc-env={key}={}", built.join(name).display());
    }
}

/// Answers the directory in which the programs lie.
fn build(root: &Path) -> PathBuf {
    let target = variable("TARGET");
    let directory = PathBuf::from(variable("OUT_DIR")).join("small");
    let mut cargo = Command::new(variable("CARGO"));
    // What the outer cargo was told (flags, wrappers such as clippy's, another target directory) is not meant for this one.
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC",
    ] {
        cargo.env_remove(name);
    }
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").current_dir(root);
    cargo.args(["build", "--quiet", "--locked", "--profile", "small", "--target", &target, "--target-dir"]);
    cargo.arg(&directory);
    for name in PROGRAMS {
        cargo.args(["--package", name, "--bin", name]);
    }
    if variable("PROFILE") == "debug" {
        // A developer waits for this at each edit of the cell: less optimised, still small and static.
        cargo.env("CARGO_PROFILE_SMALL_LTO", "off").env("CARGO_PROFILE_SMALL_CODEGEN_UNITS", "16");
        cargo.env("CARGO_PROFILE_SMALL_OPT_LEVEL", "1").env("CARGO_PROFILE_SMALL_INCREMENTAL", "true");
    }
    let status = cargo.status().expect("cargo, which runs this script, can be started again");
    assert!(
        status.success(),
        "building {PROGRAMS:?} as static programs failed ({status}); on Debian, libc6-dev is needed"
    );
    directory.join(target).join("small")
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
