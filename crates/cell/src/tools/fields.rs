//! The fields of a tool's input, each with a message that the model can mend its call by.

use loopd_domain::Invalid;
use serde_json::{Map, Value};

/// The input of one call. A field that is null counts as absent; one that nobody asks for is ignored.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub fn of(input: &'a Value) -> Result<Self, Invalid> {
        input.as_object().map(Fields).ok_or_else(|| Invalid::new("input", input, "an object"))
    }

    pub fn text(self, name: &str, what: &str) -> Result<&'a str, Invalid> {
        let text = self.get(name, "a string", Value::as_str)?;
        text.ok_or_else(|| Invalid::missing(name, what))
    }

    /// As `text`, and there must be something in it.
    pub fn filled_text(self, name: &str, what: &str) -> Result<&'a str, Invalid> {
        let text = self.text(name, what)?;
        if text.is_empty() { Err(Invalid::missing(name, what)) } else { Ok(text) }
    }

    pub fn optional_text(self, name: &str) -> Result<Option<String>, Invalid> {
        self.get(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub fn optional_bool(self, name: &str) -> Result<Option<bool>, Invalid> {
        self.get(name, "true or false", Value::as_bool)
    }

    pub fn optional_integer(self, name: &str) -> Result<Option<i64>, Invalid> {
        self.get(name, "an integer", Value::as_i64)
    }

    /// Two integers.
    pub fn optional_pair(self, name: &str) -> Result<Option<(i64, i64)>, Invalid> {
        self.get(name, "two integers, e.g. [1, 200]", |value| match value.as_array()?.as_slice() {
            [first, last] => Some((first.as_i64()?, last.as_i64()?)),
            _ => None,
        })
    }

    fn get<T>(self, name: &str, accepted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Invalid> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| Invalid::new(name, value, accepted)),
        }
    }
}
