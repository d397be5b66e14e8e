//! `loopd image build`, as an operator runs it.

use loopd_tests::cli::run;
use loopd_tests::{Server, archive, skip};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// What an image is made of here: a kernel that only says where it begins, and a root with a shell that is none.
fn parts() -> TempDir {
    let parts = TempDir::with_prefix("loopd-image-").expect("a directory");
    let write = |name: &str, content: &[u8]| {
        let path = parts.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(path, content).expect("a file");
    };
    write("vmlinux", &kernel());
    let built_in = ["virtio_mmio", "virtio_blk", "virtio_console", "ext4", "overlay"];
    write("modules/modules.builtin", built_in.map(|name| format!("kernel/{name}.ko\n")).concat().as_bytes());
    write("root/bin/sh", b"#!");
    parts
}

/// An ELF file with nothing but a note of its PVH entry.
fn kernel() -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[32] = 64; // where the table of programs is
    bytes[54] = 56; // bytes of each
    bytes[56] = 1; // how many
    bytes[64] = 4; // a note
    bytes[64 + 8] = 120; // where it is
    bytes[64 + 32] = 24; // its bytes
    for number in [4_u32, 8, 18] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"Xen\0\0\0\x10\0\0\0\0\0");
    bytes
}

fn build<'a>(parts: &'a str, data: &'a str) -> Vec<String> {
    let words = ["image", "build", "--json", "--data", data, "--kernel"].map(str::to_owned);
    let paths = [format!("{parts}/vmlinux"), "--modules".into(), format!("{parts}/modules"), "--directory".into()];
    words.into_iter().chain(paths).chain([format!("{parts}/root")]).collect()
}

fn built(at: &Path, arguments: &[String]) -> Value {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let lines = run(at, &words).lines();
    lines.last().expect("a line").clone()
}

fn has_e2fsprogs() -> bool {
    let is_there = ["/sbin/mke2fs", "/usr/sbin/mke2fs", "/usr/bin/mke2fs"].iter().any(|path| Path::new(path).exists());
    if !is_there {
        skip("`mke2fs` is not here: install the package `e2fsprogs`");
    }
    is_there
}

#[test]
fn an_image_is_built_with_a_server_and_without_one() {
    if !has_e2fsprogs() {
        return;
    }
    let parts = parts();
    let at = parts.path();
    let path = at.to_str().expect("text");
    let alone = at.join("data");
    let image = built(at, &build(path, alone.to_str().expect("text")));
    for part in ["kernel", "initramfs", "base"] {
        let file = image[part]["path"].as_str().expect("a path");
        assert!(Path::new(file).starts_with(alone.join("guest")), "{image}");
        assert!(image[part]["bytes"].as_u64().expect("bytes") > 0, "{image}");
    }
    let again = built(at, &build(path, alone.to_str().expect("text")));
    assert_eq!(again["fingerprint"], image["fingerprint"]);

    let server = Server::start();
    let beside = built(at, &build(path, server.data().to_str().expect("text")));
    assert_eq!(beside["kernel"]["bytes"], image["kernel"]["bytes"]);
    assert!(server.data().join("guest/current.json").is_file());
}

/// The base disk is what the archive's layers come to.
#[test]
fn an_image_is_built_of_an_archive() {
    if !has_e2fsprogs() {
        return;
    }
    let parts = parts();
    let (at, file) = (parts.path(), parts.path().join("app.tar"));
    fs::create_dir_all(at.join("root/opt/app")).expect("a directory");
    fs::write(at.join("root/opt/app/marker"), "of the archive\n").expect("a file");
    archive::of_tree(&at.join("root"), &file);
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let words =
        ["image", "build", "--json", "--data", "data", "--kernel", "vmlinux", "--modules", "modules", "--image"];
    let arguments: Vec<String> = words.into_iter().map(str::to_owned).chain([text(&file)]).collect();
    let image = built(at, &arguments);
    let base = image["base"]["path"].as_str().expect("a path");
    let seen =
        Command::new("debugfs").args(["-R", "cat /opt/app/marker"]).arg(at.join(base)).output().expect("debugfs");
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "of the archive\n");
    let mut wrong = arguments;
    wrong.pop();
    wrong.push(text(&at.join("vmlinux")));
    let words: Vec<&str> = wrong.iter().map(String::as_str).collect();
    let done = run(at, &words);
    assert!(done.code == Some(1) && done.err.contains("archive"), "{}", done.err);
}

#[test]
fn what_cannot_be_built_says_what_would_help() {
    let parts = parts();
    let told = |arguments: &[&str]| {
        let done = run(parts.path(), &[&["image", "build"], arguments].concat());
        assert_eq!(done.code, Some(1), "{}", done.err);
        done.err
    };
    if !has_e2fsprogs() {
        return;
    }
    assert!(told(&["--kernel", "none", "--directory", "root"]).contains("`none`: No such file"));
    assert!(told(&["--kernel", "root/bin/sh", "--directory", "root"]).contains("neither a `vmlinux`"));
    let kernel = ["--kernel", "vmlinux", "--modules", "modules"];
    assert!(told(&[&kernel[..], &["--directory", "modules"]].concat()).contains("no `/bin/sh`"));
    if Path::new("/var/lib/dpkg/status").exists() {
        let told = told(&[&kernel[..], &["--packages", "no-such-package"]].concat());
        assert!(told.contains("`apt-get install no-such-package`"), "{told}");
    }
}
