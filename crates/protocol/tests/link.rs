//! Two ends of a link, joined by whatever cuts bytes: what is written arrives, in order and within credit; a reset at any byte makes
//! both ends fresh; what breaks a rule is told, and does no more than that.

use loopd_domain::limits::{LINK_FRAME_BYTES_MAX, LINK_OUTPUT_BYTES_MAX, LINK_STREAMS_MAX, LINK_WINDOW_BYTES};
use loopd_protocol::link::{Event, Link, LinkError, Nonce, OpenError, Side, StreamId, StreamKind, Token};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const TOKEN: Token = Token([7; 32]);
const RESET_BYTES: usize = 64;
/// What one stream's end says at most when there is space for a little.
const SLACK: usize = 64;

fn nonce(number: u8) -> Nonce {
    Nonce([number; 16])
}

/// All that `from` has to say, to `to`, in pieces of these sizes.
fn carry(from: &mut Link, to: &mut Link, cuts: &mut impl Iterator<Item = usize>) -> Vec<Event> {
    let mut events = Vec::new();
    while !from.output().is_empty() {
        let piece = cuts.next().unwrap_or(usize::MAX).clamp(1, from.output().len());
        to.push(&from.output()[..piece]);
        from.sent(piece);
        events.extend(drain(to));
    }
    events
}

fn drain(link: &mut Link) -> Vec<Event> {
    std::iter::from_fn(|| link.next().expect("no rule is broken")).collect()
}

fn whole() -> impl Iterator<Item = usize> {
    std::iter::repeat(usize::MAX)
}

fn pair() -> (Link, Link) {
    let (mut host, mut guest) = (Link::new(Side::Host), Link::new(Side::Guest));
    host.reset(&Token::UNBOUND, nonce(1));
    assert_eq!(carry(&mut host, &mut guest, &mut whole()), [Event::Reset { nonce: nonce(1) }]);
    assert_eq!(carry(&mut guest, &mut host, &mut whole()), [Event::Reset { nonce: nonce(1) }]);
    (host, guest)
}

fn frame(id: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// What one end says of bytes that a stranger wrote, up to the first error.
fn tell(link: &mut Link, bytes: &[u8]) -> Result<Vec<Event>, LinkError> {
    link.push(bytes);
    let mut events = Vec::new();
    while let Some(event) = link.next()? {
        events.push(event);
    }
    Ok(events)
}

#[test]
fn a_stream_carries_bytes_both_ways_until_both_have_ended() {
    let (mut host, mut guest) = pair();
    let id = host.open(StreamKind::Cell).unwrap();
    assert_eq!(host.write(id, b"question"), 8);
    host.end(id);
    let told = carry(&mut host, &mut guest, &mut whole());
    let opened = Event::Opened { id, kind: StreamKind::Cell };
    assert_eq!(told, [opened, Event::Data { id, bytes: b"question".to_vec() }, Event::Ended { id }]);
    assert_eq!(guest.write(id, b"answer"), 6);
    guest.end(id);
    let told = carry(&mut guest, &mut host, &mut whole());
    assert_eq!(told, [Event::Data { id, bytes: b"answer".to_vec() }, Event::Ended { id }]);
    assert_eq!((host.write(id, b"x"), guest.write(id, b"x")), (0, 0));
    assert!(host.output().is_empty() && guest.output().is_empty());
}

#[test]
fn credit_holds_one_stream_up_and_no_other() {
    let (mut host, mut guest) = pair();
    let (slow, other) = (host.open(StreamKind::Cell).unwrap(), host.open(StreamKind::Cell).unwrap());
    let mut written = 0;
    while written < LINK_WINDOW_BYTES as usize {
        let more = host.write(slow, &[1; 100_000]);
        assert!(more > 0);
        written += more;
        carry(&mut host, &mut guest, &mut whole());
    }
    assert_eq!(written, LINK_WINDOW_BYTES as usize, "and no byte more");
    assert_eq!(host.write(slow, b"x"), 0);
    assert_eq!(host.write(other, b"y"), 1);
    assert_eq!(carry(&mut host, &mut guest, &mut whole()), [Event::Data { id: other, bytes: b"y".to_vec() }]);
    assert_eq!(drain(&mut host), [], "nothing was taken");
    guest.take(slow, LINK_WINDOW_BYTES as usize / 2 - 1);
    assert!(guest.output().is_empty(), "credit goes back in large pieces");
    guest.take(slow, 1);
    assert_eq!(carry(&mut guest, &mut host, &mut whole()), [Event::Writable { id: slow }]);
    assert_eq!(drain(&mut host), [], "once");
    assert_eq!(host.write(slow, &vec![1; 1 << 20]), LINK_WINDOW_BYTES as usize / 2);
    // More than was handed out cannot be taken.
    guest.take(other, usize::MAX);
    assert!(guest.output().is_empty());
}

#[test]
fn streams_that_wait_for_space_take_turns() {
    let (mut host, mut guest) = pair();
    let ids: Vec<StreamId> = (0..4).map(|_| host.open(StreamKind::Cell).unwrap()).collect();
    for id in &ids {
        host.write(*id, &[0; 200_000]);
    }
    let mut told = Vec::new();
    for _ in 0..4 {
        guest.push(host.output());
        host.sent(host.output().len());
        drain(&mut guest);
        while let Some(Event::Writable { id }) = host.next().unwrap() {
            told.push(id);
            host.write(id, &vec![0; 200_000]);
        }
    }
    assert_eq!(told.iter().collect::<BTreeSet<_>>(), ids[1..].iter().collect(), "{told:?}");
}

#[test]
fn what_was_given_up_may_come_late_and_nothing_more() {
    let (mut host, mut guest) = pair();
    let id = host.open(StreamKind::Cell).unwrap();
    carry(&mut host, &mut guest, &mut whole());
    assert_eq!(guest.write(id, &[1; 1_000]), 1_000);
    guest.end(id);
    host.abort(id);
    assert_eq!(carry(&mut guest, &mut host, &mut whole()), []);
    assert_eq!(carry(&mut host, &mut guest, &mut whole()), [Event::Aborted { id }]);
    // Up to its window, a peer that had not heard of it was in its right.
    for _ in 0..3 {
        assert_eq!(tell(&mut host, &frame(id.0, 0, &[0; 64 << 10])), Ok(Vec::new()));
    }
    assert!(matches!(tell(&mut host, &frame(id.0, 0, &[0; 64 << 10])), Err(LinkError::NoCredit { .. })));
    assert!(!host.is_up());
}

#[test]
fn ends_that_cross_leave_nothing_behind() {
    let (mut host, mut guest) = pair();
    for _ in 0..3 * LINK_STREAMS_MAX {
        let (one, two) = (host.open(StreamKind::Cell).unwrap(), guest.open(StreamKind::Outlet).unwrap());
        carry(&mut host, &mut guest, &mut whole());
        carry(&mut guest, &mut host, &mut whole());
        // Both at once: one aborts while the other ends; both end.
        host.end(one);
        guest.end(one);
        host.abort(two);
        guest.end(two);
        carry(&mut host, &mut guest, &mut whole());
        carry(&mut guest, &mut host, &mut whole());
        carry(&mut host, &mut guest, &mut whole());
    }
}

#[test]
fn a_thousand_streams_and_not_one_more() {
    let (mut host, mut guest) = pair();
    let ids: Vec<StreamId> = (0..LINK_STREAMS_MAX).map(|_| host.open(StreamKind::Cell).unwrap()).collect();
    assert_eq!(host.open(StreamKind::Cell), Err(OpenError::TooMany));
    carry(&mut host, &mut guest, &mut whole());
    for id in &ids {
        assert_eq!(guest.write(*id, &id.0.to_le_bytes()), 4);
    }
    let mut told = carry(&mut guest, &mut host, &mut whole());
    told.retain(|event| matches!(event, Event::Data { id, bytes } if id.0.to_le_bytes() == bytes.as_slice()));
    assert_eq!(told.len(), LINK_STREAMS_MAX);
    // The guest's are counted by themselves; a stranger who opens more breaks a rule.
    for number in 0..LINK_STREAMS_MAX as u32 {
        assert_eq!(tell(&mut host, &frame(2 * number + 1, 2, &[2])).unwrap().len(), 1);
    }
    assert_eq!(tell(&mut host, &frame(100_001, 2, &[2])), Err(LinkError::TooManyStreams));
}

#[test]
fn who_may_open_what() {
    let (mut host, mut guest) = pair();
    assert_eq!(host.open(StreamKind::Outlet), Err(OpenError::NotOurs(StreamKind::Outlet)));
    assert_eq!(guest.open(StreamKind::Cell), Err(OpenError::NotOurs(StreamKind::Cell)));
    assert_eq!(Link::new(Side::Guest).open(StreamKind::Outlet), Err(OpenError::Down));
    let mut waiting = Link::new(Side::Host);
    waiting.reset(&TOKEN, nonce(1));
    assert_eq!(waiting.open(StreamKind::Cell), Err(OpenError::Down));
}

#[test]
fn broken_rules_are_told_and_the_link_is_void_until_a_reset() {
    let opened = |id: u32| frame(id, 2, &[1]);
    for (bytes, fault) in [
        (frame(0, 5, &[]), LinkError::Kind { kind: 5 }),
        (frame(0, 0, &[]), LinkError::Length { kind: 0, bytes: 0, least: 1, most: LINK_FRAME_BYTES_MAX }),
        (
            frame(0, 0, &vec![0; LINK_FRAME_BYTES_MAX + 1]),
            LinkError::Length { kind: 0, bytes: LINK_FRAME_BYTES_MAX + 1, least: 1, most: LINK_FRAME_BYTES_MAX },
        ),
        (frame(0, 1, &[0; 3]), LinkError::Length { kind: 1, bytes: 3, least: 4, most: 4 }),
        (frame(0, 3, &[0]), LinkError::Length { kind: 3, bytes: 1, least: 0, most: 0 }),
        (frame(0, 0, b"x"), LinkError::UnknownStream { id: StreamId(0) }),
        (frame(1, 4, &[]), LinkError::UnknownStream { id: StreamId(1) }),
        (frame(1, 2, &[2]), LinkError::Id { id: StreamId(1), parity: "even" }),
        ([opened(2), opened(0)].concat(), LinkError::Id { id: StreamId(0), parity: "even" }),
        ([opened(2), opened(2)].concat(), LinkError::Id { id: StreamId(2), parity: "even" }),
        (frame(0, 2, &[2]), LinkError::StreamKind { kind: 2 }),
        (frame(0, 2, &[9]), LinkError::StreamKind { kind: 9 }),
        (
            [opened(0), frame(0, 1, &1_u32.to_le_bytes())].concat(),
            LinkError::TooMuchCredit { id: StreamId(0), bytes: 1, most: 0 },
        ),
        (
            [opened(0), frame(0, 1, &0_u32.to_le_bytes())].concat(),
            LinkError::TooMuchCredit { id: StreamId(0), bytes: 0, most: 0 },
        ),
        ([opened(0), frame(0, 3, &[]), frame(0, 0, b"x")].concat(), LinkError::AfterEnd { id: StreamId(0) }),
        ([opened(0), frame(0, 3, &[]), frame(0, 3, &[])].concat(), LinkError::AfterEnd { id: StreamId(0) }),
        (
            [opened(0), [frame(0, 0, &[0; 64 << 10])].concat().repeat(4), frame(0, 0, b"x")].concat(),
            LinkError::NoCredit { id: StreamId(0), bytes: 1, credit: 0 },
        ),
    ] {
        let (_, mut guest) = pair();
        assert_eq!(tell(&mut guest, &bytes), Err(fault.clone()));
        assert!(!guest.is_up(), "{fault}");
        assert_eq!(tell(&mut guest, &opened(4)), Ok(Vec::new()), "void: {fault}");
        let mut next = Link::new(Side::Host);
        next.reset(&Token::UNBOUND, nonce(2));
        assert_eq!(carry(&mut next, &mut guest, &mut whole()), [Event::Reset { nonce: nonce(2) }], "{fault}");
    }
}

/// A stranger who reads nothing and lets much be said to him cannot make the other end's output grow.
#[test]
fn output_is_bounded_whatever_is_asked_for() {
    let (mut host, _) = pair();
    let (mut id, mut refused) = (1, false);
    for _ in 0..50_000 {
        match tell(&mut host, &[frame(id, 2, &[2]), frame(id, 0, &[0; 200])].concat()) {
            Ok(_) => host.abort(StreamId(id)),
            Err(LinkError::TooManyStreams) => {
                refused = true;
                break;
            }
            Err(other) => panic!("{other}"),
        }
        id += 2;
        assert!(host.output().len() <= LINK_OUTPUT_BYTES_MAX + SLACK);
    }
    assert!(refused, "those whose abort waits to be said are counted");

    // One who sends as if he had been given credit that he has not read yet.
    let (mut host, mut guest) = pair();
    let (id, other) = (host.open(StreamKind::Cell).unwrap(), host.open(StreamKind::Cell).unwrap());
    carry(&mut host, &mut guest, &mut whole());
    // Little space is left.
    assert_eq!(host.write(other, &[0; LINK_OUTPUT_BYTES_MAX - 1_000]), LINK_OUTPUT_BYTES_MAX - 1_000);
    let mut rounds = 0;
    while tell(&mut host, &frame(id.0, 0, &[0; 64 << 10])).is_ok() {
        host.take(id, 64 << 10);
        assert!(host.output().len() <= LINK_OUTPUT_BYTES_MAX + SLACK);
        rounds += 1;
        assert!(rounds < 1_000, "credit that was never said was accepted: {}", host.output().len());
    }
}

#[test]
fn a_token_that_is_not_known_resets_nothing() {
    let (mut host, mut guest) = pair();
    guest.set_token(&TOKEN);
    let id = host.open(StreamKind::Control).unwrap();
    host.write(id, b"still the same link");
    assert_eq!(carry(&mut host, &mut guest, &mut whole()).len(), 2);
    let mut stranger = Link::new(Side::Host);
    stranger.reset(&Token::UNBOUND, nonce(3));
    guest.push(stranger.output());
    assert!(guest.next().is_err(), "no frame either");
    let mut next = Link::new(Side::Host);
    next.reset(&TOKEN, nonce(4));
    assert_eq!(carry(&mut next, &mut guest, &mut whole()), [Event::Reset { nonce: nonce(4) }]);
    assert_eq!(carry(&mut guest, &mut next, &mut whole()), [Event::Reset { nonce: nonce(4) }]);
    assert_eq!((format!("{TOKEN:?}"), Token::from_hex(&TOKEN.to_hex())), ("Token".to_owned(), Some(TOKEN)));
    assert_eq!(Token::from_hex(&TOKEN.to_hex()[1..]), None);
}

/// A host is gone after any byte of what it says, and the next one says its reset in any pieces: the guest is fresh, and nothing of the
/// old host's is said as if it were the new one's.
#[test]
fn a_reset_after_any_byte_and_cut_anywhere() {
    let said = {
        let (mut host, mut guest) = pair();
        let id = host.open(StreamKind::Cell).unwrap();
        host.write(id, b"abc");
        guest.write(id, b"");
        host.end(id);
        let other = host.open(StreamKind::Control).unwrap();
        host.abort(other);
        host.reset(&Token::UNBOUND, nonce(9));
        // A reset that is cut off is one of the cases.
        let reset = host.output().to_vec();
        [frame(0, 2, &[1]), frame(0, 0, b"abc"), frame(0, 3, &[]), frame(2, 2, &[0]), frame(2, 4, &[]), reset].concat()
    };
    for gone in 0..=said.len() {
        for cut in 0..=RESET_BYTES {
            let (_, mut guest) = pair();
            guest.push(&said[..gone]);
            while let Ok(Some(_)) = guest.next() {}
            let mut next = Link::new(Side::Host);
            next.reset(&Token::UNBOUND, nonce(2));
            let reset = next.output().to_vec();
            next.sent(reset.len());
            let mut told = Vec::new();
            for piece in [&reset[..cut], &reset[cut..]] {
                guest.push(piece);
                loop {
                    match guest.next() {
                        Ok(Some(event)) => told.push(event),
                        Ok(None) => break,
                        Err(_) => {}
                    }
                }
            }
            assert_eq!(told.last(), Some(&Event::Reset { nonce: nonce(2) }), "gone at {gone}, cut at {cut}");
            assert!(guest.is_up());
            assert_eq!(guest.open(StreamKind::Outlet), Ok(StreamId(1)), "ids begin anew");
            // Before the answer, the new host hears what was meant for the old one.
            next.push(b"\xff\xff\xff\xffhalf of something old");
            let told = carry(&mut guest, &mut next, &mut [3, 40, 1].into_iter().cycle());
            let opened = Event::Opened { id: StreamId(1), kind: StreamKind::Outlet };
            assert_eq!(told, [Event::Reset { nonce: nonce(2) }, opened]);
            let id = next.open(StreamKind::Control).unwrap();
            assert_eq!(id, StreamId(0));
            let told = carry(&mut next, &mut guest, &mut whole());
            assert_eq!(told, [Event::Opened { id, kind: StreamKind::Control }]);
        }
    }
}

/// What two ends do, as the owner of each sees it.
#[derive(Debug, Clone)]
enum Act {
    Open { host: bool },
    Write { host: bool, stream: prop::sample::Index, bytes: usize },
    Take { host: bool, stream: prop::sample::Index, bytes: usize },
    End { host: bool, stream: prop::sample::Index },
    Abort { host: bool, stream: prop::sample::Index },
    Carry { host: bool, bytes: usize },
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let stream = any::<prop::sample::Index>;
    let bytes = || prop_oneof![0..40_usize, 0..300_000_usize];
    prop_oneof![
        3 => any::<bool>().prop_map(|host| Act::Open { host }),
        6 => (any::<bool>(), stream(), bytes()).prop_map(|(host, stream, bytes)| Act::Write { host, stream, bytes }),
        6 => (any::<bool>(), stream(), bytes()).prop_map(|(host, stream, bytes)| Act::Take { host, stream, bytes }),
        2 => (any::<bool>(), stream()).prop_map(|(host, stream)| Act::End { host, stream }),
        1 => (any::<bool>(), stream()).prop_map(|(host, stream)| Act::Abort { host, stream }),
        9 => (any::<bool>(), bytes()).prop_map(|(host, bytes)| Act::Carry { host, bytes }),
        1 => Just(Act::Reset),
    ]
}

/// One end with its owner.
struct End {
    link: Link,
    /// Of each stream: bytes written and read, counted, as the bytes follow from their place.
    written: BTreeMap<StreamId, usize>,
    read: BTreeMap<StreamId, usize>,
    untaken: BTreeMap<StreamId, usize>,
    ended: BTreeSet<StreamId>,
    heard_end: BTreeSet<StreamId>,
    aborted: BTreeSet<StreamId>,
    open: Vec<StreamId>,
    /// At the guest: until this reset comes, what is heard is half of what the last host said, filled up with the reset.
    cut_until: Option<Nonce>,
}

fn byte(id: StreamId, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ id.0 as usize) as u8
}

impl End {
    fn new(side: Side) -> Self {
        End {
            link: Link::new(side),
            written: BTreeMap::new(),
            read: BTreeMap::new(),
            untaken: BTreeMap::new(),
            ended: BTreeSet::new(),
            heard_end: BTreeSet::new(),
            aborted: BTreeSet::new(),
            open: Vec::new(),
            cut_until: None,
        }
    }

    fn forget(&mut self) {
        let link = std::mem::replace(&mut self.link, Link::new(Side::Guest));
        *self = End { link, cut_until: self.cut_until, ..End::new(Side::Guest) };
    }

    fn hear(&mut self) {
        loop {
            let event = match self.link.next() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fault) => {
                    assert!(self.cut_until.is_some(), "{fault}");
                    continue;
                }
            };
            match event {
                Event::Reset { nonce } => {
                    self.cut_until = self.cut_until.filter(|awaited| *awaited != nonce);
                    self.forget();
                }
                _ if self.cut_until.is_some() => {}
                Event::Opened { id, .. } => self.open.push(id),
                Event::Data { id, bytes } => {
                    assert!(!self.aborted.contains(&id) && !self.heard_end.contains(&id), "data after the end");
                    let read = self.read.entry(id).or_default();
                    assert!(bytes.iter().enumerate().all(|(at, b)| *b == byte(id, *read + at)), "bytes out of order");
                    *read += bytes.len();
                    let untaken = self.untaken.entry(id).or_default();
                    *untaken += bytes.len();
                    assert!(*untaken <= LINK_WINDOW_BYTES as usize, "more than credit");
                }
                Event::Ended { id } => assert!(self.heard_end.insert(id), "ended twice"),
                Event::Aborted { id } => {
                    self.aborted.insert(id);
                }
                Event::Writable { id } => assert!(!self.ended.contains(&id) && !self.aborted.contains(&id)),
            }
        }
        assert!(self.link.output().len() <= LINK_OUTPUT_BYTES_MAX + SLACK);
    }

    fn write(&mut self, id: StreamId, bytes: usize) -> usize {
        let from = self.written.get(&id).copied().unwrap_or(0);
        let bytes: Vec<u8> = (from..from + bytes).map(|at| byte(id, at)).collect();
        let written = self.link.write(id, &bytes);
        assert!(written == 0 || !(self.ended.contains(&id) || self.aborted.contains(&id)));
        *self.written.entry(id).or_default() += written;
        written
    }

    fn take(&mut self, id: StreamId, bytes: usize) {
        let untaken = self.untaken.entry(id).or_default();
        let taken = bytes.min(*untaken);
        *untaken -= taken;
        self.link.take(id, taken);
    }

    fn carry(&mut self, to: &mut End, bytes: usize) {
        let bytes = bytes.min(self.link.output().len());
        to.link.push(&self.link.output()[..bytes]);
        self.link.sent(bytes);
        to.hear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_byte_arrives_in_order_and_within_credit(acts in vec(act(), 1..120)) {
        let (mut host, mut guest) = (End::new(Side::Host), End::new(Side::Guest));
        let mut number = 0_u8;
        host.link.reset(&Token::UNBOUND, nonce(number));
        guest.cut_until = Some(nonce(number));
        for act in acts {
            let is_host = match &act {
                Act::Open { host } | Act::Write { host, .. } | Act::Take { host, .. } | Act::End { host, .. }
                | Act::Abort { host, .. } | Act::Carry { host, .. } => *host,
                Act::Reset => true,
            };
            let (this, other) = if is_host { (&mut host, &mut guest) } else { (&mut guest, &mut host) };
            let pick = |stream: prop::sample::Index| (!this.open.is_empty()).then(|| *stream.get(&this.open));
            match act {
                Act::Open { .. } => {
                    let kind = if is_host { StreamKind::Cell } else { StreamKind::Outlet };
                    if let Ok(id) = this.link.open(kind) {
                        this.open.push(id);
                    }
                }
                Act::Write { stream, bytes, .. } => if let Some(id) = pick(stream) {
                    this.write(id, bytes);
                },
                Act::Take { stream, bytes, .. } => if let Some(id) = pick(stream) {
                    this.take(id, bytes);
                },
                Act::End { stream, .. } => if let Some(id) = pick(stream) {
                    this.link.end(id);
                    this.ended.insert(id);
                },
                Act::Abort { stream, .. } => if let Some(id) = pick(stream) {
                    this.link.abort(id);
                    this.aborted.insert(id);
                },
                Act::Carry { bytes, .. } => this.carry(other, bytes),
                // Half of what the last host said may have arrived; what the guest says to it is on the way.
                Act::Reset => {
                    number += 1;
                    let on_the_way = guest.link.output().len().min(1_000);
                    host.forget();
                    host.link.reset(&Token::UNBOUND, nonce(number));
                    guest.cut_until = Some(nonce(number));
                    guest.carry(&mut host, on_the_way);
                }
            }
            host.hear();
            guest.hear();
            prop_assert!(host.link.output().len() <= LINK_OUTPUT_BYTES_MAX + SLACK);
        }
        // Everybody reads; then all that was written has come, and all ends with it.
        for _ in 0..64 {
            host.carry(&mut guest, usize::MAX);
            guest.carry(&mut host, usize::MAX);
            for end in [&mut host, &mut guest] {
                for id in end.untaken.keys().copied().collect::<Vec<_>>() {
                    end.take(id, usize::MAX);
                }
            }
        }
        prop_assert!(host.link.is_up() && guest.link.is_up());
        prop_assert!(host.link.output().is_empty() && guest.link.output().is_empty());
        for (one, two) in [(&host, &guest), (&guest, &host)] {
            for id in one.open.iter().filter(|id| !one.aborted.contains(id) && !two.aborted.contains(id)) {
                prop_assert_eq!(one.written.get(id).unwrap_or(&0), two.read.get(id).unwrap_or(&0), "{:?}", id);
                prop_assert_eq!(one.ended.contains(id), two.heard_end.contains(id));
            }
        }
    }

    #[test]
    fn garbage_is_told_or_nothing_and_nothing_grows(
        pieces in vec(vec(prop_oneof![0..6_u8, any::<u8>()], 0..200), 0..40),
        side in prop_oneof![Just(Side::Host), Just(Side::Guest)],
    ) {
        let (host, guest) = pair();
        let mut link = if side == Side::Host { host } else { guest };
        for piece in pieces {
            link.push(&piece);
            while let Ok(Some(event)) = link.next() {
                if let Event::Opened { id, .. } = event {
                    link.abort(id);
                }
            }
            prop_assert!(link.output().len() <= LINK_OUTPUT_BYTES_MAX + SLACK);
        }
    }
}
