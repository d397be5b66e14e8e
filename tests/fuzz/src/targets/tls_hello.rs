//! How a tunnel begins: what is sure stays sure whatever follows, and a server's name is one word in lower case.

use loopd_broker::egress::fuzzing::{Begins, opening};

pub fn target(data: &[u8]) {
    let whole = opening(data);
    for cut in [1, 5, data.len() / 2, data.len().saturating_sub(1)].into_iter().filter(|cut| *cut < data.len()) {
        let early = opening(&data[..cut]);
        assert!(early == Begins::Unsure || early == whole, "{early:?} becomes {whole:?} after {cut} bytes");
    }
    assert!(data.first() != Some(&0x16) || whole != Begins::Clear, "a TLS record is taken for a request");
    if let Begins::Tls { server_name: Some(name), .. } = &whole {
        let fits = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"/:@?#".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(fits), "`{name}` is not a server's name");
    }
}
