//! Time and ids as arguments: the two ports through which the outside world's clock and randomness come in.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A moment: microseconds since the Unix epoch, UTC. On the wire RFC 3339 with six decimals and `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn from_millis(ms: i64) -> Self {
        Timestamp(ms.saturating_mul(1_000))
    }
    pub fn micros(self) -> i64 {
        self.0
    }
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }
    pub fn plus_ms(self, ms: u64) -> Self {
        Timestamp(self.0.saturating_add((ms as i64).saturating_mul(1_000)))
    }
    /// Milliseconds from `earlier` to `self`; 0 when the clock went backwards.
    pub fn since_ms(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0).max(0) as u64 / 1_000
    }
    /// Reads RFC 3339 (`2026-11-23T20:06:00Z`, any offset, any number of decimals).
    pub fn parse(text: &str) -> Option<Self> {
        chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| Timestamp(t.timestamp_micros()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_micros(self.0) {
            Some(t) => f.write_str(&t.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)),
            None => write!(f, "invalid-timestamp({})", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Timestamp::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an RFC 3339 time")))
    }
}

/// Where "now" comes from. One real implementation, in the composition root; tests have their own.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// Where unpredictable ids come from. Implementations must never repeat a value.
pub trait IdSource: Send + Sync {
    /// 128 bits: 48 of milliseconds since the epoch, then 80 of randomness (a ULID). Sorts by time of creation.
    fn ulid(&self) -> u128;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trip() {
        let t = Timestamp::parse("2026-11-23T20:06:00.123456+02:00").expect("valid");
        assert_eq!(t.to_string(), "2026-11-23T18:06:00.123456Z");
        assert_eq!(Timestamp::parse(&t.to_string()), Some(t));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn a_clock_that_goes_back_gives_zero() {
        assert_eq!(Timestamp(5_000).since_ms(Timestamp(9_000)), 0);
        assert_eq!(Timestamp(9_000).since_ms(Timestamp(5_000)), 4);
    }
}
