//! An API key that cannot be printed.

use reqwest::header::HeaderValue;
use std::fmt;

/// The secret, and the name under which it may be spoken of. `Debug` prints the name.
#[derive(Clone)]
pub(crate) struct ApiKey {
    name: String,
    secret: String,
}

impl ApiKey {
    /// `None` when the text cannot stand in a header, or is empty. Blanks around it are dropped: a key that was read from
    /// a file ends with a line feed more often than not.
    pub fn new(name: impl Into<String>, secret: &str) -> Option<Self> {
        let secret = secret.trim();
        let usable = !secret.is_empty() && HeaderValue::from_str(secret).is_ok();
        usable.then(|| ApiKey { name: name.into(), secret: secret.to_owned() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of the header that carries it, after `scheme`.
    pub fn header(&self, scheme: &str) -> HeaderValue {
        let text = format!("{scheme}{}", self.secret);
        let mut value = HeaderValue::from_str(&text).expect("`new` took only what a header can carry");
        value.set_sensitive(true);
        value
    }

    /// `text` without the secret, for servers that repeat what they were sent. Long keys are recognised by their ends too:
    /// some servers shorten the key that they refuse.
    pub fn scrub(&self, text: &str) -> String {
        let clean = text.replace(&self.secret, "[key]");
        match (self.secret.get(..12), self.secret.len() >= 24) {
            (Some(head), true) => clean.replace(head, "[key]"),
            _ => clean,
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_prints_its_name_and_is_scrubbed_from_text() {
        let key = ApiKey::new("X_KEY", " sk-ant-0123456789abcdefghij\n").expect("usable");
        assert_eq!(format!("{key:?}"), "ApiKey(X_KEY)");
        assert!(!format!("{:?}", key.header("Bearer ")).contains("0123"));
        let echoed = key.scrub("bad key sk-ant-0123456789abcdefghij, or sk-ant-01234***hij");
        assert_eq!(echoed, "bad key [key], or [key]***hij");
    }

    #[test]
    fn what_no_header_can_carry_is_no_key() {
        assert!(ApiKey::new("X", "a\nb").is_none());
        assert!(ApiKey::new("X", "  ").is_none());
    }
}
