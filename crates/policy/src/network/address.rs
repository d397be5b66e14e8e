//! Which addresses are the public internet, and which others the operator opens.
//!
//! The lists are IANA's special-purpose registries (RFC 6890 and its updates, read 2026-11): what is not globally reachable is not
//! public. An IPv6 address that carries an IPv4 address is judged by what it carries, too.

use super::host::number;
use super::{Host, HostPattern};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Blocks that are not the public internet: <https://www.iana.org/assignments/iana-ipv4-special-registry>.
const NOT_PUBLIC_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network, unspecified
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carrier-grade NAT; some clouds' metadata (100.100.100.200)
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local; metadata services (169.254.169.254)
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 31, 196, 0), 24),  // AS112
    (Ipv4Addr::new(192, 52, 193, 0), 24),  // AMT
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(192, 175, 48, 0), 24),  // AS112
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's platform services
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

/// Blocks within 2000::/3, which is all that is public: <https://www.iana.org/assignments/iana-ipv6-special-registry>.
const NOT_PUBLIC_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, ORCHID, benchmarks
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16), // the former 6bone
];

/// Is this address one of the public internet?
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !NOT_PUBLIC_V4.iter().any(|(net, bits)| within(v4.into(), (*net).into(), *bits)),
        // Only global unicast. That leaves out ::/8 (unspecified, loopback, IPv4-mapped and -compatible), 64:ff9b::/96 (NAT64),
        // fc00::/7 (private, metadata services), fe80::/10, ff00::/8.
        IpAddr::V6(v6) => {
            within(v6.into(), Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0).into(), 3)
                && !NOT_PUBLIC_V6.iter().any(|(net, bits)| within(v6.into(), (*net).into(), *bits))
        }
    }
}

/// Is `address` in the block of `bits` leading bits of `net`? Never across families.
fn within(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    let (address, net, width) = match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        _ => return false,
    };
    let low = width - u32::from(bits).min(width);
    address.checked_shr(low).unwrap_or(0) == net.checked_shr(low).unwrap_or(0)
}

/// An exception that the operator makes: `10.1.0.0/16`, `10.1.2.3`, `fd00::/8`, or `host:port` (whatever it resolves to).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exception {
    Block { net: IpAddr, bits: u8 },
    Host(HostPattern),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address exception; accepted: a block as `10.1.0.0/16`, an address, or `host:port`")]
pub struct ExceptionInvalid {
    pub text: String,
}

impl Exception {
    pub fn parse(text: &str) -> Result<Self, ExceptionInvalid> {
        Self::read(text).ok_or_else(|| ExceptionInvalid { text: text.to_owned() })
    }

    fn read(text: &str) -> Option<Self> {
        if let Ok(net) = text.parse::<IpAddr>() {
            return Some(Exception::Block { net, bits: if net.is_ipv4() { 32 } else { 128 } });
        }
        if let Some((net, bits)) = text.split_once('/') {
            let (net, bits) = (net.parse::<IpAddr>().ok()?, u8::try_from(number(bits)?).ok()?);
            return (bits <= if net.is_ipv4() { 32 } else { 128 }).then_some(Exception::Block { net, bits });
        }
        // A name without a port would open every service of a machine; that is said as a block.
        let (host, digits) = text.rsplit_once(':')?;
        number(digits)?;
        (!host.starts_with('*')).then_some(Exception::Host(HostPattern::parse(text).ok()?))
    }

    /// Does it let `host` at `port` be reached at `address`?
    pub fn covers(&self, host: &Host, port: u16, address: IpAddr) -> bool {
        match self {
            Exception::Block { net, bits } => within(address, *net, *bits),
            Exception::Host(pattern) => pattern.matches(host, port),
        }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exception::Block { net, bits } => write!(f, "{net}/{bits}"),
            Exception::Host(pattern) => write!(f, "{pattern}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().expect("an address"))
    }

    #[test]
    fn what_is_not_the_internet() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "168.63.129.16",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "::8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!public(text), "{text}");
        }
    }

    #[test]
    fn what_is() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:80b::200e",
            "2001:4860:4860::8888",
        ] {
            assert!(public(text), "{text}");
        }
    }

    #[test]
    fn an_exception_opens_what_it_names_and_no_more() {
        let covers = |exception: &str, host: &str, port, address: &str| {
            let exception = Exception::parse(exception).expect("an exception");
            exception.covers(&Host::parse(host).expect("a host"), port, address.parse().expect("an address"))
        };
        assert!(covers("10.1.0.0/16", "db.internal", 5432, "10.1.255.3"));
        assert!(!covers("10.1.0.0/16", "db.internal", 5432, "10.2.0.1"));
        assert!(covers("127.0.0.1", "x.test", 1, "127.0.0.1"));
        assert!(!covers("127.0.0.1", "x.test", 1, "127.0.0.2"));
        assert!(!covers("127.0.0.0/8", "x.test", 1, "::ffff:127.0.0.1"));
        assert!(covers("0.0.0.0/0", "x.test", 1, "10.0.0.1") && !covers("0.0.0.0/0", "x.test", 1, "fd00::1"));
        assert!(covers("fd00::/8", "x.test", 1, "fdff::1"));
        assert!(covers("db.internal:5432", "DB.internal", 5432, "10.0.0.9"));
        assert!(!covers("db.internal:5432", "db.internal", 5433, "10.0.0.9"));
        assert!(!covers("db.internal:5432", "evil.test", 5432, "10.0.0.9"));
        for bad in [
            "",
            "db.internal",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "*.internal:80",
            "x:y",
            "/8",
            "10.0.0.0/+8",
            "x:+1",
        ] {
            assert!(Exception::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// The standard library's own classes, as far as it has them.
        #[test]
        fn no_special_v4_is_public(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let special = v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
                || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!(special && is_public(v4.into())));
        }

        /// Whatever an IPv6 address wraps, by any of the known ways, it is not a way round.
        #[test]
        fn no_v6_that_carries_a_v4_is_public(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let [hi, lo] = [(bits >> 16) as u16, bits as u16];
            for v6 in [
                v4.to_ipv6_mapped(), v4.to_ipv6_compatible(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, hi, lo), Ipv6Addr::new(0x2002, hi, lo, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, hi, lo, 0, 0, !hi, !lo), Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, hi, lo),
            ] {
                prop_assert!(!is_public(v6.into()), "{}", v6);
            }
        }

        #[test]
        fn a_block_holds_exactly_what_shares_its_leading_bits(net in any::<u32>(), other in any::<u32>(), bits in 0u8..=32) {
            let exception = Exception::Block { net: Ipv4Addr::from_bits(net).into(), bits };
            let host = Host::parse("x.test").expect("a host");
            let same = bits == 0 || (net ^ other).leading_zeros() >= u32::from(bits);
            prop_assert_eq!(exception.covers(&host, 1, Ipv4Addr::from_bits(other).into()), same);
        }
    }
}
