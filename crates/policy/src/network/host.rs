//! A host as a program names it, and patterns of hosts. One spelling: lower case, punycode, no final dot, addresses as the URL
//! standard reads them (`127.1` and `0x7f000001` are `127.0.0.1`).

use std::fmt;
use std::net::IpAddr;

/// A name or an address, in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Name(String),
    Address(IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host; accepted: a name as `api.example.com`, an IPv4 address, an IPv6 address in brackets")]
pub struct HostInvalid {
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a host pattern; accepted: `example.com`, `*.example.com`, an address, each with or without `:port`"
)]
pub struct PatternInvalid {
    pub text: String,
}

/// Longest name that DNS can carry.
const NAME_BYTES_MAX: usize = 253;

impl Host {
    /// Reads a host as it stands in an authority: an IPv6 address has brackets.
    pub fn parse(text: &str) -> Result<Self, HostInvalid> {
        let refused = || HostInvalid { text: text.chars().take(NAME_BYTES_MAX).collect() };
        // Percent-signs would be decoded by the URL standard; nobody means them in a host.
        if text.contains(['%', '*']) || text.len() > 4 * NAME_BYTES_MAX {
            return Err(refused());
        }
        let kind = match url::Host::parse(text).map_err(|_| refused())? {
            url::Host::Ipv4(address) => Kind::Address(address.into()),
            url::Host::Ipv6(address) => Kind::Address(address.into()),
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                let fits = |label: &str| !label.is_empty() && label.len() <= 63;
                // A star that is written wide, as `＊`, comes out as one here.
                if name.len() > NAME_BYTES_MAX || name.contains('*') || !name.split('.').all(fits) {
                    return Err(refused());
                }
                Kind::Name(name.to_owned())
            }
        };
        Ok(Host(kind))
    }

    pub fn address(&self) -> Option<IpAddr> {
        match self.0 {
            Kind::Address(address) => Some(address),
            Kind::Name(_) => None,
        }
    }

    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Kind::Name(name) => Some(name),
            Kind::Address(_) => None,
        }
    }

    fn is_below(&self, parent: &Host) -> bool {
        let (Kind::Name(name), Kind::Name(parent)) = (&self.0, &parent.0) else { return false };
        name.strip_suffix(parent.as_str()).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
    }
}

/// As it stands in an authority.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Name(name) => f.write_str(name),
            Kind::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Kind::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// `host`, `host:port`, `*.domain` or `*.domain:port`. Without a port, every port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    host: Host,
    /// Names below `host`, and not `host` itself.
    below: bool,
    port: Option<u16>,
}

impl HostPattern {
    pub fn parse(text: &str) -> Result<Self, PatternInvalid> {
        Self::read(text).ok_or_else(|| PatternInvalid { text: text.to_owned() })
    }

    fn read(text: &str) -> Option<Self> {
        let (below, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        // The port of an IPv6 address stands after its bracket.
        let colon = rest.rfind(':').filter(|at| rest.rfind(']').is_none_or(|bracket| bracket < *at));
        let (host, port) = match colon {
            Some(at) => (&rest[..at], Some(number(&rest[at + 1..])?)),
            None => (rest, None),
        };
        let host = Host::parse(host).ok()?;
        match below && host.address().is_some() {
            true => None,
            false => Some(HostPattern { host, below, port }),
        }
    }

    pub fn matches(&self, host: &Host, port: u16) -> bool {
        let named = if self.below { host.is_below(&self.host) } else { *host == self.host };
        named && self.port.is_none_or(|wanted| wanted == port)
    }
}

/// Digits and nothing else: the standard library would take a sign.
pub(super) fn number(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.below { "*." } else { "" };
        write!(f, "{star}{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn may(pattern: &str, host: &str, port: u16) -> bool {
        HostPattern::parse(pattern).expect("a pattern").matches(&Host::parse(host).expect("a host"), port)
    }

    #[test]
    fn a_pattern_names_a_host_all_below_one_and_perhaps_a_port() {
        assert!(may("api.example.com", "API.example.com", 443));
        assert!(may("API.example.com.", "api.example.com", 443));
        assert!(!may("api.example.com", "api.example.com.evil.org", 443));
        assert!(!may("example.com", "api.example.com", 443));
        assert!(may("*.example.com", "a.b.example.com", 443));
        assert!(!may("*.example.com", "example.com", 443));
        assert!(!may("*.example.com", "badexample.com", 443));
        assert!(may("127.0.0.1:8080", "127.0.0.1", 8080));
        assert!(!may("127.0.0.1:8080", "127.0.0.1", 8081));
        assert!(may("[::1]:80", "[0:0::1]", 80));
        assert!(may("bücher.example", "xn--bcher-kva.example", 443));
        assert!(may("*.BÜCHER.example", "a.xn--bcher-kva.example", 443));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in [
            "",
            "*",
            "*.",
            "a*b",
            "http://x",
            "x:port",
            "x:+80",
            "＊.example.com",
            "a＊b",
            "x:99999",
            "a b",
            "*.1.2.3.4",
            "a..b",
            ".",
            "a/b",
            "u@h",
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_has_one_spelling_however_it_is_written() {
        for text in ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.1."] {
            assert_eq!(Host::parse(text).expect("an address").to_string(), "127.0.0.1", "{text}");
        }
        assert_eq!(Host::parse("[::FFFF:127.0.0.1]").expect("an address").to_string(), "[::ffff:127.0.0.1]");
        for bad in ["::1", "[::1", "1.2.3.4.5.6.256", "exa%6dple.com", "a\0b", "a\r\nb", &"a.".repeat(200)] {
            assert!(Host::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(text in "\\PC{0,40}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
            }
        }

        #[test]
        fn a_wildcard_names_only_what_ends_in_its_domain(front in "[a-z.]{0,12}") {
            if let Ok(host) = Host::parse(&format!("{front}example.com")) {
                let below = front.len() > 1 && front.ends_with('.');
                prop_assert_eq!(may("*.example.com", &host.to_string(), 1), below);
            }
        }
    }
}
