//! Tokens, money and time as clients see them.

use loopd_domain::usage::{MicroUsd, Usage};
use serde_json::{Value, json};

/// Millionths of a dollar in a cent.
const MICROS_PER_CENT: u64 = 10_000;

/// Totals of a session. `list_cost` is whole cents, rounded up, as the wire has it; `cost_micro_usd` is ours and exact.
pub fn write_totals(usage: &Usage, cost: Option<MicroUsd>, active_ms: u64) -> Value {
    let hour = usage.cache_creation_1h_input_tokens;
    json!({
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_creation_input_tokens.saturating_sub(hour),
            "ephemeral_1h_input_tokens": hour,
        },
        "list_cost": cost.map(|c| json!({"amount": c.0.div_ceil(MICROS_PER_CENT).to_string(), "currency": "USD"})),
        "active_seconds": seconds(active_ms),
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_micro_usd": cost,
    })
}

/// Tokens of one model request.
pub fn write_request(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "speed": "standard",
    })
}

pub fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_writes_are_split_and_cents_rounded_up() {
        let usage = Usage { cache_creation_input_tokens: 10, cache_creation_1h_input_tokens: 4, ..Usage::default() };
        let wire = write_totals(&usage, Some(MicroUsd(10_001)), 1_500);
        assert_eq!(wire["cache_creation"], json!({"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 4}));
        assert_eq!(wire["list_cost"], json!({"amount": "2", "currency": "USD"}));
        assert_eq!((&wire["active_seconds"], &wire["cost_micro_usd"]), (&json!(1.5), &json!(10_001)));
        assert_eq!(write_totals(&usage, None, 0)["list_cost"], Value::Null);
    }
}
