//! Effort in the words of the Messages wire, which changed with the models.

use crate::provider::ModelRequest;
use loopd_domain::agent::Effort;
use serde_json::{Value, json};

/// Effort as the model takes it: adaptive thinking since 4.6, a token budget before.
pub(super) fn fields(request: &ModelRequest, effort: Effort) -> Vec<(&'static str, Value)> {
    if thinks_adaptively(&request.name) {
        return vec![("thinking", json!({"type": "adaptive"})), ("output_config", json!({"effort": effort}))];
    }
    // The budget must be at least 1,024 and leave room for the answer within `max_tokens`.
    let share = match effort {
        Effort::Low => request.max_tokens / 8,
        Effort::Medium => request.max_tokens / 4,
        Effort::High => request.max_tokens / 2,
        Effort::Xhigh | Effort::Max => request.max_tokens / 4 * 3,
    };
    match request.max_tokens > 1_024 {
        true => vec![("thinking", json!({"type": "enabled", "budget_tokens": share.max(1_024)}))],
        false => Vec::new(),
    }
}

/// Reads the version out of `claude-<family>-<major>[-<minor>][-<date>]` or `claude-<major>-<minor>-<family>…`.
/// A name without a version is taken for a new model.
fn thinks_adaptively(name: &str) -> bool {
    let numbers: Vec<u32> =
        name.split('-').filter(|part| part.len() < 8).filter_map(|part| part.parse().ok()).collect();
    match numbers.as_slice() {
        [] => true,
        [major] => *major >= 5,
        [major, minor, ..] => (*major, *minor) >= (4, 6),
    }
}

#[cfg(test)]
mod tests {
    use super::thinks_adaptively;

    #[test]
    fn adaptive_thinking_came_with_4_6() {
        for name in
            ["claude-opus-4-6", "claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5-1", "claude-mythos-preview"]
        {
            assert!(thinks_adaptively(name), "{name}");
        }
        for name in
            ["claude-haiku-4-5-20251001", "claude-opus-4-5", "claude-3-7-sonnet-20250219", "claude-sonnet-4-20250514"]
        {
            assert!(!thinks_adaptively(name), "{name}");
        }
    }
}
