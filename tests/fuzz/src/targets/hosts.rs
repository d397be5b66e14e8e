//! Hosts, patterns of hosts and the operator's exceptions: one spelling, and a pattern names what it says.

use loopd_policy::network::{Exception, Host, HostPattern, is_public};
use std::net::{IpAddr, Ipv6Addr};

pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for word in text.split(['\n', ' ']).take(16) {
        host(word);
        pattern(word);
        exception(word);
    }
    if let Some(address) = data.first_chunk::<16>() {
        carried(Ipv6Addr::from(*address));
    }
}

fn host(text: &str) {
    let Ok(host) = Host::parse(text) else { return };
    let shown = host.to_string();
    assert_eq!(Host::parse(&shown).as_ref(), Ok(&host), "`{shown}` is another host than it says");
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"/@?#%*\\".contains(&byte) && !byte.is_ascii_uppercase();
    assert!(shown.bytes().all(fits), "`{shown}` is not a host that may stand in a request");
    assert_eq!(host.address().is_none(), host.name().is_some());
    assert!(
        HostPattern::parse(&shown).is_ok_and(|pattern| pattern.matches(&host, 1)),
        "`{shown}` does not match itself"
    );
    if let Some(name) = host.name() {
        assert!(name.parse::<IpAddr>().is_err(), "`{name}` is an address");
        let below = HostPattern::parse(&format!("*.{name}")).expect("a name can stand in a pattern");
        assert!(!below.matches(&host, 1), "`*.{name}` matches `{name}`");
        let child = Host::parse(&format!("a.{name}")).ok();
        assert!(child.is_none_or(|child| below.matches(&child, 1)), "`*.{name}` does not match `a.{name}`");
    }
}

fn pattern(text: &str) {
    let Ok(pattern) = HostPattern::parse(text) else { return };
    let shown = pattern.to_string();
    assert_eq!(HostPattern::parse(&shown).as_ref(), Ok(&pattern), "`{shown}` is another pattern than it says");
    assert!(!text.contains(":+"), "`{text}`: a sign is no part of a port");
}

fn exception(text: &str) {
    let Ok(exception) = Exception::parse(text) else { return };
    let shown = exception.to_string();
    assert_eq!(Exception::parse(&shown).as_ref(), Ok(&exception), "`{shown}` is another exception than it says");
    assert!(![":+", "/+"].iter().any(|sign| text.contains(sign)), "`{text}`: a sign is no part of a number");
}

/// An address that carries another is not public where the other is not.
fn carried(address: Ipv6Addr) {
    if let Some(v4) = address.to_ipv4() {
        assert!(is_public(v4.into()) || !is_public(address.into()), "`{address}` is a way round");
    }
}
