//! In a body that passes through in pieces: found across their borders, and nothing else is held back.

use aho_corasick::{AhoCorasick, MatchKind};
use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

/// What is looked for, and what comes in its place; `None`: it must not pass.
pub(crate) struct Pattern<T> {
    pub(crate) find: Zeroizing<Vec<u8>>,
    pub(crate) replace: Option<Zeroizing<Vec<u8>>>,
    pub(crate) tag: T,
}

/// What comes out, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Bytes),
    /// The pattern of this number was found here.
    Found(usize),
}

pub(crate) struct Replacer<T> {
    patterns: Vec<Pattern<T>>,
    finder: AhoCorasick,
    /// The beginning of what may become a pattern.
    held: BytesMut,
    longest: usize,
}

impl<T> Replacer<T> {
    /// `None` when there is nothing to look for.
    pub(crate) fn new(patterns: Vec<Pattern<T>>) -> Option<Self> {
        let patterns: Vec<Pattern<T>> = patterns.into_iter().filter(|pattern| !pattern.find.is_empty()).collect();
        let longest = patterns.iter().map(|pattern| pattern.find.len()).max()?;
        let finds = patterns.iter().map(|pattern| pattern.find.as_slice());
        // It fails for more patterns than fit into its numbers: some gigabytes of them.
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(finds).ok()?;
        Some(Replacer { patterns, finder, held: BytesMut::new(), longest })
    }

    pub(crate) fn pattern(&self, number: usize) -> &Pattern<T> {
        &self.patterns[number]
    }

    /// Does what comes out have the length of what goes in?
    pub(crate) fn keeps_length(&self) -> bool {
        let same = |p: &Pattern<T>| p.replace.as_ref().is_none_or(|by| by.len() == p.find.len());
        self.patterns.iter().all(same)
    }

    pub(crate) fn feed(&mut self, chunk: Bytes) -> Vec<Piece> {
        if self.held.is_empty() && self.finder.find(&chunk).is_none() && self.border(&chunk, 0) == chunk.len() {
            return vec![Piece::Bytes(chunk)];
        }
        self.held.extend_from_slice(&chunk);
        self.take(false)
    }

    /// What was held back, at the end.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        self.take(true)
    }

    fn take(&mut self, is_last: bool) -> Vec<Piece> {
        let bytes = self.held.split().freeze();
        let mut pieces = Vec::new();
        let mut at = 0;
        let mut border = if is_last { bytes.len() } else { self.border(&bytes, 0) };
        while let Some(found) = self.finder.find(&bytes[at..]) {
            let (start, end) = (at + found.start(), at + found.end());
            if start >= border {
                break;
            }
            if start > at {
                pieces.push(Piece::Bytes(bytes.slice(at..start)));
            }
            let number = found.pattern().as_usize();
            pieces.push(Piece::Found(number));
            if let Some(by) = self.patterns[number].replace.as_ref().filter(|by| !by.is_empty()) {
                pieces.push(Piece::Bytes(Bytes::copy_from_slice(by)));
            }
            at = end;
            if border < at {
                border = if is_last { bytes.len() } else { self.border(&bytes, at) };
            }
        }
        if border > at {
            pieces.push(Piece::Bytes(bytes.slice(at..border)));
        }
        self.held.extend_from_slice(&bytes[border.max(at)..]);
        pieces
    }

    /// The first place from `from` on where what remains is the beginning of a longer pattern.
    fn border(&self, bytes: &[u8], from: usize) -> usize {
        let first = from.max(bytes.len().saturating_sub(self.longest.saturating_sub(1)));
        let may_grow = |at: &usize| {
            let rest = &bytes[*at..];
            self.patterns.iter().any(|pattern| pattern.find.len() > rest.len() && pattern.find.starts_with(rest))
        };
        (first..bytes.len()).find(may_grow).unwrap_or(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replacer(patterns: &[(&str, Option<&str>)]) -> Replacer<()> {
        let made = patterns.iter().map(|(find, by)| Pattern {
            find: Zeroizing::new(find.as_bytes().to_vec()),
            replace: by.map(|by| Zeroizing::new(by.as_bytes().to_vec())),
            tag: (),
        });
        Replacer::new(made.collect()).expect("patterns")
    }

    fn text(pieces: &[Piece]) -> String {
        let bytes = pieces.iter().filter_map(|piece| match piece {
            Piece::Bytes(bytes) => Some(bytes.as_ref()),
            Piece::Found(_) => None,
        });
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>().concat()).into_owned()
    }

    #[test]
    fn across_the_border_of_two_chunks() {
        let mut replacer = replacer(&[("PLACEHOLDER", Some("s"))]);
        assert_eq!(text(&replacer.feed(Bytes::from("x=PLACE"))), "x=");
        assert_eq!(text(&replacer.feed(Bytes::from("HOLD"))), "");
        assert_eq!(text(&replacer.feed(Bytes::from("ER&y=PL"))), "s&y=");
        assert_eq!(text(&replacer.feed(Bytes::from("AIN"))), "PLAIN");
        assert_eq!(text(&replacer.feed(Bytes::from("PLACE"))), "");
        assert_eq!(text(&replacer.finish()), "PLACE");
    }

    #[test]
    fn what_cannot_become_a_pattern_passes_at_once() {
        let mut replacer = replacer(&[("PLACEHOLDER", Some("s"))]);
        assert_eq!(text(&replacer.feed(Bytes::from("data: 1\n\n"))), "data: 1\n\n");
        assert_eq!(text(&replacer.feed(Bytes::from("data: PLACEHOLDER\n\n"))), "data: s\n\n");
    }

    #[test]
    fn what_must_not_pass_is_told_and_left_out() {
        let mut replacer = replacer(&[("GOOD", Some("s")), ("EVIL", None)]);
        let pieces = replacer.feed(Bytes::from("aGOODbEVILc"));
        let expected = [
            Piece::Bytes("a".into()),
            Piece::Found(0),
            Piece::Bytes("s".into()),
            Piece::Bytes("b".into()),
            Piece::Found(1),
        ];
        assert_eq!(&pieces[..5], &expected);
    }

    #[test]
    fn the_longer_of_two_patterns_wins_wherever_it_is_cut() {
        for cut in 0..=6 {
            let mut replacer = replacer(&[("abc", Some("1")), ("abcdef", Some("2")), ("bcd", Some("3"))]);
            let (a, b) = "abcdef".split_at(cut);
            let mut made = text(&replacer.feed(Bytes::copy_from_slice(a.as_bytes())));
            made += &text(&replacer.feed(Bytes::copy_from_slice(b.as_bytes())));
            made += &text(&replacer.finish());
            assert_eq!(made, "2", "{cut}");
        }
    }

    proptest! {
        /// However a body is cut, it comes out as if it had come whole.
        #[test]
        fn cuts_do_not_matter(parts in proptest::collection::vec("[ab]{0,6}", 0..12)) {
            let patterns = [("aab", Some("X")), ("ba", Some("")), ("aabb", Some("YYYYY")), ("bbbb", Some("Z"))];
            let whole: String = parts.concat();
            let mut one = replacer(&patterns);
            let mut expected = text(&one.feed(Bytes::from(whole)));
            expected += &text(&one.finish());
            let mut many = replacer(&patterns);
            let mut made = String::new();
            for part in parts {
                made += &text(&many.feed(Bytes::from(part)));
                prop_assert!(many.held.len() < many.longest);
            }
            made += &text(&many.finish());
            prop_assert_eq!(made, expected);
        }
    }
}
