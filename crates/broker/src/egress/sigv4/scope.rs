//! What a signing key is good for: a day, a region, a service.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    day: String,
    pub(super) region: String,
    pub(super) service: String,
}

impl Scope {
    /// `20260102/eu-west-1/s3/aws4_request`
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [day, region, service, "aws4_request"] = parts[..] else { return None };
        let is_day = day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit());
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
        (is_day && is_word(region) && is_word(service)).then(|| Scope {
            day: day.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
        })
    }

    pub(super) fn day(&self) -> &str {
        &self.day
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/aws4_request", self.day, self.region, self.service)
    }
}
