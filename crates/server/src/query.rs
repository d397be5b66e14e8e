//! The query string: lists come as `types[]=a&types[]=b` (brackets raw or percent-encoded) or as `types=a&types=b`.

use crate::error::ApiError;
use crate::nearest::nearest;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use loopd_domain::limits::{PAGE_ROWS_MAX, QUERY_VALUES_MAX};
use loopd_domain::{Invalid, Timestamp};
use loopd_store::TimeRange;
use url::form_urlencoded;

/// Parameters that old clients add to every request; they mean nothing here.
const TOLERATED: [&str; 1] = ["beta"];
/// Parameters of one query.
const PAIRS_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Query::parse(parts.uri.query().unwrap_or(""))?)
    }
}

impl Query {
    pub fn parse(raw: &str) -> Result<Self, Invalid> {
        let mut pairs = Vec::new();
        for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
            if pairs.len() == PAIRS_MAX {
                return Err(Invalid::new("query", "longer", format!("up to {PAIRS_MAX} parameters")));
            }
            let name = name.strip_suffix("[]").unwrap_or(&name);
            if !TOLERATED.contains(&name) {
                pairs.push((name.to_owned(), value.into_owned()));
            }
        }
        Ok(Query { pairs })
    }

    /// Refuses every parameter but these: a filter that is mistyped must not be a filter that is not there.
    pub fn only(self, known: &[&str]) -> Result<Self, Invalid> {
        match self.pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(self),
            Some((name, value)) => {
                let accepted = match nearest(name, known.iter().copied()) {
                    Some(meant) => format!("no parameter of this name; did you mean `{meant}`?"),
                    None if known.is_empty() => "no query parameters here".to_owned(),
                    None => format!("no parameter of this name; known are `{}`", known.join("`, `")),
                };
                Err(Invalid::new(name, value, accepted))
            }
        }
    }

    /// A parameter that stands once; empty counts as absent.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Invalid> {
        let mut found = self.pairs.iter().filter(|(n, v)| n == name && !v.is_empty());
        let first = found.next().map(|(_, v)| v.as_str());
        match found.next() {
            Some((_, second)) => Err(Invalid::new(name, second, "one value, not several")),
            None => Ok(first),
        }
    }

    pub fn many(&self, name: &str) -> Result<Vec<&str>, Invalid> {
        let found: Vec<&str> = self.pairs.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        match found.len() <= QUERY_VALUES_MAX {
            true => Ok(found),
            false => Err(Invalid::new(name, format!("{} values", found.len()), format!("up to {QUERY_VALUES_MAX}"))),
        }
    }

    pub fn integer(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Invalid> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|n| range.contains(n));
        let refused = || Invalid::new(name, text, format!("an integer from {} to {}", range.start(), range.end()));
        number.map(Some).ok_or_else(refused)
    }

    pub fn limit(&self, default: usize, max: usize) -> Result<usize, Invalid> {
        debug_assert!(max <= PAGE_ROWS_MAX, "a page has a maximum");
        Ok(self.integer("limit", 1..=max as u64)?.map_or(default, |n| n as usize))
    }

    pub fn boolean(&self, name: &str) -> Result<bool, Invalid> {
        match self.one(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Invalid::new(name, other, "`true` or `false`")),
        }
    }

    /// True for `asc`.
    pub fn ascending(&self, default: bool) -> Result<bool, Invalid> {
        match self.one("order")? {
            None => Ok(default),
            Some("asc") => Ok(true),
            Some("desc") => Ok(false),
            Some(other) => Err(Invalid::new("order", other, "`asc` or `desc`")),
        }
    }

    /// `created_at[gt]`, `[gte]`, `[lt]`, `[lte]`.
    pub fn created(&self) -> Result<TimeRange, Invalid> {
        let bound = |name: &str| match self.one(name)? {
            None => Ok(None),
            Some(text) => {
                // A `+` of an offset that was not percent-encoded arrives as a space.
                let time = Timestamp::parse(text).or_else(|| Timestamp::parse(&text.replace(' ', "+")));
                let refused = || Invalid::new(name, text, "an RFC 3339 time such as `2026-11-23T20:06:00Z`");
                time.map(Some).ok_or_else(refused)
            }
        };
        Ok(TimeRange {
            gt: bound("created_at[gt]")?,
            gte: bound("created_at[gte]")?,
            lt: bound("created_at[lt]")?,
            lte: bound("created_at[lte]")?,
        })
    }
}

/// The four parameters that [`Query::created`] reads.
pub const CREATED: [&str; 4] = ["created_at[gt]", "created_at[gte]", "created_at[lt]", "created_at[lte]"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_every_spelling() {
        for raw in
            ["types[]=a&types[]=b", "types%5B%5D=a&types%5B%5D=b", "types=a&types=b", "types[]=a&beta=true&types=b"]
        {
            let query = Query::parse(raw).and_then(|q| q.only(&["types"])).expect(raw);
            assert_eq!(query.many("types").expect("few"), ["a", "b"], "{raw}");
        }
    }

    #[test]
    fn times_with_encoded_brackets_and_offsets() {
        let query = Query::parse(
            "created_at%5Bgte%5D=2026-11-23T20%3A06%3A00%2B02%3A00&created_at[lt]=2026-11-23T20:06:00+00:00",
        );
        let range = query.and_then(|q| q.created()).expect("valid");
        assert_eq!(range.gte.expect("given").to_string(), "2026-11-23T18:06:00.000000Z");
        assert_eq!(range.lt.expect("given").to_string(), "2026-11-23T20:06:00.000000Z");
        assert!(Query::parse("created_at[gt]=yesterday").and_then(|q| q.created()).is_err());
    }

    #[test]
    fn refusals_name_what_is_accepted() {
        let fault = Query::parse("limt=3").and_then(|q| q.only(&["limit", "page"])).expect_err("typo");
        assert!(fault.to_string().contains("did you mean `limit`"), "{fault}");
        for bad in ["limit=0", "limit=101", "limit=x", "limit=1&limit=2"] {
            assert!(Query::parse(bad).and_then(|q| q.limit(20, 100)).is_err(), "{bad}");
        }
        let many = (0..101).map(|i| format!("t[]={i}")).collect::<Vec<_>>().join("&");
        assert!(Query::parse(&many).and_then(|q| q.many("t").map(|t| t.len())).is_err());
    }
}
