//! The head of a `CONNECT`: the first whole one is read, and what follows it changes nothing.

use loopd_broker::egress::fuzzing;
use loopd_policy::network::Host;

pub fn target(data: &[u8]) {
    let read = fuzzing::connect(data);
    if let Ok(Some((length, host, port))) = &read {
        assert!(*length <= data.len() && *port > 0);
        assert!(data[..*length].ends_with(b"\n"), "the head ends in the middle of a line");
        assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(host));
        assert_eq!(&fuzzing::connect(&data[..*length]), &read, "what follows a head is a part of it");
        for cut in (0..*length).rev().take(8) {
            assert_eq!(fuzzing::connect(&data[..cut]), Ok(None), "a head that is cut at {cut} is whole");
        }
    }
    let text = String::from_utf8_lossy(data);
    if let Some((name, Some(port))) = fuzzing::split(&text) {
        assert_eq!(
            text.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')).and_then(|p| p.parse().ok()),
            Some(port)
        );
        assert!(!text.ends_with(&format!("+{port}")), "a sign is taken for a part of a port");
    }
}
