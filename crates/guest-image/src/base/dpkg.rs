//! What dpkg knows of a host's packages: which are installed, what each needs, which files it has. Read, never changed.

use crate::GuestImageError;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(super) struct Packages {
    admin: PathBuf,
    installed: BTreeMap<String, Package>,
    /// Names that others stand in for.
    provided: BTreeMap<String, Vec<String>>,
    diversions: Vec<Diversion>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Package {
    name: String,
    architecture: String,
    /// Each one of several.
    needs: Vec<Vec<String>>,
    provides: Vec<String>,
}

/// A file that one package has moved out of the way of its own: the others' is at another place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Diversion {
    from: PathBuf,
    to: PathBuf,
    by: String,
}

/// A file of a package: where it lies, and where it lies when only chosen packages are there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub from: PathBuf,
    pub path: PathBuf,
}

impl Packages {
    /// `root`: the host's.
    pub(super) fn open(root: &Path) -> Result<Self, GuestImageError> {
        let admin = root.join("var/lib/dpkg");
        let status = match fs::read(admin.join("status")) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
                return Err(GuestImageError::missing(
                    "this host's packages are not Debian's (no `/var/lib/dpkg/status`); give a root file system: `--directory DIR` or `--image \
                     REFERENCE`",
                ));
            }
            Err(fault) => return Err(GuestImageError::disk(admin.join("status"))(fault)),
        };
        let all: Vec<Package> = status.split("\n\n").filter_map(Package::installed).collect();
        let own = all.iter().find(|package| package.name == "dpkg").map(|package| package.architecture.clone());
        let mut installed = BTreeMap::new();
        for package in all {
            // Of several architectures the host's own.
            if !installed.contains_key(&package.name) || Some(&package.architecture) == own.as_ref() {
                installed.insert(package.name.clone(), package);
            }
        }
        let mut provided: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for package in installed.values() {
            for name in &package.provides {
                provided.entry(name.clone()).or_default().push(package.name.clone());
            }
        }
        let diversions = Diversion::all(&admin)?;
        Ok(Packages { admin, installed, provided, diversions })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.installed.contains_key(name)
    }

    /// These and all that they need.
    pub(super) fn closure<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut chosen = BTreeSet::new();
        let mut left: Vec<&str> = names.into_iter().collect();
        while let Some(name) = left.pop() {
            let Some((name, package)) = self.installed.get_key_value(name) else { continue };
            if chosen.insert(name.as_str()) {
                left.extend(package.needs.iter().filter_map(|choice| self.first_of(choice)));
            }
        }
        chosen
    }

    /// The first of a choice that is installed, or that something installed stands in for. A host whose packages' needs are not
    /// met has none.
    fn first_of(&self, choice: &[String]) -> Option<&str> {
        choice.iter().find_map(|name| match self.installed.get_key_value(name) {
            Some((name, _)) => Some(name.as_str()),
            None => self.provided.get(name).and_then(|by| by.first()).map(String::as_str),
        })
    }

    /// Paths of a package, with a `/` in front.
    pub(super) fn files(&self, name: &str, chosen: &BTreeSet<&str>) -> Result<Vec<Owned>, GuestImageError> {
        let architecture = self.installed.get(name).map_or("", |package| &package.architecture);
        let plain = self.admin.join(format!("info/{name}.list"));
        let qualified = self.admin.join(format!("info/{name}:{architecture}.list"));
        let list = if qualified.exists() { qualified } else { plain };
        let bytes = fs::read(&list).map_err(GuestImageError::disk(&list))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().map(|line| self.owned(name, Path::new(line), chosen)).collect())
    }

    fn owned(&self, name: &str, path: &Path, chosen: &BTreeSet<&str>) -> Owned {
        let Some(diversion) = self.diversions.iter().find(|diversion| diversion.from == path && diversion.by != name)
        else {
            return Owned { from: path.to_owned(), path: path.to_owned() };
        };
        // An administrator's own diversion is by nobody, and stays.
        let is_there = diversion.by == ":" || chosen.contains(diversion.by.as_str());
        let path = if is_there { diversion.to.clone() } else { path.to_owned() };
        Owned { from: diversion.to.clone(), path }
    }
}

impl Package {
    /// One that is there, of its paragraph in `status`.
    fn installed(paragraph: &str) -> Option<Self> {
        let mut package = Package::default();
        let mut is_installed = false;
        for (name, value) in fields(paragraph) {
            match name {
                "Package" => package.name = value,
                "Architecture" => package.architecture = value,
                "Status" => is_installed = value.split_whitespace().nth(2) == Some("installed"),
                "Depends" | "Pre-Depends" => package.needs.extend(value.split(',').map(choices)),
                "Provides" => package.provides = value.split(',').flat_map(choices).collect(),
                _ => {}
            }
        }
        // It becomes part of a file's name.
        let is_name = !package.name.is_empty() && !package.name.contains('/') && !package.architecture.contains('/');
        (is_installed && is_name).then_some(package)
    }
}

/// Names and values of a paragraph; a line that begins with a space goes on with the one before it.
fn fields(paragraph: &str) -> Vec<(&str, String)> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in paragraph.lines() {
        match (line.starts_with([' ', '\t']), line.split_once(':')) {
            (true, _) => {
                if let Some((_, value)) = fields.last_mut() {
                    value.push_str(line);
                }
            }
            (false, Some((name, value))) => fields.push((name, value.trim().to_owned())),
            (false, None) => {}
        }
    }
    fields
}

/// `a:any (>= 1) | b` is one of `a` and `b`.
fn choices(clause: &str) -> Vec<String> {
    let name = |one: &str| one.trim().split([' ', '(', ':', '[']).next().unwrap_or_default().to_owned();
    clause.split('|').map(name).filter(|name| !name.is_empty()).collect()
}

impl Diversion {
    fn all(admin: &Path) -> Result<Vec<Self>, GuestImageError> {
        let path = admin.join("diversions");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(fault) => return Err(GuestImageError::disk(path)(fault)),
        };
        let lines: Vec<&str> = text.lines().collect();
        let of = |three: &[&str]| Diversion { from: three[0].into(), to: three[1].into(), by: three[2].to_owned() };
        Ok(lines.chunks_exact(3).map(of).collect())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const STATUS: &str = "\
Package: dpkg
Status: install ok installed
Architecture: amd64

Package: bash
Status: install ok installed
Architecture: amd64
Pre-Depends: libc6 (>= 2.36), libtinfo6 (>= 6)
Depends: base-files (>= 2.1.12), debianutils (>= 5.6-0.1)
Description: shell
 Depends: not this

Package: libc6
Status: install ok installed
Architecture: i386
Depends: wrong

Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same

Package: tool
Status: install ok installed
Architecture: all
Depends: awk, missing | python3:any (>= 3), nowhere

Package: mawk
Status: install ok installed
Architecture: amd64
Provides: awk (= 1)
Depends: tool

Package: python3
Status: install ok installed
Architecture: amd64

Package: missing
Status: deinstall ok config-files
Architecture: amd64
";

    fn packages(diversions: &str) -> (tempfile::TempDir, Packages) {
        let root = tempfile::tempdir().unwrap();
        let admin = root.path().join("var/lib/dpkg");
        fs::create_dir_all(admin.join("info")).unwrap();
        fs::write(admin.join("status"), STATUS).unwrap();
        fs::write(admin.join("diversions"), diversions).unwrap();
        fs::write(admin.join("info/libc6:amd64.list"), "/.\n/usr/lib/libc.so.6\n").unwrap();
        fs::write(admin.join("info/mawk.list"), "/usr/bin/mawk\n/usr/bin/x\n").unwrap();
        let packages = Packages::open(root.path()).unwrap();
        (root, packages)
    }

    #[test]
    fn what_is_needed_is_found_through_choices_and_stand_ins() {
        let (_root, packages) = packages("");
        assert_eq!(Vec::from_iter(packages.closure(["bash"])), ["bash", "libc6"]);
        assert_eq!(Vec::from_iter(packages.closure(["tool"])), ["mawk", "python3", "tool"]);
        assert!(!packages.has("missing"), "its files are gone");
    }

    #[test]
    fn lists_go_by_the_host_s_architecture() {
        let (_root, packages) = packages("");
        let files = packages.files("libc6", &BTreeSet::new()).unwrap();
        assert_eq!(files[1].path, Path::new("/usr/lib/libc.so.6"));
        let fault = packages.files("bash", &BTreeSet::new()).unwrap_err();
        assert!(fault.to_string().contains("info/bash.list"), "{fault}");
    }

    #[test]
    fn a_diverted_file_goes_back_when_who_diverted_it_is_not_there() {
        let (_root, packages) = packages("/usr/bin/x\n/usr/bin/x.real\nbash\n");
        let of = |chosen: &[&str], name: &str| {
            packages.files(name, &chosen.iter().copied().collect()).unwrap().pop().map(|o| (o.from, o.path)).unwrap()
        };
        let pair = |from: &str, path: &str| (PathBuf::from(from), PathBuf::from(path));
        assert_eq!(of(&["mawk", "bash"], "mawk"), pair("/usr/bin/x.real", "/usr/bin/x.real"));
        assert_eq!(of(&["mawk"], "mawk"), pair("/usr/bin/x.real", "/usr/bin/x"));
    }

    #[test]
    fn a_host_without_dpkg_is_told_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let fault = Packages::open(root.path()).err().unwrap();
        assert!(fault.to_string().contains("--directory"), "{fault}");
    }
}
