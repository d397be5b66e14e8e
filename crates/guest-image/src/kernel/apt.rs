//! A kernel's package from where this host has its packages from: `apt-get download`, which needs no root and installs nothing.

use crate::GuestImageError;
use crate::program::{command, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages that depend on the newest kernel are followed so far.
const FOLLOWED_MAX: usize = 4;
const PREFIX: &str = "linux-image-";

/// A file in an archive of packages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    name: String,
    pub file: String,
    pub sha256: Option<String>,
    lists: Lists,
}

/// What apt knows of packages.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lists {
    Hosts,
    /// Fetched for this one time: a container's image has none.
    Own(PathBuf),
}

impl Lists {
    fn command(&self, program: &str) -> Command {
        let mut command = command(program);
        // As root it would read and write as a user who has no way to our directory.
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30"]);
        command.args(["-o", "Acquire::https::Timeout=30"]);
        if let Lists::Own(directory) = self {
            for (name, part) in [("Dir::State::lists", "lists"), ("Dir::Cache", "cache")] {
                command.arg("-o").arg(format!("{name}={}", directory.join(part).display()));
            }
        }
        command
    }
}

/// Which file the package is, or the one that it depends on. `work`: where lists of packages can be put.
pub(crate) fn resolve(name: &str, work: &Path) -> Result<Package, GuestImageError> {
    if name.is_empty()
        || name.starts_with('-')
        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.:".contains(&b))
    {
        return Err(GuestImageError::broken(format!("`{name}` is no name of a Debian package")));
    }
    match resolve_in(name, Lists::Hosts) {
        Err(GuestImageError::Program { .. }) => {
            let own = Lists::Own(work.join("apt"));
            for part in ["lists/partial", "cache/archives/partial"] {
                let path = work.join("apt").join(part);
                fs::create_dir_all(&path).map_err(GuestImageError::disk(&path))?;
            }
            run(own.command("apt-get").arg("update"), "").map_err(explained)?;
            resolve_in(name, own).map_err(explained)
        }
        other => other,
    }
}

fn resolve_in(name: &str, lists: Lists) -> Result<Package, GuestImageError> {
    let mut name = name.to_owned();
    for _ in 0..FOLLOWED_MAX {
        let record = run(lists.command("apt-cache").args(["show", "--no-all-versions", &name]), &advice())?;
        match depends_on_kernel(&record) {
            Some(next) => name = next,
            None => break,
        }
    }
    let line = run(lists.command("apt-get").args(["download", "--print-uris", &name]), &advice())?;
    let (file, sha256) = parse_uri(&line).ok_or_else(|| GuestImageError::Program {
        program: "apt-get download --print-uris".into(),
        said: format!("it printed `{}`, which names no file", line.trim()),
    })?;
    Ok(Package { name, file, sha256, lists })
}

impl Package {
    pub(crate) fn fetch(&self, into: &Path) -> Result<PathBuf, GuestImageError> {
        let mut command = self.lists.command("apt-get");
        run(command.args(["download", &self.name]).current_dir(into), &advice()).map_err(explained)?;
        let path = into.join(&self.file);
        match path.is_file() {
            true => Ok(path),
            false => Err(GuestImageError::Program {
                program: "apt-get download".into(),
                said: format!("it left no file `{}`", self.file),
            }),
        }
    }
}

/// The kernel that a package without one depends on.
fn depends_on_kernel(record: &str) -> Option<String> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split(',').map(|clause| clause.trim().split([' ', '|', ':']).next().unwrap_or_default());
    names.into_iter().find(|name| name.starts_with(PREFIX)).map(str::to_owned)
}

/// `'http://…' linux-image-….deb 26713492 SHA256:e7d0…`
fn parse_uri(line: &str) -> Option<(String, Option<String>)> {
    let mut words = line.lines().find(|line| line.starts_with('\''))?.split_whitespace().skip(1);
    let file = words.next().filter(|file| !file.contains('/'))?.to_owned();
    let sum = words.nth(1).and_then(|sum| sum.strip_prefix("SHA256:")).map(str::to_owned);
    Some((file, sum))
}

/// An error of apt's, with what else can be done.
fn explained(fault: GuestImageError) -> GuestImageError {
    match fault {
        GuestImageError::Program { program, said } => GuestImageError::Program {
            program,
            said: format!("{said}\nWithout the network or Debian's archive, {}", advice()),
        },
        other => other,
    }
}

/// Other ways to a kernel, with those that are here.
fn advice() -> String {
    let mut kernels: Vec<PathBuf> =
        fs::read_dir("/boot").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    kernels.retain(|path| super::modules_beside(path).is_some_and(|_| path.to_string_lossy().contains("vmlinuz-")));
    let example = kernels.into_iter().max().unwrap_or_else(|| PathBuf::from("FILE"));
    format!(
        "give a kernel: `--kernel {}`, which may be a `vmlinuz`, a `vmlinux` or a Debian package's file, with `--modules DIR` where they are not in \
         `/lib/modules`",
        example.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_kernel_is_followed() {
        let record = "Package: linux-image-cloud-amd64\nDepends: x, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(depends_on_kernel(record).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(depends_on_kernel("Depends: kmod, linux-base (>= 4.3~)\n"), None);
    }

    #[test]
    fn the_file_and_its_sum_are_read() {
        let line = "'http://deb.debian.org/x_1_amd64.deb' x_1_amd64.deb 26713492 SHA256:e7d0\n";
        assert_eq!(parse_uri(line), Some(("x_1_amd64.deb".into(), Some("e7d0".into()))));
        assert_eq!(parse_uri("'http://x' x.deb 1 MD5Sum:aa"), Some(("x.deb".into(), None)));
        assert_eq!(parse_uri("'http://x' ../x.deb 1"), None);
        assert_eq!(parse_uri(""), None);
    }

    #[test]
    fn no_name_becomes_an_option() {
        for name in ["", "-oDir=/", "a b", "a;b"] {
            assert!(resolve(name, Path::new("/nowhere")).unwrap_err().to_string().contains("no name of a Debian"));
        }
    }
}
