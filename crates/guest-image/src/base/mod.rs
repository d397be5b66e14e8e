//! Base disks: what a guest has in the place of the host's `/usr` and of the files in `/etc` that programs lean on.
//!
//! A tree is thought out first, which tells whether the disk was made before; only then are files copied and a disk made of them.

mod alternatives;
mod dpkg;
mod packages;

use crate::cache::{Cache, Shelf, nonce};
use crate::digest::Key;
use crate::program::{command, run};
use crate::tree::{Entry, Tree};
use crate::{BaseSource, GuestImageError, Progress, ext4};
use std::fs;
use std::path::{Path, PathBuf};

/// Raised when the same source becomes something else.
const FORMAT: &[u8] = b"base 1";
/// Mount points, and the plainest of what programs expect.
const DIRECTORIES: [&str; 13] =
    ["dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var"];

pub(crate) fn obtain(
    cache: &Cache,
    source: &BaseSource,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, GuestImageError> {
    progress(Progress::Step(match source {
        BaseSource::Packages { .. } => "collecting files of packages".to_owned(),
        BaseSource::Directory(directory) => format!("looking through {}", directory.display()),
        BaseSource::Layers(layers) => format!("putting {} layers together", layers.len()),
    }));
    let mut tree = match source {
        BaseSource::Packages { names, is_usual } => packages::tree(Path::new("/"), names, *is_usual)?,
        BaseSource::Directory(directory) => of_directory(directory)?,
        BaseSource::Layers(layers) => of_layers(layers)?,
    };
    for name in DIRECTORIES.map(PathBuf::from) {
        if !tree.contains(&name) {
            let mode = if name == Path::new("tmp") { 0o1777 } else { 0o755 };
            tree.put(name, Entry::Directory { mode })?;
        }
    }
    let has_host_libraries = matches!(source, BaseSource::Packages { .. });
    progress(Progress::Done { bytes: tree.bytes() });
    progress(Progress::Step("making the base disk".to_owned()));
    let made_of = match source {
        BaseSource::Packages { .. } | BaseSource::Directory(_) => tree.key(),
        BaseSource::Layers(_) => tree.key_of_content()?,
    };
    let key = Key::default().part(FORMAT).part(made_of.as_bytes()).hex();
    if let Some(found) = cache.find(Shelf::Bases, &key)? {
        progress(Progress::Cached);
        return Ok(found);
    }
    let work = cache.work()?;
    let (stage, disk) = (work.path().join("tree"), work.path().join("base.ext4"));
    fs::create_dir(&stage).map_err(GuestImageError::disk(&stage))?;
    tree.make(&stage)?;
    let mut extent = tree.extent();
    if has_host_libraries {
        // The host's own names libraries that are not here.
        run(command("ldconfig").args(["-X", "-r"]).arg(&stage), "install the package `libc-bin`")?;
        let libraries = stage.join("etc/ld.so.cache");
        extent.add(fs::metadata(&libraries).map_err(GuestImageError::disk(libraries))?.len());
    }
    ext4::of_tree(&stage, extent, &key, &disk)?;
    let base = cache.settle(&disk, Shelf::Bases, &format!("{key}.{}.ext4", nonce()?))?;
    progress(Progress::Done { bytes: crate::disk_bytes(&base)? });
    Ok(base)
}

fn of_directory(directory: &Path) -> Result<Tree, GuestImageError> {
    let real = fs::canonicalize(directory).map_err(GuestImageError::disk(directory))?;
    if real == Path::new("/") {
        return Err(GuestImageError::broken(
            "`/` is this host itself, with all that is in it; give a directory with another root file system, or names of packages",
        ));
    }
    shelled(Tree::of_directory(&real)?, &format!("`{}`", directory.display()))
}

fn of_layers(layers: &[PathBuf]) -> Result<Tree, GuestImageError> {
    shelled(Tree::of_layers(layers)?, "the image")
}

/// What is no root file system is noticed here and not in a machine that does not come up.
fn shelled(tree: Tree, what: &str) -> Result<Tree, GuestImageError> {
    match ["bin/sh", "usr/bin/sh"].iter().any(|shell| tree.contains(Path::new(shell))) {
        true => Ok(tree),
        false => Err(GuestImageError::broken(format!("{what} has no `/bin/sh`: it is no root file system for a room"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn layer(files: &[&str]) -> tempfile::TempDir {
        let layer = tempfile::tempdir().unwrap();
        for file in files {
            let path = layer.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match file.rsplit('/').next().unwrap().starts_with("wh-") {
                true => {
                    let path = path.with_file_name(&path.file_name().unwrap().to_str().unwrap()[3..]);
                    let kind = rustix::fs::FileType::CharacterDevice;
                    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::empty(), 0).unwrap();
                }
                false => fs::write(path, "x").unwrap(),
            }
        }
        layer
    }

    #[test]
    fn an_image_is_known_by_what_is_in_it_wherever_it_was_unpacked() {
        let (once, again) = (layer(&["bin/sh", "etc/name"]), layer(&["bin/sh", "etc/name"]));
        let key = |layer: &tempfile::TempDir| of_layers(&[layer.path().to_owned()]).unwrap().key_of_content().unwrap();
        assert_eq!(key(&once), key(&again));
        fs::write(again.path().join("etc/name"), "y").unwrap();
        assert_ne!(key(&once), key(&again));
    }

    #[test]
    fn upper_layers_hide_what_they_replace() {
        let below = layer(&["bin/sh", "etc/gone", "etc/kept", "opt/tree/deep/file", "opt/tree2", "srv/file"]);
        let above = layer(&["etc/wh-gone", "opt/wh-tree", "etc/new", "srv/file/now-a-directory"]);
        let layers = [above.path().to_owned(), below.path().to_owned()];
        let tree = of_layers(&layers).unwrap();
        let paths: Vec<&str> = tree.paths().map(|path| path.to_str().unwrap()).collect();
        let expected = [
            "bin",
            "bin/sh",
            "etc",
            "etc/kept",
            "etc/new",
            "opt",
            "opt/tree2",
            "srv",
            "srv/file",
            "srv/file/now-a-directory",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn an_opaque_directory_shows_nothing_below() {
        let below = layer(&["bin/sh", "etc/old/file"]);
        let above = layer(&["etc/old/new"]);
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(errno) = rustix::fs::setxattr(above.path().join("etc/old"), "user.overlay.opaque", b"y", flags) {
            return crate::tests::skip(&format!(
                "the file system of temporary files has no extended attributes: {errno}"
            ));
        }
        let tree = of_layers(&[above.path().to_owned(), below.path().to_owned()]).unwrap();
        assert!(tree.contains(Path::new("etc/old/new")));
        assert!(!tree.contains(Path::new("etc/old/file")));
    }

    #[test]
    fn what_not_everybody_may_read_is_left_out() {
        let directory = layer(&["bin/sh", "etc/shadow", "root/.ssh/key", "usr/bin/su"]);
        let set = |path: &str, mode| {
            fs::set_permissions(directory.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        set("etc/shadow", 0o640);
        set("root/.ssh", 0o700);
        set("usr/bin/su", 0o4755);
        symlink("/etc/shadow", directory.path().join("etc/link")).unwrap();
        let tree = of_directory(directory.path()).unwrap();
        let paths: Vec<&str> = tree.paths().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["bin", "bin/sh", "etc", "etc/link", "root", "usr", "usr/bin", "usr/bin/su"]);
        let into = tempfile::tempdir().unwrap();
        tree.make(into.path()).unwrap();
        assert_eq!(fs::metadata(into.path().join("usr/bin/su")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(fs::symlink_metadata(into.path().join("etc/link")).unwrap().is_symlink(), "links are not followed");
    }

    #[test]
    fn the_host_itself_and_what_is_no_root_are_refused() {
        assert!(of_directory(Path::new("/usr/..")).unwrap_err().to_string().contains("this host itself"));
        let empty = layer(&["usr/share/x"]);
        assert!(of_directory(empty.path()).unwrap_err().to_string().contains("no `/bin/sh`"));
        assert!(of_layers(&[]).unwrap_err().to_string().contains("0 layers"));
    }
}
