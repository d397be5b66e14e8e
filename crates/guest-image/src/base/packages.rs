//! The tree of a base disk that is made of files of the host's packages: in seconds, without a network.
//!
//! Of the host comes what belongs to a package and lies in `/usr` (or where it was before `/usr` was merged), byte code of its Python
//! modules, and of `/etc` the few files that rooms are given anyway. Nothing else of the host is looked at.

use super::alternatives::Alternative;
use super::dpkg::Packages;
use crate::GuestImageError;
use crate::tree::{Entry, READABLE, Tree};
use loopd_domain::limits::PACKAGES_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Without these nothing starts, or not well; no package says that it needs them.
const ALWAYS: [&str; 6] = ["base-files", "bash", "coreutils", "dash", "libc-bin", "ncurses-base"];
/// Where programs and libraries are, as in the stage of `loopd_jail`.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Not for programs.
const LEFT_OUT: [&str; 5] = ["usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/lintian", "usr/share/bug"];
/// Other package managers change what is in here, and Debian's knows nothing of it: taken whole, where anything is taken of it.
const WHOLE: [&str; 1] = ["usr/lib/node_modules"];
/// What the stage gives to rooms, and what the loader's cache is made by. None may hold a secret.
const ETC_FILES: [&str; 10] = [
    "ca-certificates.conf",
    "debian_version",
    "ld.so.conf",
    "localtime",
    "mime.types",
    "os-release",
    "protocols",
    "services",
    "shells",
    "ssl/openssl.cnf",
];
const ETC_DIRECTORIES: [&str; 4] = ["ca-certificates", "ld.so.conf.d", "pki/tls/certs", "pki/ca-trust/extracted"];
const CERTIFICATES: &str = "etc/ssl/certs";
const BUNDLE: &str = "ca-certificates.crt";

/// `root`: the host's.
pub(super) fn tree(root: &Path, names: &[String], is_usual: bool) -> Result<Tree, GuestImageError> {
    let root = &fs::canonicalize(root).map_err(GuestImageError::disk(root))?;
    let packages = Packages::open(root)?;
    let names = known(&packages, names, is_usual)?;
    let chosen = packages.closure(names.into_iter().chain(ALWAYS));
    let mut host = Host { root, real: BTreeMap::new(), tree: Tree::default() };
    for name in SYSTEM.map(Path::new) {
        host.tree.add(&root.join(name), name)?;
    }
    for name in &chosen {
        for file in packages.files(name, &chosen)? {
            host.take(&file.from, &file.path)?;
        }
    }
    for name in WHOLE.map(Path::new) {
        host.take_whole(name)?;
    }
    host.take_byte_code()?;
    host.take_alternatives()?;
    host.take_etc()?;
    Ok(host.tree)
}

fn known<'a>(packages: &Packages, names: &'a [String], is_usual: bool) -> Result<Vec<&'a str>, GuestImageError> {
    if names.len() > PACKAGES_MAX {
        return Err(GuestImageError::broken(format!("{} packages: at most {PACKAGES_MAX} are accepted", names.len())));
    }
    let (known, unknown): (Vec<&str>, Vec<&str>) =
        names.iter().map(String::as_str).partition(|name| packages.has(name));
    match unknown[..] {
        [] => Ok(known),
        _ if is_usual => Ok(known),
        _ => Err(GuestImageError::missing(format!(
            "not installed on this host, from which their files would come: {}; install them (`apt-get install {}`) or leave them out",
            unknown.join(", "),
            unknown.join(" ")
        ))),
    }
}

struct Host<'a> {
    root: &'a Path,
    /// Directories of the host, and where they really are: packages know nothing of merged directories.
    real: BTreeMap<PathBuf, Option<PathBuf>>,
    tree: Tree,
}

impl Host<'_> {
    /// A file of a package; both paths are absolute ones of the host.
    fn take(&mut self, from: &Path, path: &Path) -> Result<(), GuestImageError> {
        let Some(path) = self.place(path)? else { return Ok(()) };
        let Ok(from) = from.strip_prefix("/") else { return Ok(()) };
        self.tree.add(&self.root.join(from), &path).map(drop)
    }

    /// Where a path of the host goes below the root, by directories alone. `None`: nowhere.
    fn place(&mut self, path: &Path) -> Result<Option<PathBuf>, GuestImageError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        if !self.real.contains_key(parent) {
            let real = self.real_directory(parent)?;
            self.real.insert(parent.to_owned(), real);
        }
        let place = self.real[parent].as_ref().map(|parent| parent.join(name));
        let is_wanted = |place: &PathBuf| {
            place.components().count() > 1
                && SYSTEM.iter().any(|top| place.starts_with(top))
                && !LEFT_OUT.iter().any(|left| place.starts_with(left))
        };
        Ok(place.filter(is_wanted))
    }

    fn real_directory(&self, directory: &Path) -> Result<Option<PathBuf>, GuestImageError> {
        let Ok(below) = directory.strip_prefix("/") else { return Ok(None) };
        let path = self.root.join(below);
        match fs::canonicalize(&path) {
            Ok(real) => Ok(real.strip_prefix(self.root).ok().map(Path::to_owned)),
            Err(absent) if matches!(absent.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            // What only others may look into is not for rooms.
            Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            Err(fault) => Err(GuestImageError::disk(path)(fault)),
        }
    }

    fn take_whole(&mut self, path: &Path) -> Result<(), GuestImageError> {
        match self.tree.contains(path) {
            true => self.take_directory(path),
            false => Ok(()),
        }
    }

    /// No package has it: it was made when they were installed. A room could not keep its own, and each start of Python would
    /// compile everything again.
    fn take_byte_code(&mut self) -> Result<(), GuestImageError> {
        let is_module = |path: &&Path| path.extension().is_some_and(|extension| extension == "py");
        let modules: BTreeSet<PathBuf> = self.tree.paths().filter(is_module).map(Path::to_owned).collect();
        let directories: BTreeSet<&Path> = modules.iter().filter_map(|module| module.parent()).collect();
        for directory in directories {
            let cache = directory.join("__pycache__");
            for entry in entries(&self.root.join(&cache))? {
                let stem = entry.split_once('.').map_or("", |(stem, _)| stem);
                if entry.ends_with(".pyc") && modules.contains(&directory.join(format!("{stem}.py"))) {
                    self.tree.add(&self.root.join(&cache).join(&entry), &cache.join(&entry))?;
                }
            }
        }
        Ok(())
    }

    fn take_alternatives(&mut self) -> Result<(), GuestImageError> {
        for alternative in Alternative::all(self.root)? {
            let current = fs::read_link(self.root.join("etc/alternatives").join(&alternative.name)).ok();
            let mut there = Vec::new();
            for path in alternative.paths() {
                if self.place(path)?.is_some_and(|place| self.tree.contains(&place)) {
                    there.push(path.to_owned());
                }
            }
            for chosen in alternative.chosen(current.as_deref(), |path| there.iter().any(|other| other == path)) {
                let Some(link) = self.place(&chosen.link)?.filter(|link| !self.tree.contains(link)) else { continue };
                let by = Path::new("/etc/alternatives").join(&chosen.name);
                self.tree.put(Path::new("etc/alternatives").join(&chosen.name), Entry::Link { to: chosen.to })?;
                self.tree.put(link, Entry::Link { to: by })?;
            }
        }
        Ok(())
    }

    fn take_etc(&mut self) -> Result<(), GuestImageError> {
        for name in ETC_FILES {
            self.take_text(&Path::new("etc").join(name))?;
        }
        let java = entries(&self.root.join("etc"))?.into_iter().filter(|name| name.starts_with("java-"));
        for name in java.chain(ETC_DIRECTORIES.map(str::to_owned)) {
            let path = Path::new("etc").join(name);
            self.take_directory(&path)?;
        }
        match self.tree.contains(Path::new("usr/share/ca-certificates")) {
            true => self.take_directory(Path::new(CERTIFICATES)),
            // The others are links to there.
            false => self.take_text(&Path::new(CERTIFICATES).join(BUNDLE)),
        }
    }

    fn take_directory(&mut self, path: &Path) -> Result<(), GuestImageError> {
        let from = self.root.join(path);
        if from.is_dir() && self.tree.add(&from, path)? && matches!(self.tree.get(path), Some(Entry::Directory { .. }))
        {
            self.tree.add_all(&from, path)?;
        }
        Ok(())
    }

    /// A file's content, also where a link leads to it.
    fn take_text(&mut self, path: &Path) -> Result<(), GuestImageError> {
        let from = self.root.join(path);
        match fs::metadata(&from) {
            Ok(about) if about.is_file() && about.mode() & READABLE != 0 => {
                let content = fs::read(&from).map_err(GuestImageError::disk(&from))?;
                self.tree.put(path, Entry::Text { content })
            }
            Ok(_) => Ok(()),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(fault) => Err(GuestImageError::disk(from)(fault)),
        }
    }
}

/// Names in a directory; none if there is no such directory.
fn entries(directory: &Path) -> Result<Vec<String>, GuestImageError> {
    let found = match fs::read_dir(directory) {
        Ok(found) => found,
        Err(absent) if matches!(absent.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        Err(fault) => return Err(GuestImageError::disk(directory)(fault)),
    };
    let names: io::Result<Vec<_>> = found.map(|entry| Ok(entry?.file_name())).collect();
    let names = names.map_err(GuestImageError::disk(directory))?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A host with a merged `/usr`, an alternative, and things that are nobody's.
    fn host() -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        let root = host.path();
        let write = |path: &str, content: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let mut status = String::new();
        for (package, files, needs) in [
            ("bash", "/.\n/bin\n/bin/bash\n/usr/share/doc/bash/copyright\n/etc/bash.bashrc\n", "mawk"),
            ("mawk", "/usr/bin/mawk\n/usr/share/gone\n", ""),
            ("node", "/usr/lib/node_modules/npm/old.js\n", ""),
            ("python3", "/usr/lib/python3/os.py\n/usr/lib/python3/secret.py\n/var/lib/python3/state\n", ""),
        ] {
            status +=
                &format!("Package: {package}\nStatus: install ok installed\nArchitecture: amd64\nDepends: {needs}\n\n");
            write(&format!("var/lib/dpkg/info/{package}.list"), files);
        }
        write("var/lib/dpkg/status", &status);
        write("var/lib/dpkg/alternatives/awk", "auto\n/usr/bin/awk\n\n/usr/bin/gawk\n10\n/usr/bin/mawk\n5\n\n");
        for path in [
            "usr/bin/bash",
            "usr/bin/mawk",
            "usr/bin/gawk",
            "usr/bin/strange",
            "usr/share/doc/bash/copyright",
            "usr/lib/python3/os.py",
            "usr/lib/python3/secret.py",
            "usr/lib/python3/__pycache__/os.cpython-311.pyc",
            "usr/lib/python3/__pycache__/other.cpython-311.pyc",
            "var/lib/python3/state",
            "etc/bash.bashrc",
            "etc/shadow",
            "etc/services",
            "etc/ssl/certs/ca-certificates.crt",
            "etc/ssl/certs/other.pem",
            "usr/share/zoneinfo/UTC",
            "usr/lib/node_modules/npm/old.js",
            "usr/lib/node_modules/npm/new.js",
        ] {
            write(path, path);
        }
        fs::set_permissions(root.join("usr/lib/python3/secret.py"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("../usr/share/zoneinfo/UTC", root.join("etc/localtime")).unwrap();
        fs::create_dir_all(root.join("etc/alternatives")).unwrap();
        symlink("/usr/bin/gawk", root.join("etc/alternatives/awk")).unwrap();
        host
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_belongs_to_chosen_packages_is_taken() {
        let host = host();
        let tree = tree(host.path(), &names(&["bash", "python3"]), false).unwrap();
        let paths: Vec<&str> = tree.paths().map(|path| path.to_str().unwrap()).collect();
        let expected = [
            "bin",
            "etc",
            "etc/alternatives",
            "etc/alternatives/awk",
            "etc/localtime",
            "etc/services",
            "etc/ssl",
            "etc/ssl/certs",
            "etc/ssl/certs/ca-certificates.crt",
            "usr",
            "usr/bin",
            "usr/bin/awk",
            "usr/bin/bash",
            "usr/bin/mawk",
            "usr/lib",
            "usr/lib/python3",
            "usr/lib/python3/__pycache__",
            "usr/lib/python3/__pycache__/os.cpython-311.pyc",
            "usr/lib/python3/os.py",
        ];
        assert_eq!(paths, expected);
        assert_eq!(tree.get(Path::new("bin")), Some(&Entry::Link { to: "usr/bin".into() }));
        let link = |path: &str| tree.get(Path::new(path)).cloned();
        assert_eq!(link("etc/alternatives/awk"), Some(Entry::Link { to: "/usr/bin/mawk".into() }));
        assert_eq!(link("etc/localtime"), Some(Entry::Text { content: b"usr/share/zoneinfo/UTC".to_vec() }));
    }

    #[test]
    fn what_another_package_manager_has_changed_is_taken_as_it_is() {
        let host = host();
        let tree = tree(host.path(), &names(&["node"]), false).unwrap();
        assert!(tree.contains(Path::new("usr/lib/node_modules/npm/new.js")));
    }

    #[test]
    fn a_change_of_a_package_is_another_tree() {
        let host = host();
        let key = || tree(host.path(), &names(&["bash"]), false).unwrap().key();
        let before = key();
        assert_eq!(key(), before);
        fs::write(host.path().join("usr/bin/bash"), "another length").unwrap();
        assert_ne!(key(), before);
    }

    #[test]
    fn what_is_not_installed_is_named_unless_nobody_asked_for_it() {
        let host = host();
        let fault = tree(host.path(), &names(&["bash", "gone", "too"]), false).unwrap_err().to_string();
        assert!(fault.contains("gone, too; install them (`apt-get install gone too`)"), "{fault}");
        assert!(tree(host.path(), &names(&["bash", "gone"]), true).is_ok());
    }
}
