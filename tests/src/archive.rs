//! Archives of images, as `docker save` writes them.

use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One with one layer, which has all that is in `tree`.
pub fn of_tree(tree: &Path, to: &Path) {
    let work = tempfile::tempdir().expect("a directory");
    let tar = |directory: &Path, file: &Path, names: &[&str]| {
        let done = Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(file).args(names).status();
        assert!(done.expect("tar is there").success());
    };
    tar(tree, &work.path().join("layer.tar"), &["."]);
    let digest = Command::new("sha256sum").arg(work.path().join("layer.tar")).output().expect("sha256sum is there");
    let digest = String::from_utf8_lossy(&digest.stdout).split(' ').next().unwrap_or_default().to_owned();
    let config = json!({"os": "linux", "config": {"Env": ["APP=image"]}, "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]);
    fs::write(work.path().join("config.json"), config.to_string()).expect("written");
    fs::write(work.path().join("manifest.json"), manifest.to_string()).expect("written");
    tar(work.path(), to, &["manifest.json", "config.json", "layer.tar"]);
}
