//! The executable under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `LOOPD_BIN`, or the one beside this test program, brought up to date first.
pub fn loopd() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os("LOOPD_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test program knows its path");
    let directory = test.parent().and_then(Path::parent).expect("test programs lie in target/<profile>/deps");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--quiet", "--package", "loopd", "--profile", profile]).status();
    assert!(built.expect("cargo starts").success(), "loopd does not build");
    directory.join("loopd")
}
