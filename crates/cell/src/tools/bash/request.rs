//! What a call of `bash` asks for.

use crate::limits::{BASH_TIMEOUT_MS_DEFAULT, BASH_TIMEOUT_MS_MAX};
use crate::tools::fields::Fields;
use loopd_domain::Invalid;
use serde_json::Value;
use std::time::Duration;

#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Start a fresh shell first.
    pub restart: bool,
    /// `None` only when `restart` is all that is wanted.
    pub command: Option<String>,
    pub timeout: Duration,
}

impl Request {
    pub fn parse(input: &Value) -> Result<Self, Invalid> {
        let fields = Fields::of(input)?;
        let restart = fields.optional_bool("restart")?.unwrap_or(false);
        let command = fields.optional_text("command")?;
        let timeout_ms = fields.optional_integer("timeout_ms")?.unwrap_or(BASH_TIMEOUT_MS_DEFAULT as i64);
        let accepted = || format!("an integer from 1 to {BASH_TIMEOUT_MS_MAX}, in milliseconds");
        let timeout_ms = u64::try_from(timeout_ms).ok().filter(|ms| (1..=BASH_TIMEOUT_MS_MAX).contains(ms));
        let timeout_ms = timeout_ms.ok_or_else(|| Invalid::new("timeout_ms", &input["timeout_ms"], accepted()))?;
        match &command {
            None if !restart => return Err(Invalid::missing("command", "a command, or `restart`: true")),
            Some(text) if text.contains('\0') => {
                let accepted = "text without a NUL character, which no shell can take; write it as `\\0` for printf";
                return Err(Invalid::new("command", text.replace('\0', "␀"), accepted));
            }
            _ => {}
        }
        Ok(Request { restart, command, timeout: Duration::from_millis(timeout_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn says_what_is_wrong() {
        let fault = |input| Request::parse(&input).expect_err("invalid").to_string();
        assert_eq!(fault(json!({})), "`command` is missing or empty; accepted: a command, or `restart`: true");
        assert_eq!(fault(json!({"command": 7})), "`command` is `7`; accepted: a string");
        assert_eq!(fault(json!({"command": "x", "restart": "yes"})), "`restart` is `\"yes\"`; accepted: true or false");
        assert!(fault(json!({"command": "a\u{0}b"})).starts_with("`command` is `a␀b`; accepted: text without a NUL"));
        for bad in [json!(0), json!(-5), json!(3_600_001), json!(1.5), json!("10")] {
            let text = fault(json!({"command": "x", "timeout_ms": bad}));
            assert!(text.starts_with(&format!("`timeout_ms` is `{bad}`; accepted: an integer")), "{text}");
        }
        assert_eq!(fault(json!([1])), "`input` is `[1]`; accepted: an object");
    }

    #[test]
    fn null_is_absent() {
        let request = Request::parse(&json!({"command": "true", "restart": null, "timeout_ms": null}));
        let expected = Request { restart: false, command: Some("true".into()), timeout: Duration::from_secs(120) };
        assert_eq!(request.expect("valid"), expected);
    }
}
