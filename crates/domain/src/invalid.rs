//! The one shape of "your input is wrong": which field, what it was, what would be accepted.

use std::fmt;

/// Longest piece of the offending value that a message repeats, in characters.
const VALUE_CHARS_MAX: usize = 80;

/// A value that a caller sent and that cannot be taken. `Display` is a sentence for the caller; it is safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the field as the caller wrote it, e.g. `tools[2].name`.
    pub field: String,
    /// The offending value, shortened; empty when the field is missing.
    pub value: String,
    /// What would be accepted, as a phrase: `a string of 1 to 256 characters`.
    pub accepted: String,
}

impl Invalid {
    pub fn new(field: impl Into<String>, value: impl fmt::Display, accepted: impl Into<String>) -> Self {
        let value = value.to_string();
        let value = match value.char_indices().nth(VALUE_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &value[..end]),
            None => value,
        };
        Invalid { field: field.into(), value, accepted: accepted.into() }
    }

    pub fn missing(field: impl Into<String>, accepted: impl Into<String>) -> Self {
        Invalid { field: field.into(), value: String::new(), accepted: accepted.into() }
    }

    /// The same fault, seen from one level further out.
    pub fn within(mut self, outer: &str) -> Self {
        self.field = match self.field.starts_with('[') {
            true => format!("{outer}{}", self.field),
            false => format!("{outer}.{}", self.field),
        };
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "`{}` is missing or empty; accepted: {}", self.field, self.accepted)
        } else {
            write!(f, "`{}` is `{}`; accepted: {}", self.field, self.value, self.accepted)
        }
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_field_value_and_what_is_accepted() {
        let fault = Invalid::new("name", "", "1 to 256 characters").within("agent");
        assert_eq!(fault.to_string(), "`agent.name` is missing or empty; accepted: 1 to 256 characters");
        let fault = Invalid::new("[2]", "x".repeat(500), "a string").within("tools");
        assert_eq!(fault.to_string(), format!("`tools[2]` is `{}…`; accepted: a string", "x".repeat(80)));
    }
}
