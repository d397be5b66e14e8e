//! Which hosts the tools may reach: the operator's word, until every connection goes through the egress broker.
//!
//! Names are compared as they are written in the address; what they resolve to is not looked at here.

use std::fmt;
use url::Url;

/// Where calls may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowHosts {
    Any,
    Only(Vec<HostPattern>),
}

/// `host`, `host:port`, `*.domain` or `*.domain:port`. Without a port, every port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    host: String,
    /// Names below `host`, and not `host` itself.
    below: bool,
    port: Option<u16>,
}

impl AllowHosts {
    /// Why a call to `url` is refused, as the model and the operator should read it.
    pub fn check(&self, url: &Url) -> Result<(), String> {
        let host = url.host_str().unwrap_or_default();
        let allowed = match self {
            AllowHosts::Any => return Ok(()),
            AllowHosts::Only(patterns) => patterns,
        };
        if allowed.iter().any(|pattern| pattern.matches(host, url.port_or_known_default())) {
            return Ok(());
        }
        let list: Vec<String> = allowed.iter().map(|pattern| format!("`{pattern}`")).collect();
        let accepted = match list.is_empty() {
            true => "none; the operator names them in `[host_tools] allow_hosts` of loopd.toml".to_owned(),
            false => list.join(", "),
        };
        Err(format!("host `{host}` is not among those that this server lets tools reach; accepted: {accepted}"))
    }
}

impl HostPattern {
    /// `None` for what is no pattern.
    pub fn parse(text: &str) -> Option<Self> {
        let (below, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        // The port of an IPv6 address stands after its bracket.
        let colon = rest.rfind(':').filter(|at| rest.rfind(']').is_none_or(|bracket| bracket < *at));
        let (host, port) = match colon {
            Some(at) => (&rest[..at], Some(rest[at + 1..].parse().ok()?)),
            None => (rest, None),
        };
        let host = url::Host::parse(host).ok()?.to_string();
        (!host.contains('*')).then_some(HostPattern { host, below, port })
    }

    fn matches(&self, host: &str, port: Option<u16>) -> bool {
        let named = match self.below {
            true => host.strip_suffix(&self.host).is_some_and(|front| front.len() > 1 && front.ends_with('.')),
            false => host == self.host,
        };
        named && self.port.is_none_or(|wanted| Some(wanted) == port)
    }
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

    fn may(pattern: &str, url: &str) -> bool {
        let pattern = HostPattern::parse(pattern).expect("a pattern");
        AllowHosts::Only(vec![pattern]).check(&Url::parse(url).expect("an address")).is_ok()
    }

    #[test]
    fn a_pattern_names_a_host_all_below_one_and_perhaps_a_port() {
        assert!(may("api.example.com", "https://API.example.com/x"));
        assert!(!may("api.example.com", "https://api.example.com.evil.org/x"));
        assert!(!may("example.com", "https://api.example.com/"));
        assert!(may("*.example.com", "https://a.b.example.com/"));
        assert!(!may("*.example.com", "https://example.com/"));
        assert!(!may("*.example.com", "https://badexample.com/"));
        assert!(may("127.0.0.1:8080", "http://127.0.0.1:8080/"));
        assert!(!may("127.0.0.1:8080", "http://127.0.0.1:8081/"));
        assert!(may("example.com:443", "https://example.com/"));
        assert!(may("[::1]:80", "http://[::1]/"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "*", "*.", "a*b", "http://x", "x:port", "x:99999", "a b"] {
            assert_eq!(HostPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let url = Url::parse("http://db.internal/").expect("an address");
        let told = AllowHosts::Only(Vec::new()).check(&url).expect_err("refused");
        assert!(told.contains("`db.internal`") && told.contains("[host_tools] allow_hosts"), "{told}");
        let only = AllowHosts::Only(vec![HostPattern::parse("*.example.com").expect("a pattern")]);
        assert!(only.check(&url).expect_err("refused").ends_with("accepted: `*.example.com`"));
        assert_eq!(AllowHosts::Any.check(&url), Ok(()));
    }
}
