//! Which hosts the tools may reach: the operator's word, until every connection goes through the egress broker.
//!
//! Names are compared as they are written in the address; what they resolve to is not looked at here.

use loopd_policy::network::{Host, HostPattern};
use url::Url;

/// Where calls may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowHosts {
    Any,
    Only(Vec<HostPattern>),
}

impl AllowHosts {
    /// Why a call to `url` is refused, as the model and the operator should read it.
    pub fn check(&self, url: &Url) -> Result<(), String> {
        let host = url.host_str().unwrap_or_default();
        let allowed = match self {
            AllowHosts::Any => return Ok(()),
            AllowHosts::Only(patterns) => patterns,
        };
        let port = url.port_or_known_default().unwrap_or_default();
        let named = |host: &Host| allowed.iter().any(|pattern| pattern.matches(host, port));
        if Host::parse(host).is_ok_and(|host| named(&host)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let url = Url::parse("http://db.internal/").expect("an address");
        let told = AllowHosts::Only(Vec::new()).check(&url).expect_err("refused");
        assert!(told.contains("`db.internal`") && told.contains("[host_tools] allow_hosts"), "{told}");
        let only = AllowHosts::Only(vec![HostPattern::parse("*.example.com").expect("a pattern")]);
        assert!(only.check(&url).expect_err("refused").ends_with("accepted: `*.example.com`"));
        assert_eq!(AllowHosts::Any.check(&url), Ok(()));
        let named = |url: &str| only.check(&Url::parse(url).expect("an address")).is_ok();
        assert!(named("https://A.example.com/x") && !named("https://example.com/"));
    }
}
