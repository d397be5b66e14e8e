//! Queries of a room's programs: an answer fits its question, and nothing but a host's name comes of one.

// The cell is a program; this file of it opens nothing and stands alone.
#[allow(dead_code, reason = "the cell uses all of it")]
#[path = "../../../../crates/cell/src/network/dns.rs"]
mod reader;

use reader::{Answer, Malformed, Wanted};
use std::net::Ipv4Addr;

pub fn target(data: &[u8]) {
    let query = match reader::parse(data) {
        Ok(query) => query,
        Err(malformed) => {
            let told = reader::encode_malformed(malformed);
            assert_eq!(told.is_none(), malformed == Malformed::Noise);
            assert!(told.is_none_or(|answer| answer.len() == 12 && answer[..2] == data[..2] && answer[2] & 0x80 != 0));
            return;
        }
    };
    let name = match &query.wanted {
        Wanted::Address(name) => name.clone(),
        _ => "host.example".to_owned(),
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    assert!(!name.is_empty() && name.len() < 255 && name.bytes().all(plain), "`{name}` is not a host's name");
    assert!(name.split('.').all(|label| (1..=63).contains(&label.len())), "`{name}` has a label that is none");
    let address = Answer::Address(Ipv4Addr::new(127, 1, 2, 3));
    for answer in
        [address, Answer::Name(name), Answer::Nothing, Answer::NoSuchName, Answer::Failure, Answer::NotImplemented]
    {
        let packet = reader::encode(&query, &answer);
        assert!(packet[..2] == data[..2] && packet.len() <= 1_232, "{answer:?} is not an answer to it");
        // The question is repeated, letter by letter.
        let asked = packet[12..].iter().zip(&data[12..]).take_while(|(one, other)| one == other).count();
        assert!(asked >= 5, "the question is not repeated");
        assert_eq!(
            reader::parse(&packet),
            Err(Malformed::Noise),
            "an answer reads as a query: it could go on for ever"
        );
    }
}
