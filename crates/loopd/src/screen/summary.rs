//! The one line that a turn comes to.

use super::text::money;
use serde_json::Value;

/// `end_turn · 2 steps · 120 in, 40 out tokens · $0.0012`, from the result of a turn.
pub fn summary_line(result: &Value) -> String {
    let mut facts = vec![stop_words(result)];
    facts.extend(result["steps"].as_u64().map(|n| format!("{n} step{}", if n == 1 { "" } else { "s" })));
    let tokens = |field: &str| result["usage"][field].as_u64();
    if let (Some(input), Some(output)) = (tokens("input_tokens"), tokens("output_tokens")) {
        let cached = tokens("cache_read_input_tokens").filter(|n| *n > 0).map(|n| format!(" (+{n} cached)"));
        facts.push(format!("{input}{} in, {output} out tokens", cached.unwrap_or_default()));
    }
    facts.push(money(&result["cost"]).unwrap_or_else(|| "cost unknown".to_owned()));
    facts.join(" · ")
}

fn stop_words(result: &Value) -> String {
    // A turn that was interrupted ends as every other one, for its stop reason.
    if result["status"] == "interrupted" {
        return "interrupted".to_owned();
    }
    let reason = &result["stop_reason"];
    let kind = reason["type"].as_str().or_else(|| result["status"].as_str()).unwrap_or("no stop reason");
    match reason["limit"].as_str() {
        Some(limit) => format!("{kind} ({limit})"),
        None => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_summary_says_what_is_known() {
        let result = json!({"status": "idle", "stop_reason": {"type": "limit_reached", "limit": "steps"}, "steps": 1,
                            "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3}, "cost": null});
        assert_eq!(
            summary_line(&result),
            "limit_reached (steps) · 1 step · 10 (+3 cached) in, 5 out tokens · cost unknown"
        );
        let result = json!({"status": "interrupted", "stop_reason": {"type": "end_turn"}, "steps": 2, "cost": null});
        assert_eq!(summary_line(&result), "interrupted · 2 steps · cost unknown");
    }
}
