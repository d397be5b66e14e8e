//! Roots of rooms, put together of this machine's programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs and the libraries that they are linked with. `/bin` and `/lib` lead into `/usr`, as on this machine.
pub fn lay(root: &Path, programs: &[&str]) {
    for program in programs.iter().map(Path::new) {
        put(root, program);
        libraries(program).iter().for_each(|library| put(root, library));
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("linked");
    }
    fs::create_dir(root.join("etc")).expect("made");
}

/// One file of this machine, where it is here.
pub fn put(root: &Path, from: &Path) {
    let to = root.join("usr").join(from.strip_prefix("/usr").or(from.strip_prefix("/")).expect("absolute"));
    fs::create_dir_all(to.parent().expect("below the root")).expect("made");
    fs::copy(from, to).expect("copied");
}

/// None, if it is a script.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let linked = Command::new("ldd").arg(program).output().expect("ldd is there");
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    linked.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
