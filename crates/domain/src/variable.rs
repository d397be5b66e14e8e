//! Which variables a credential may set in a room: not those that decide how programs are found, loaded or connected.
//!
//! The vaults' interface refuses the others when a credential is made, and whoever hands variables to a room looks again.

/// Names that decide which program runs, what is loaded into it, who it runs as, or how it reaches the world.
const RESERVED: [&str; 31] = [
    "PATH",
    "HOME",
    "SHELL",
    "USER",
    "LOGNAME",
    "PWD",
    "OLDPWD",
    "TMPDIR",
    "TERM",
    "LANG",
    "IFS",
    "ENV",
    "CDPATH",
    "SHLVL",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "NODE_OPTIONS",
    "NODE_EXTRA_CA_CERTS",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PERL5LIB",
    "PERL5OPT",
    "RUBYOPT",
    "RUBYLIB",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
];
const RESERVED_PREFIXES: [&str; 5] = ["LD_", "LC_", "BASH_", "LOOPD_", "GIT_SSL_"];
const RESERVED_SUFFIXES: [&str; 1] = ["_PROXY"];

/// A name that a credential may have in a room. Letters count in either case: a proxy is set by both.
pub fn may_be_set(name: &str) -> bool {
    let mut bytes = name.bytes();
    let is_name = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let name = name.to_ascii_uppercase();
    is_name
        && !RESERVED.contains(&name.as_str())
        && !RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !RESERVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_programs_is_not_set() {
        for name in ["GITHUB_TOKEN", "_x", "AWS_SECRET_ACCESS_KEY", "A1", "MY_PATH", "PROXY_TOKEN"] {
            assert!(may_be_set(name), "{name}");
        }
        let bad =
            ["", "1A", "A-B", "A=B", "Ä", "A B", "A\0", "PATH", "path", "LD_PRELOAD", "ld_library_path", "LOOPD_X"];
        for name in bad.into_iter().chain(["https_proxy", "ALL_PROXY", "BASH_ENV", "ENV", "NODE_OPTIONS"]) {
            assert!(!may_be_set(name), "{name}");
        }
    }
}
