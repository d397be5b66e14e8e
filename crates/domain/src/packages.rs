//! Package managers that install into a room's root, and what may be asked of each.
//!
//! A name becomes a word of a command line. What a manager would read as an option, a path or an address is none.

use crate::environment::Packages;

/// In the order in which they install: what an earlier one brings, a later one finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Manager {
    Apt,
    Npm,
    Pip,
    Cargo,
    Gem,
    Go,
}

impl Manager {
    pub const ALL: [Manager; 6] = [Manager::Apt, Manager::Npm, Manager::Pip, Manager::Cargo, Manager::Gem, Manager::Go];

    pub fn name(self) -> &'static str {
        match self {
            Manager::Apt => "apt",
            Manager::Npm => "npm",
            Manager::Pip => "pip",
            Manager::Cargo => "cargo",
            Manager::Gem => "gem",
            Manager::Go => "go",
        }
    }

    /// What it is to install, as the environment says it.
    pub fn of(self, packages: &Packages) -> &[String] {
        match self {
            Manager::Apt => &packages.apt,
            Manager::Npm => &packages.npm,
            Manager::Pip => &packages.pip,
            Manager::Cargo => &packages.cargo,
            Manager::Gem => &packages.gem,
            Manager::Go => &packages.go,
        }
    }

    /// In words, what [`Manager::takes`].
    pub fn accepted(self) -> &'static str {
        match self {
            Manager::Apt => "a package such as `jq`, `jq=1.6-2.1` or `libc6:i386`",
            Manager::Npm => "a package such as `left-pad`, `left-pad@1.3.0` or `@scope/name@^2`; no address, no path",
            Manager::Pip => {
                "a package such as `requests`, `numpy==2.1` or `uvicorn[standard]>=0.30,<1`; no address, no path"
            }
            Manager::Cargo => "a crate with programs such as `ripgrep` or `ripgrep@14.1.0`; no address, no path",
            Manager::Gem => "a gem such as `rake` or `rake:13.0.6`; no address, no path",
            Manager::Go => {
                "a package of a module such as `golang.org/x/tools/gopls` or `golang.org/x/tools/gopls@v0.16.1`"
            }
        }
    }

    pub fn takes(self, name: &str) -> bool {
        match self {
            Manager::Apt => is_word(name, ".+-:=~") && !name.ends_with('-'),
            Manager::Pip => is_word(name, "._-+=<>!~,[]*"),
            Manager::Cargo => is_word(name, "._-@+=^~") && name.matches('@').count() <= 1,
            Manager::Gem => is_word(name, "._-:") && name.matches(':').count() <= 1,
            Manager::Go => is_go_package(name),
            Manager::Npm => match name.strip_prefix('@') {
                None => is_word(name, NPM),
                Some(scoped) => {
                    scoped.split_once('/').is_some_and(|(scope, rest)| is_word(scope, "._-") && is_word(rest, NPM))
                }
            },
        }
    }
}

const NPM: &str = "._-@^~+=<>*";

/// `host.with.dot/path/of/package@version`.
fn is_go_package(text: &str) -> bool {
    let (path, version) = text.split_once('@').map_or((text, None), |(path, version)| (path, Some(version)));
    let mut parts = path.split('/');
    let is_host = parts.next().is_some_and(|host| host.contains('.') && is_word(host, ".-"));
    let rest: Vec<&str> = parts.collect();
    let is_path = !rest.is_empty() && rest.iter().all(|part| is_word(part, "._-~+"));
    is_host && is_path && version.is_none_or(|version| is_word(version, "._-+"))
}

/// Begins with a letter or a digit, and goes on with those and `others`.
fn is_word(text: &str, others: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

#[cfg(test)]
mod tests {
    use super::Manager::{self, Apt, Cargo, Gem, Go, Npm, Pip};

    #[test]
    fn names_and_versions_are_taken() {
        let taken: [(Manager, &[&str]); 6] = [
            (Apt, &["jq", "g++", "libc6:i386", "jq=1.6-2.1", "python3.11", "0ad"]),
            (Npm, &["left-pad", "@types/node@^20", "left-pad@1.3.0", "x@latest", "x@>=1"]),
            (Cargo, &["ripgrep", "ripgrep@14.1.0", "cargo-edit@^0.13"]),
            (Gem, &["rake", "rake:13.0.6", "net-ssh", "x_y:1.0.pre"]),
            (
                Go,
                &[
                    "golang.org/x/tools/gopls",
                    "golang.org/x/tools/gopls@v0.16.1",
                    "gopkg.in/yaml.v3@latest",
                    "a.b/c~d/v2@v2.0.0+x",
                ],
            ),
            (Pip, &["requests", "numpy==2.1", "uvicorn[standard]>=0.30,<1", "torch==2.1+cpu", "x==1.*"]),
        ];
        for (manager, names) in taken {
            names.iter().for_each(|name| assert!(manager.takes(name), "{name}"));
        }
    }

    #[test]
    fn options_addresses_paths_and_shells_are_not() {
        for manager in Manager::ALL {
            for name in [
                "",
                "-r",
                "--index-url=x",
                "https://x.test/y",
                "x https://y",
                "git+https://x",
                "./x",
                "/etc/passwd",
                "../x",
                "user/repo",
                "x;y",
                "x$(y)",
                "x'y",
                "x\ny",
                "x y",
                "é",
                "@x",
                "@/x",
                "@x/",
                "@x/-y",
                "@x/y/z",
                "x@npm:y/z",
            ] {
                assert!(!manager.takes(name), "{name} by {}", manager.name());
            }
        }
        // It would be removed.
        assert!(!Apt.takes("bash-"));
        assert!(!Cargo.takes("a@1@2") && !Gem.takes("a:1:2") && !Cargo.takes("a/b") && !Gem.takes("a/b"));
        for name in
            ["x.test", "x.test/", "x.test//y", "x.test/../y", "x.test/.y", "x.test/y@", "x.test/y@-v", "x.test/y@a@b"]
        {
            assert!(!Go.takes(name), "{name}");
        }
        assert!(!Pip.takes("x@y") && !Pip.takes("file:x") && !Npm.takes("x@file:y") && !Npm.takes("file:x"));
    }
}
