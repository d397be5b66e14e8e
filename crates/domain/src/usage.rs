//! Tokens and money, as the host measured them.

use serde::{Deserialize, Serialize};

/// Tokens of one model call, or of many added up. `input_tokens` excludes what the cache read or wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_input_tokens: u64,
    pub cache_creation_input_tokens: u64,
    /// Part of `cache_creation_input_tokens` that lives for an hour; the rest lives for five minutes.
    #[serde(default)]
    pub cache_creation_1h_input_tokens: u64,
    /// Part of `output_tokens` that was spent on reasoning, where the provider says so.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

impl Usage {
    pub fn add(&mut self, other: &Usage) {
        let pairs = [
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.cache_read_input_tokens, other.cache_read_input_tokens),
            (&mut self.cache_creation_input_tokens, other.cache_creation_input_tokens),
            (&mut self.cache_creation_1h_input_tokens, other.cache_creation_1h_input_tokens),
            (&mut self.reasoning_tokens, other.reasoning_tokens),
        ];
        for (total, more) in pairs {
            *total = total.saturating_add(more);
        }
    }
}

/// Money in millionths of a US dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

/// List price of a model, in millionths of a US dollar for a million tokens of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
}

impl Price {
    pub fn of(&self, usage: &Usage) -> MicroUsd {
        let parts = [
            (usage.input_tokens, self.input),
            (usage.output_tokens, self.output),
            (usage.cache_read_input_tokens, self.cache_read),
            (usage.cache_creation_input_tokens, self.cache_write),
        ];
        let millionths: u128 = parts.iter().map(|(n, price)| u128::from(*n) * u128::from(*price)).sum();
        MicroUsd(u64::try_from(millionths.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_dollars_a_million() {
        let price = Price { input: 3_000_000, output: 15_000_000, cache_read: 300_000, cache_write: 3_750_000 };
        let usage =
            Usage { input_tokens: 1_000, output_tokens: 100, cache_read_input_tokens: 10_000, ..Usage::default() };
        assert_eq!(price.of(&usage), MicroUsd(3_000 + 1_500 + 3_000));
    }
}
