//! What well-known models cost, so that a cost can be told without any configuration.
//!
//! List prices of 2026-11-23, standard tier, from platform.claude.com/docs/en/about-claude/pricing and
//! developers.openai.com/api/docs/pricing. Models whose price depends on the length of the prompt (Claude Haiku 5.5, GPT-5.4
//! and 5.5 above their smaller siblings, GPT-6.x) are left out on purpose: an unknown cost is told as unknown, a wrong one is
//! believed. An operator adds or replaces prices in the configuration.

use loopd_domain::usage::Price;

/// Full id, then millionths of a US dollar for a million tokens: input, output, cache read, cache write (five minutes).
const TABLE: &[(&str, [u64; 4])] = &[
    ("anthropic/claude-fable-5-1", [10_000_000, 50_000_000, 250_000, 12_500_000]),
    ("anthropic/claude-fable-5", [10_000_000, 50_000_000, 1_000_000, 12_500_000]),
    ("anthropic/claude-opus-5-5", [4_000_000, 20_000_000, 200_000, 5_000_000]),
    ("anthropic/claude-opus-5", [5_000_000, 25_000_000, 500_000, 6_250_000]),
    ("anthropic/claude-opus-4-8", [5_000_000, 25_000_000, 500_000, 6_250_000]),
    ("anthropic/claude-opus-4-7", [5_000_000, 25_000_000, 500_000, 6_250_000]),
    ("anthropic/claude-opus-4-6", [5_000_000, 25_000_000, 500_000, 6_250_000]),
    ("anthropic/claude-opus-4-5", [5_000_000, 25_000_000, 500_000, 6_250_000]),
    ("anthropic/claude-sonnet-5-5", [2_000_000, 10_000_000, 100_000, 2_500_000]),
    ("anthropic/claude-sonnet-5", [2_000_000, 10_000_000, 200_000, 2_500_000]),
    ("anthropic/claude-sonnet-4-6", [3_000_000, 15_000_000, 300_000, 3_750_000]),
    ("anthropic/claude-haiku-4-5", [1_000_000, 5_000_000, 100_000, 1_250_000]),
    // A written cache costs what input costs.
    ("openai/gpt-5", [1_250_000, 10_000_000, 125_000, 1_250_000]),
    ("openai/gpt-5-mini", [250_000, 2_000_000, 25_000, 250_000]),
    ("openai/gpt-4.1", [2_000_000, 8_000_000, 500_000, 2_000_000]),
    ("openai/gpt-4.1-mini", [400_000, 1_600_000, 100_000, 400_000]),
    ("openai/gpt-4o", [2_500_000, 10_000_000, 1_250_000, 2_500_000]),
];

pub(crate) fn built_in() -> impl Iterator<Item = (&'static str, Price)> {
    TABLE.iter().map(|(id, [input, output, cache_read, cache_write])| {
        (*id, Price { input: *input, output: *output, cache_read: *cache_read, cache_write: *cache_write })
    })
}

/// The id without the date that names a snapshot: `-20251101`, or `-2025-04-14`.
pub(crate) fn without_date(id: &str) -> &str {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((rest, last)) = id.rsplit_once('-') else { return id };
    if last.len() == 8 && digits(last) {
        return rest;
    }
    let mut parts = id.rsplitn(4, '-');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(day), Some(month), Some(year), Some(rest))
            if (day.len(), month.len(), year.len()) == (2, 2, 4) && digits(day) && digits(month) && digits(year) =>
        {
            rest
        }
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_not_part_of_a_price() {
        assert_eq!(without_date("anthropic/claude-opus-4-5-20251101"), "anthropic/claude-opus-4-5");
        assert_eq!(without_date("openai/gpt-4.1-2025-04-14"), "openai/gpt-4.1");
        for id in ["anthropic/claude-opus-4-5", "openai/gpt-5", "ollama/x", "a/b-20-10-1"] {
            assert_eq!(without_date(id), id);
        }
    }

    #[test]
    fn prices_are_sane() {
        for (id, price) in built_in() {
            assert!(
                price.cache_read < price.input && price.input < price.output && price.cache_write >= price.input,
                "{id}"
            );
        }
        let mini = built_in().find(|(id, _)| *id == "openai/gpt-5-mini").expect("known").1;
        assert_eq!(mini.cache_read, 25_000);
    }
}
