//! Masking: what must not be read any more is replaced in what comes back, before anybody reads it.
//!
//! A text without a secret costs one fast search for each form, and is not copied.

use super::forms;
use crate::placeholders::Mask;
use crate::secret::Secret;
use memchr::memmem;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// The secrets of one session, in all forms that are looked for.
#[derive(Default)]
pub struct Masking {
    patterns: Vec<Pattern>,
}

struct Pattern {
    form: Secret,
    placeholder: Arc<str>,
    /// How far the next occurrence can be from this one, at least.
    period: usize,
}

/// A stretch of a text that goes.
struct Found<'a> {
    at: Range<usize>,
    /// The longest pattern in it.
    pattern: &'a Pattern,
}

impl std::fmt::Debug for Masking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masking({} forms)", self.patterns.len())
    }
}

impl Masking {
    /// Of secrets and what stands in their place.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a Secret, &'a str)>) -> Self {
        let mut patterns = Vec::new();
        for (secret, placeholder) in secrets {
            let placeholder: Arc<str> = placeholder.into();
            let of = |form: Secret| Pattern { period: period(form.reveal()), form, placeholder: placeholder.clone() };
            patterns.extend(forms::of(secret).into_iter().map(of));
        }
        Masking { patterns }
    }

    /// Stretches in order, none touching the next.
    fn find(&self, text: &[u8]) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for pattern in &self.patterns {
            let (form, mut from) = (pattern.form.reveal(), 0);
            let finder = memmem::Finder::new(form);
            while let Some(place) = text.get(from..).and_then(|rest| finder.find(rest)) {
                let start = from + place;
                found.push(Found { at: start..start + form.len(), pattern });
                from = start + pattern.period;
            }
        }
        found.sort_by_key(|f| f.at.start);
        let mut joined: Vec<Found<'_>> = Vec::new();
        for next in found {
            match joined.last_mut() {
                Some(last) if next.at.start < last.at.end => {
                    last.at.end = last.at.end.max(next.at.end);
                    if next.pattern.form.reveal().len() > last.pattern.form.reveal().len() {
                        last.pattern = next.pattern;
                    }
                }
                _ => joined.push(next),
            }
        }
        joined
    }
}

impl Mask for Masking {
    /// Where secrets overlap, the longest one's placeholder stands.
    fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let found = self.find(text.as_bytes());
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut masked = String::with_capacity(text.len());
        let mut from = 0;
        for Found { at, pattern } in found {
            // A secret is a text, and so are its forms: what is cut here is cut between letters.
            masked.push_str(text.get(from..at.start).unwrap_or_default());
            masked.push_str(&pattern.placeholder);
            from = at.end;
        }
        masked.push_str(text.get(from..).unwrap_or_default());
        Cow::Owned(masked)
    }

    fn longest(&self) -> usize {
        self.patterns.iter().map(|pattern| pattern.form.reveal().len()).max().unwrap_or(0)
    }
}

/// The shortest distance at which a form can overlap itself.
fn period(form: &[u8]) -> usize {
    // Knuth, Morris and Pratt: the longest beginning that is also an end, for each length.
    let mut borders = vec![0usize; form.len()];
    let mut length = 0;
    for end in 1..form.len() {
        while length > 0 && form[end] != form[length] {
            length = borders[length - 1];
        }
        if form[end] == form[length] {
            length += 1;
        }
        borders[end] = length;
    }
    form.len() - borders.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    fn mask(pairs: &[(&str, &str)]) -> Masking {
        let secrets: Vec<(Secret, &str)> = pairs.iter().map(|(s, p)| (secret(s), *p)).collect();
        Masking::new(secrets.iter().map(|(s, p)| (s, *p)))
    }

    #[test]
    fn a_text_without_secrets_is_not_copied() {
        let mask = mask(&[("hunter2hunter2", "PLACE")]);
        assert!(matches!(mask.text("nothing here, hunter2 alone is not it"), Cow::Borrowed(_)));
        assert!(matches!(Masking::default().text("x"), Cow::Borrowed("x")));
    }

    #[test]
    fn every_occurrence_goes() {
        let mask = mask(&[("s3cr3t-token", "PLACE")]);
        assert_eq!(mask.text("s3cr3t-token, ☂s3cr3t-token☂s3cr3t-tokens3cr3t-token."), "PLACE, ☂PLACE☂PLACEPLACE.");
        let mask = self::mask(&[("p\"ass word", "PLACE")]);
        assert_eq!(
            mask.text(r#"{"echo": "p\"ass word"} p%22ass+word p%22ass%20word"#),
            r#"{"echo": "PLACE"} PLACE PLACE"#
        );
    }

    #[test]
    fn of_secrets_that_overlap_nothing_is_left() {
        let mask = mask(&[("abcdefghij", "ONE"), ("efghijklmnop", "TWO"), ("xxabcdefghijyy", "THREE")]);
        assert_eq!(mask.text("<abcdefghijklmnop>"), "<TWO>");
        assert_eq!(mask.text("<xxabcdefghijyy>"), "<THREE>");
        let mask = self::mask(&[("abababababab", "SELF")]);
        assert_eq!(mask.text("-abababababababab-"), "-SELF-");
        let mask = self::mask(&[("aaaaaaaa", "SELF")]);
        assert_eq!(mask.text(&"a".repeat(100)), "SELF");
    }

    #[test]
    fn basic_authentication_is_seen_through() {
        use base64::Engine;
        let header = base64::engine::general_purpose::STANDARD.encode("me:s3cr3t-token");
        let masked = mask(&[("s3cr3t-token", "PLACE")]).text(&header).into_owned();
        assert!(masked.contains("PLACE") && !masked.contains(&header[6..]), "{masked}");
    }

    #[test]
    fn periods() {
        for (text, wanted) in [("abcd", 4), ("abab", 2), ("aaaa", 1), ("abcab", 3), ("a", 1)] {
            assert_eq!(period(text.as_bytes()), wanted, "{text}");
        }
    }
}
