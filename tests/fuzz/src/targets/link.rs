//! A link's bytes, at either end: in pieces they say what they say as a whole, what is kept stays small, and a link that a stranger has
//! spoiled is as good as new after a reset.

use crate::pieces;
use loopd_domain::limits::{LINK_OUTPUT_BYTES_MAX, LINK_WINDOW_BYTES};
use loopd_protocol::link::{Event, Link, LinkError, Nonce, Side, StreamId, StreamKind, Token};
use std::collections::BTreeMap;

const NONCE: Nonce = Nonce([1; 16]);

pub fn target(data: &[u8]) {
    for side in [Side::Host, Side::Guest] {
        let whole = told(side, &[data]);
        for cut in [pieces::cut(data), pieces::single(data)] {
            // Where the guest finds a reset, what came before it is void, and more of it is told the later that shows.
            let resets = |told: &Told| told.resets;
            if resets(&whole) == 0 {
                assert_eq!(told(side, &cut), whole, "in pieces it says something else");
            } else {
                assert!(resets(&told(side, &cut)) >= resets(&whole), "a reset is not found in pieces");
            }
        }
    }
}

#[derive(Debug, Default, PartialEq)]
struct Told {
    events: Vec<Event>,
    fault: Option<LinkError>,
    resets: usize,
}

fn told(side: Side, pieces: &[&[u8]]) -> Told {
    let (mut link, mut told) = (up(side), Told::default());
    let mut untaken = BTreeMap::<StreamId, usize>::new();
    for piece in pieces {
        link.push(piece);
        loop {
            match link.next() {
                Ok(Some(event)) => {
                    match &event {
                        Event::Data { id, bytes } => {
                            let untaken = untaken.entry(*id).or_default();
                            *untaken += bytes.len();
                            assert!(*untaken <= LINK_WINDOW_BYTES as usize, "more than credit");
                        }
                        Event::Reset { .. } => {
                            untaken.clear();
                            told.resets += 1;
                        }
                        Event::Opened { .. } | Event::Ended { .. } | Event::Aborted { .. } | Event::Writable { .. } => {
                        }
                    }
                    told.events.push(event);
                }
                Ok(None) => break,
                Err(fault) => told.fault = told.fault.or(Some(fault)),
            }
        }
        assert!(link.output().len() <= LINK_OUTPUT_BYTES_MAX, "output grows");
    }
    renew(&mut link, side);
    told
}

/// One end, with a stream that it has opened itself.
fn up(side: Side) -> Link {
    let mut link = Link::new(side);
    renew(&mut link, side);
    let kind = if side == Side::Host { StreamKind::Control } else { StreamKind::Outlet };
    let id = link.open(kind).expect("the link is up and empty");
    assert_eq!(link.write(id, b"hello"), 5);
    link.sent(usize::MAX);
    link
}

/// A reset, and the answer to it.
fn renew(link: &mut Link, side: Side) {
    let mut other = Link::new(if side == Side::Host { Side::Guest } else { Side::Host });
    let (host, guest) = if side == Side::Host { (&mut *link, &mut other) } else { (&mut other, &mut *link) };
    host.reset(&Token::UNBOUND, NONCE);
    pass(host, guest);
    pass(guest, host);
    assert!(link.is_up() && other.is_up(), "no reset helps");
    link.open(if side == Side::Host { StreamKind::Cell } else { StreamKind::Outlet }).expect("it is as good as new");
}

fn pass(from: &mut Link, to: &mut Link) {
    to.push(from.output());
    from.sent(usize::MAX);
    let mut last = None;
    loop {
        match to.next() {
            Ok(Some(event)) => last = Some(event),
            Ok(None) => break,
            Err(_) => {}
        }
    }
    assert_eq!(last, Some(Event::Reset { nonce: NONCE }));
}
