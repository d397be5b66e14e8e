//! Names that several packages can have a program for (`awk`): links that no package has, made by `update-alternatives`.

use crate::GuestImageError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Alternative {
    /// Below `/etc/alternatives`.
    pub name: String,
    pub link: PathBuf,
    followers: Vec<(String, PathBuf)>,
    choices: Vec<Choice>,
}

#[derive(Debug, PartialEq, Eq)]
struct Choice {
    path: PathBuf,
    priority: i64,
    /// For each follower; empty: it has none.
    followers: Vec<PathBuf>,
}

/// A link that is to be, from `link` by way of `/etc/alternatives/<name>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub name: String,
    pub link: PathBuf,
    pub to: PathBuf,
}

impl Alternative {
    /// All of a host's. `root`: the host's.
    pub(super) fn all(root: &Path) -> Result<Vec<Self>, GuestImageError> {
        let directory = root.join("var/lib/dpkg/alternatives");
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(fault) => return Err(GuestImageError::disk(directory)(fault)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(GuestImageError::disk(&directory))?.path();
            let text = fs::read_to_string(&path).map_err(GuestImageError::disk(&path))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // One that cannot be understood is a link that is not there.
            all.extend(Alternative::parse(&name, &text));
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// <https://manpages.debian.org/update-alternatives>: how, link, followers (name and link), an empty line; then for each choice its path, its
    /// priority and a line for each follower.
    fn parse(name: &str, text: &str) -> Option<Self> {
        let mut lines = text.lines().skip(1);
        let link = PathBuf::from(lines.next()?);
        let mut followers = Vec::new();
        while let Some(name) = lines.next().filter(|line| !line.is_empty()) {
            followers.push((name.to_owned(), PathBuf::from(lines.next()?)));
        }
        let mut choices = Vec::new();
        while let Some(path) = lines.next().filter(|line| !line.is_empty()) {
            let priority = lines.next()?.parse().ok()?;
            let of_choice: Vec<PathBuf> = lines.by_ref().take(followers.len()).map(PathBuf::from).collect();
            choices.push(Choice { path: path.into(), priority, followers: of_choice });
        }
        Some(Alternative { name: name.to_owned(), link, followers, choices })
    }

    /// All that its links may lead to.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let paths = self.choices.iter().flat_map(|choice| std::iter::once(&choice.path).chain(&choice.followers));
        paths.map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty())
    }

    /// The host's choice where it is there, or else the best that is.
    pub(super) fn chosen(&self, current: Option<&Path>, is_there: impl Fn(&Path) -> bool) -> Vec<Chosen> {
        let there = self.choices.iter().filter(|choice| is_there(&choice.path));
        let Some(choice) = there.max_by_key(|choice| (current == Some(&choice.path), choice.priority)) else {
            return Vec::new();
        };
        let own = Chosen { name: self.name.clone(), link: self.link.clone(), to: choice.path.clone() };
        let followers = self.followers.iter().zip(&choice.followers).filter(|(_, to)| is_there(to));
        let followers =
            followers.map(|((name, link), to)| Chosen { name: name.clone(), link: link.clone(), to: to.clone() });
        std::iter::once(own).chain(followers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWK: &str = "auto\n/usr/bin/awk\nnawk\n/usr/bin/nawk\nawk.1.gz\n/usr/share/man/man1/awk.1.gz\n\n\
        /usr/bin/gawk\n10\n/usr/bin/gawk\n/usr/share/man/man1/gawk.1.gz\n/usr/bin/mawk\n5\n/usr/bin/mawk\n\n\n";

    fn links(current: Option<&str>, there: &[&str]) -> Vec<String> {
        let awk = Alternative::parse("awk", AWK).unwrap();
        let chosen = awk.chosen(current.map(Path::new), |path| there.iter().any(|other| path == Path::new(other)));
        chosen.iter().map(|one| format!("{} {} {}", one.link.display(), one.name, one.to.display())).collect()
    }

    #[test]
    fn the_host_s_choice_counts_where_it_is_there() {
        let both = ["/usr/bin/gawk", "/usr/bin/mawk"];
        assert_eq!(
            links(Some("/usr/bin/mawk"), &both),
            ["/usr/bin/awk awk /usr/bin/mawk", "/usr/bin/nawk nawk /usr/bin/mawk"]
        );
        assert_eq!(links(None, &both)[0], "/usr/bin/awk awk /usr/bin/gawk");
        assert_eq!(links(Some("/usr/bin/gawk"), &both[1..])[0], "/usr/bin/awk awk /usr/bin/mawk");
        assert!(links(Some("/usr/bin/gawk"), &[]).is_empty());
    }

    #[test]
    fn what_cannot_be_understood_is_no_alternative() {
        for text in ["", "auto", "auto\n/usr/bin/a\n\n/usr/bin/b\nhigh\n"] {
            assert_eq!(Alternative::parse("a", text), None, "{text}");
        }
    }
}
