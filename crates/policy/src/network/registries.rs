//! The package registries that `allow_package_managers` opens.

use super::Host;

/// Hosts that a package manager reaches in its usual configuration, and where that is said.
const REGISTRIES: &[(&str, &str)] = &[
    // pip: https://packaging.python.org/en/latest/guides/index-mirrors-and-caches/
    ("pypi.org", "index"),
    ("files.pythonhosted.org", "files"),
    // npm: https://docs.npmjs.com/cli/using-npm/registry; yarn and pnpm: https://classic.yarnpkg.com/docs/cli/config
    ("registry.npmjs.org", "index and files"),
    ("registry.yarnpkg.com", "the same, as yarn names it"),
    // cargo: https://doc.rust-lang.org/cargo/reference/registry-index.html
    ("crates.io", "interface"),
    ("index.crates.io", "index"),
    ("static.crates.io", "files"),
    // go: https://go.dev/ref/mod#environment-variables
    ("proxy.golang.org", "modules"),
    ("sum.golang.org", "checksums"),
    // gem: https://guides.rubygems.org/rubygems-org-api/
    ("rubygems.org", "interface and files"),
    ("index.rubygems.org", "index"),
    // apt: https://www.debian.org/mirror/list and https://ubuntu.com/server/docs/package-management
    ("deb.debian.org", "packages"),
    ("security.debian.org", "security updates"),
    ("ftp.debian.org", "packages"),
    ("archive.ubuntu.com", "packages"),
    ("security.ubuntu.com", "security updates"),
    ("ports.ubuntu.com", "packages of other architectures"),
];

pub fn is_registry(host: &Host) -> bool {
    host.name().is_some_and(|name| REGISTRIES.iter().any(|(registry, _)| *registry == name))
}

/// Their names, for whoever shows them.
pub fn names() -> impl Iterator<Item = &'static str> {
    REGISTRIES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_a_host_in_its_one_spelling() {
        for name in names() {
            assert_eq!(Host::parse(name).expect("a host").name(), Some(name));
        }
    }

    #[test]
    fn only_the_hosts_themselves() {
        let is = |host: &str| is_registry(&Host::parse(host).expect("a host"));
        assert!(is("PyPI.org") && is("static.crates.io"));
        assert!(!is("evil.pypi.org") && !is("pypi.org.evil.test") && !is("151.101.0.223"));
    }
}
