//! Whether a program of a room may connect to a host.
//!
//! [`decide`] is about names: what the environment says. What a name resolves to is looked at with [`address::is_public`] and
//! the operator's [`address::Exception`]s, by whoever resolves it. Both must say yes.

pub mod address;
pub mod host;
pub mod registries;

pub use address::{Exception, ExceptionInvalid, is_public};
pub use host::{Host, HostPattern};

use loopd_domain::environment::Networking;

/// Why a connection may not be made, as the model that asked for it should read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this environment has no network (its networking is `none`)")]
    NoNetwork,
    #[error("port {port} of `{host}` may not be connected to; accepted ports: {accepted}")]
    Port { host: String, port: u16, accepted: String },
    #[error("host `{host}` is not in the environment's allowed_hosts; accepted: {accepted}")]
    Host { host: String, accepted: String },
}

/// Patterns that a refusal names; a longer list is cut.
const PATTERNS_TOLD: usize = 20;

/// May `host` be connected to at `port`? By the words of the environment alone.
pub fn decide(
    networking: &Networking,
    ports: &[u16],
    mcp_hosts: &[String],
    host: &Host,
    port: u16,
) -> Result<(), Refusal> {
    match networking {
        Networking::None => return Err(Refusal::NoNetwork),
        Networking::Unrestricted => {}
        Networking::Limited { allowed_hosts, allow_mcp_servers, allow_package_managers } => {
            let named = is_named(allowed_hosts, host, port)
                || (*allow_mcp_servers && is_named(mcp_hosts, host, port))
                || (*allow_package_managers && registries::is_registry(host));
            if !named {
                let lists = [(*allow_mcp_servers, "MCP servers"), (*allow_package_managers, "package registries")];
                return Err(Refusal::Host { host: host.to_string(), accepted: accepted(allowed_hosts, &lists) });
            }
        }
    }
    match ports.contains(&port) {
        true => Ok(()),
        false => {
            let accepted = ports.iter().map(u16::to_string).collect::<Vec<_>>();
            let accepted = if accepted.is_empty() { "none".to_owned() } else { accepted.join(", ") };
            Err(Refusal::Port { host: host.to_string(), port, accepted })
        }
    }
}

fn is_named(patterns: &[String], host: &Host, port: u16) -> bool {
    patterns.iter().filter_map(|pattern| HostPattern::parse(pattern).ok()).any(|pattern| pattern.matches(host, port))
}

fn accepted(patterns: &[String], lists: &[(bool, &str)]) -> String {
    let mut told: Vec<String> = patterns.iter().take(PATTERNS_TOLD).map(|pattern| format!("`{pattern}`")).collect();
    if patterns.len() > PATTERNS_TOLD {
        told.push(format!("and {} more", patterns.len() - PATTERNS_TOLD));
    }
    told.extend(lists.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()));
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: &[u16] = &[80, 443];

    fn limited(hosts: &[&str], mcp: bool, packages: bool) -> Networking {
        Networking::Limited {
            allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            allow_mcp_servers: mcp,
            allow_package_managers: packages,
        }
    }

    fn may(networking: &Networking, host: &str, port: u16) -> Result<(), Refusal> {
        decide(networking, PORTS, &["mcp.example.net".to_owned()], &Host::parse(host).expect("a host"), port)
    }

    #[test]
    fn the_environment_names_where_to() {
        let only = limited(&["api.example.com", "*.example.org"], false, false);
        assert_eq!(may(&only, "API.Example.com.", 443), Ok(()));
        assert_eq!(may(&only, "a.b.example.org", 80), Ok(()));
        for other in ["example.org", "example.com", "api.example.com.evil.org", "mcp.example.net", "pypi.org"] {
            assert!(matches!(may(&only, other, 443), Err(Refusal::Host { .. })), "{other}");
        }
        assert_eq!(may(&Networking::Unrestricted, "anything.example", 443), Ok(()));
        assert_eq!(may(&Networking::None, "api.example.com", 443), Err(Refusal::NoNetwork));
    }

    #[test]
    fn mcp_servers_and_registries_are_asked_for() {
        assert_eq!(may(&limited(&[], true, false), "mcp.example.net", 443), Ok(()));
        assert!(may(&limited(&[], false, true), "mcp.example.net", 443).is_err());
        assert_eq!(may(&limited(&[], false, true), "files.pythonhosted.org", 443), Ok(()));
        assert!(may(&limited(&[], true, false), "files.pythonhosted.org", 443).is_err());
    }

    #[test]
    fn ports_are_few() {
        let told = may(&Networking::Unrestricted, "example.com", 22).expect_err("refused");
        assert_eq!(told.to_string(), "port 22 of `example.com` may not be connected to; accepted ports: 80, 443");
        let none = decide(&Networking::Unrestricted, &[], &[], &Host::parse("example.com").expect("a host"), 443);
        assert!(none.expect_err("refused").to_string().ends_with("accepted ports: none"));
    }

    #[test]
    fn a_refusal_says_what_would_be_accepted() {
        let told = may(&limited(&["*.example.org"], true, true), "evil.test", 443).expect_err("refused").to_string();
        assert_eq!(
            told,
            "host `evil.test` is not in the environment's allowed_hosts; accepted: `*.example.org`, MCP servers, package \
             registries"
        );
        let many: Vec<String> = (0..30).map(|n| format!("h{n}.test")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(
            may(&limited(&many, false, false), "x.test", 443)
                .expect_err("refused")
                .to_string()
                .ends_with("and 10 more")
        );
        assert!(
            may(&limited(&[], false, false), "x.test", 443)
                .expect_err("refused")
                .to_string()
                .ends_with("accepted: none")
        );
    }
}
