//! The error object of a provider, in whichever shape it comes.

use serde_json::Value;

/// What a provider said went wrong, wherever in the document it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fault {
    pub kind: String,
    pub code: String,
    pub message: String,
}

impl Fault {
    /// `{"error": {...}}`, `{"error": "…"}`, `{"message": …}`, `{"detail": …}`, or the first of a list of these.
    pub fn find(document: &Value) -> Option<Self> {
        let document = document.as_array().and_then(|list| list.first()).unwrap_or(document);
        let error = match document.get("error") {
            Some(error @ Value::Object(_)) => error,
            Some(Value::String(message)) => return Some(Fault { message: message.clone(), ..Fault::default() }),
            _ => document,
        };
        let field = |name: &str| match error.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        let message = [field("message"), field("detail")].into_iter().find(|text| !text.is_empty());
        let kind = [field("type"), field("status")].into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        match (message, error.get("type").is_some() && document.get("error").is_some()) {
            (Some(message), _) => Some(Fault { kind, code: field("code"), message }),
            (None, true) => Some(Fault { message: kind.clone(), kind, code: field("code") }),
            (None, false) => None,
        }
    }
}
