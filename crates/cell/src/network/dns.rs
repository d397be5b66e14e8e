//! DNS queries, read strictly, and their answers (RFC 1035). Bytes in, bytes out: nothing here opens anything.
//!
//! Whoever asks is a stranger. What is no query gets no answer; a query that breaks the format is told so; of one that is
//! sound nothing is looked at but its single question.

use std::net::Ipv4Addr;

/// Bytes of a name as it travels, length bytes and the root's included (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;
const HEAD_BYTES: usize = 12;
/// Records besides the question that a query may have: EDNS and a signature.
const ADDITIONAL_MAX: u16 = 2;
/// How long an answer may be kept, in seconds. An address is a name's for longer than that, unless very many names are asked for.
const TTL_SECONDS: u32 = 10;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
/// Bytes of an answer over UDP that we claim to take, where EDNS is spoken.
const EDNS_BYTES: u16 = 1_232;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    id: u16,
    wants_recursion: bool,
    /// As it came, to be repeated in the answer.
    question: Vec<u8>,
    speaks_edns: bool,
    pub wanted: Wanted,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The address of a host, in lower case.
    Address(String),
    /// The name that belongs to an address.
    Name(Ipv4Addr),
    /// Something else about a name that a host could have.
    Other,
    /// Something about a name that no host can have.
    Impossible,
    /// Another class than the internet's.
    Foreign,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Address(Ipv4Addr),
    Name(String),
    /// The name is there; what is asked for is not.
    Nothing,
    NoSuchName,
    /// Not now.
    Failure,
    NotImplemented,
}

/// What cannot be answered as a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No query at all.
    Noise,
    /// The id is known, and the code that says what is wrong.
    Told { id: u16, code: u8 },
}

const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;

/// Reads one packet, all of it.
pub fn parse(packet: &[u8]) -> Result<Query, Malformed> {
    let (head, _) = packet.split_first_chunk::<HEAD_BYTES>().ok_or(Malformed::Noise)?;
    let field = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (id, flags) = (field(0), field(2));
    if flags & 0x8000 != 0 {
        return Err(Malformed::Noise); // an answer; to answer it could go on for ever
    }
    if flags & 0x7800 != 0 {
        return Err(Malformed::Told { id, code: NOT_IMPLEMENTED });
    }
    let counts = [4, 6, 8, 10].map(field);
    let mut reader = Reader { packet, at: HEAD_BYTES };
    let read = match counts {
        [1, 0, 0, additional @ ..=ADDITIONAL_MAX] => reader.question_and_rest(additional),
        _ => None,
    };
    let (labels, kind, class, question, speaks_edns) = read.ok_or(Malformed::Told { id, code: FORMAT_ERROR })?;
    let wanted = match (class, host(&labels), kind) {
        (other, ..) if other != CLASS_IN => Wanted::Foreign,
        (_, None, _) => Wanted::Impossible,
        (_, Some(name), TYPE_A) => Wanted::Address(name),
        (_, Some(name), TYPE_PTR) => reverse(&name).map_or(Wanted::Impossible, Wanted::Name),
        _ => Wanted::Other,
    };
    Ok(Query { id, wants_recursion: flags & 0x0100 != 0, question: question.to_vec(), speaks_edns, wanted })
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

type Question<'a> = (Vec<&'a [u8]>, u16, u16, &'a [u8], bool);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.packet.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// Labels up to the root. A pointer has nothing to point at in a query.
    fn name(&mut self) -> Option<Vec<&'a [u8]>> {
        let begun = self.at;
        let mut labels = Vec::new();
        loop {
            match usize::from(*self.take(1)?.first()?) {
                0 => break,
                length @ 1..=LABEL_BYTES_MAX => labels.push(self.take(length)?),
                _ => return None,
            }
            if self.at - begun >= NAME_BYTES_MAX {
                return None;
            }
        }
        Some(labels)
    }

    /// The rest of the packet: one question, and so many records that are passed over.
    fn question_and_rest(&mut self, additional: u16) -> Option<Question<'a>> {
        let begun = self.at;
        let (labels, kind, class) = (self.name()?, self.number()?, self.number()?);
        let question = &self.packet[begun..self.at];
        let mut speaks_edns = false;
        for _ in 0..additional {
            self.name()?;
            speaks_edns |= self.number()? == TYPE_OPT;
            self.take(6)?; // class and time to live
            let length = self.number()?;
            self.take(length.into())?;
        }
        (self.at == self.packet.len()).then_some((labels, kind, class, question, speaks_edns))
    }
}

/// The name of a host, or `None`: it goes into the head of a request, and nothing else may get there.
fn host(labels: &[&[u8]]) -> Option<String> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if labels.is_empty() || !labels.iter().all(|label| label.iter().all(fits)) {
        return None;
    }
    let labels: Vec<&str> = labels.iter().map(|label| std::str::from_utf8(label).ok()).collect::<Option<_>>()?;
    Some(labels.join(".").to_ascii_lowercase())
}

/// `4.3.2.1.in-addr.arpa` is about 1.2.3.4.
fn reverse(name: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut labels = name.strip_suffix(".in-addr.arpa")?.split('.');
    for octet in octets.iter_mut().rev() {
        *octet = labels.next()?.parse().ok()?;
    }
    labels.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// What is sent back.
pub fn encode(query: &Query, answer: &Answer) -> Vec<u8> {
    let (code, kind, data) = match answer {
        Answer::Address(address) => (0, TYPE_A, address.octets().to_vec()),
        Answer::Name(name) => (0, TYPE_PTR, wire_name(name)),
        Answer::Nothing => (0, 0, Vec::new()),
        Answer::NoSuchName => (NO_SUCH_NAME, 0, Vec::new()),
        Answer::Failure => (SERVER_FAILURE, 0, Vec::new()),
        Answer::NotImplemented => (NOT_IMPLEMENTED, 0, Vec::new()),
    };
    let recursion = if query.wants_recursion { 0x0100 } else { 0 };
    let mut packet = head(query.id, recursion, code, [1, u16::from(kind != 0), 0, u16::from(query.speaks_edns)]);
    packet.extend_from_slice(&query.question);
    if kind != 0 {
        let name_of_the_question = 0xc000 | HEAD_BYTES as u16;
        for number in [name_of_the_question, kind, CLASS_IN] {
            packet.extend_from_slice(&number.to_be_bytes());
        }
        packet.extend_from_slice(&TTL_SECONDS.to_be_bytes());
        packet.extend_from_slice(&(data.len() as u16).to_be_bytes());
        packet.extend_from_slice(&data);
    }
    if query.speaks_edns {
        packet.push(0);
        for number in [TYPE_OPT, EDNS_BYTES, 0, 0, 0] {
            packet.extend_from_slice(&number.to_be_bytes());
        }
    }
    packet
}

/// What is sent back to somebody whose query cannot be read; `None`: nothing.
pub fn encode_malformed(malformed: Malformed) -> Option<Vec<u8>> {
    match malformed {
        Malformed::Noise => None,
        Malformed::Told { id, code } => Some(head(id, 0, code, [0; 4])),
    }
}

fn head(id: u16, recursion: u16, code: u8, counts: [u16; 4]) -> Vec<u8> {
    const IS_ANSWER: u16 = 0x8000;
    const CAN_RECURSE: u16 = 0x0080;
    let flags = IS_ANSWER | CAN_RECURSE | recursion | u16::from(code);
    [id, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect()
}

/// A name that [`parse`] has read once.
fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(wire_name(name));
        packet.extend([kind.to_be_bytes(), CLASS_IN.to_be_bytes()].concat());
        packet
    }

    fn with_edns(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = query(name, kind);
        packet[11] = 1;
        packet.extend(OPT);
        packet
    }

    fn wanted(packet: &[u8]) -> Wanted {
        parse(packet).unwrap().wanted
    }

    const FORMAT: Result<Query, Malformed> = Err(Malformed::Told { id: 0xabcd, code: FORMAT_ERROR });

    #[test]
    fn a_question_is_read() {
        assert_eq!(wanted(&query("Example.COM", TYPE_A)), Wanted::Address("example.com".into()));
        assert_eq!(wanted(&with_edns("a_b-c.example", TYPE_A)), Wanted::Address("a_b-c.example".into()));
        assert_eq!(wanted(&query("example.com", 28)), Wanted::Other);
        assert_eq!(wanted(&query("7.3.1.127.in-addr.arpa", TYPE_PTR)), Wanted::Name(Ipv4Addr::new(127, 1, 3, 7)));
        for odd in ["3.1.127.in-addr.arpa", "1.7.3.1.127.in-addr.arpa", "256.3.1.127.in-addr.arpa", "example.com"] {
            assert_eq!(wanted(&query(odd, TYPE_PTR)), Wanted::Impossible, "{odd}");
        }
        let mut chaos = query("version.bind", 16);
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(wanted(&chaos), Wanted::Foreign);
    }

    #[test]
    fn nothing_but_a_hosts_name_gets_into_a_request() {
        for odd in ["a b", "a\r\nHost: x", "a/b", "a:80", "ä", "a@b", "*", "a\0"] {
            assert_eq!(wanted(&query(odd, TYPE_A)), Wanted::Impossible, "{odd:?}");
        }
        // A dot inside a label is no border between two.
        let mut dot = query("axb", TYPE_A);
        dot[14] = b'.';
        assert_eq!(wanted(&dot), Wanted::Impossible);
        assert_eq!(wanted(&[&query("", TYPE_A)[..12], &[0, 0, 1, 0, 1]].concat()), Wanted::Impossible);
    }

    #[test]
    fn names_and_labels_have_their_lengths() {
        let label = "x".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "x".repeat(61));
        assert_eq!(wanted(&query(&longest, TYPE_A)), Wanted::Address(longest.clone()));
        assert_eq!(parse(&query(&format!("{longest}x"), TYPE_A)), FORMAT);
        assert_eq!(parse(&query(&"x".repeat(64), TYPE_A)), FORMAT);
    }

    #[test]
    fn every_cut_and_every_addition_is_seen() {
        for packet in [query("example.com", TYPE_A), with_edns("example.com", TYPE_A)] {
            for length in 0..packet.len() {
                let expected = if length < HEAD_BYTES { Err(Malformed::Noise) } else { FORMAT };
                assert_eq!(parse(&packet[..length]), expected, "cut at {length}");
            }
            assert_eq!(parse(&[&packet[..], b"\0"].concat()), FORMAT);
        }
    }

    #[test]
    fn counts_flags_and_pointers_are_checked() {
        for (at, value) in
            [(5, 0), (5, 2), (7, 1), (9, 1), (11, 1), (11, 3), (4, 1), (12, 0xc0), (12, 0x40), (12, 0x80)]
        {
            let mut packet = query("example.com", TYPE_A);
            packet[at] = value;
            assert_eq!(parse(&packet), FORMAT, "byte {at} = {value}");
        }
        let mut packet = query("example.com", TYPE_A);
        packet[2] = 0x81;
        assert_eq!(parse(&packet), Err(Malformed::Noise), "an answer");
        packet[2] = 0x28;
        assert_eq!(parse(&packet), Err(Malformed::Told { id: 0xabcd, code: NOT_IMPLEMENTED }), "an update");
    }

    /// Changed bytes, at random but always the same: whatever they are, there is an answer or none, and never a panic.
    #[test]
    fn damaged_packets_are_survived() {
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut read = 0;
        for _ in 0..200_000 {
            let mut packet = with_edns("some.host.example.com", TYPE_A);
            for _ in 0..1 + random(4) {
                let at = random(packet.len());
                packet[at] = random(256) as u8;
            }
            packet.truncate(packet.len() - random(3));
            match parse(&packet) {
                Ok(query) => {
                    read += 1;
                    assert!(encode(&query, &Answer::Failure).len() <= 12 + NAME_BYTES_MAX + 4 + OPT.len());
                    if let Wanted::Address(name) = query.wanted {
                        assert!(name.len() < NAME_BYTES_MAX && !name.contains(|c: char| c.is_control() || c == ' '));
                    }
                }
                Err(malformed) => drop(encode_malformed(malformed)),
            }
        }
        assert!((1_000..199_000).contains(&read), "{read} were read: the damage is too much or too little");
    }

    #[test]
    fn answers_repeat_the_question() {
        let asked = parse(&with_edns("example.com", TYPE_A)).unwrap();
        let answer = encode(&asked, &Answer::Address(Ipv4Addr::new(127, 1, 2, 3)));
        assert_eq!(answer[..12], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1]);
        let question = &query("example.com", TYPE_A)[12..];
        assert_eq!(&answer[12..12 + question.len()], question);
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 10, 0, 4, 127, 1, 2, 3];
        assert_eq!(answer[12 + question.len()..], [&record[..], &OPT].concat());
        let asked = parse(&query("example.com", 28)).unwrap();
        assert_eq!(encode(&asked, &Answer::Nothing)[2..12], [0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode(&asked, &Answer::NoSuchName)[3], 0x83);
        let told = encode_malformed(Malformed::Told { id: 7, code: FORMAT_ERROR });
        assert_eq!(told, Some(vec![0, 7, 0x80, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]));
    }
}
