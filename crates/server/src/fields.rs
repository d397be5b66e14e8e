//! Reading an object of a request field by field. Every refusal names the field, its value and what would be accepted.
//!
//! A body's table of [`Field`]s is both what is accepted and what `GET /openapi.json` says, so the two cannot differ.

use crate::nearest::nearest;
use loopd_domain::Invalid;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

/// Extra fields that clients are known to put in any body; they mean nothing here.
const TOLERATED: [&str; 2] = ["betas", "beta"];

#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    Integer,
    Boolean,
    Object,
    List,
    /// One of several shapes; the documentation says which.
    Any,
}

/// One field of a request body.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub doc: &'static str,
}

pub const fn must(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, required: true, doc }
}

pub const fn may(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, required: false, doc }
}

/// Makes a name for OpenAPI of a table of fields.
macro_rules! request_body {
    ($(#[$doc:meta])* $name:ident, $fields:expr) => {
        $(#[$doc])*
        pub struct $name;
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                crate::fields::schema_of($fields)
            }
        }
        impl utoipa::ToSchema for $name {}
    };
}
pub(crate) use request_body;

/// The schema that a table describes.
pub fn schema_of(table: &[Field]) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new();
    for field in table {
        let builder = ObjectBuilder::new().description(Some(field.doc));
        let builder = match field.kind {
            Kind::Text => builder.schema_type(Type::String),
            Kind::Integer => builder.schema_type(Type::Integer),
            Kind::Boolean => builder.schema_type(Type::Boolean),
            Kind::Object => builder.schema_type(Type::Object),
            Kind::List => builder.schema_type(Type::Array),
            Kind::Any => builder.schema_type(utoipa::openapi::schema::SchemaType::AnyValue),
        };
        object = object.property(field.name, builder);
        if field.required {
            object = object.required(field.name);
        }
    }
    RefOr::T(Schema::Object(object.build()))
}

/// What a patch says of a field: absent keeps, `null` (or `[]` where the field is a list) clears, a value replaces.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Patch<T> {
    #[default]
    Keep,
    Clear,
    Set(T),
}

/// An object whose field names are all known.
#[derive(Debug)]
pub struct Fields {
    at: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The body of a request.
    pub fn body(value: Value, table: &[Field]) -> Result<Self, Invalid> {
        let names: Vec<&str> = table.iter().map(|f| f.name).collect();
        let mut map = object("body", value)?;
        for name in TOLERATED {
            map.shift_remove(name);
        }
        Self::checked(String::new(), map, &names)
    }

    /// An object inside a request; `at` is its path.
    pub fn open(at: &str, value: Value, names: &[&str]) -> Result<Self, Invalid> {
        let map = object(at, value)?;
        Self::checked(at.to_owned(), map, names)
    }

    fn checked(at: String, map: Map<String, Value>, names: &[&str]) -> Result<Self, Invalid> {
        let fields = Fields { at, map };
        match fields.map.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(fields),
            Some((name, value)) => {
                let accepted = match nearest(name, names.iter().copied()) {
                    Some(meant) => format!("no field of this name; did you mean `{meant}`?"),
                    None => format!("no field of this name; known are {}", list(names)),
                };
                let shown: String = name.chars().take(80).collect();
                Err(Invalid::new(fields.path(&shown), describe(value), accepted))
            }
        }
    }

    /// The path of one of its fields.
    pub fn path(&self, name: &str) -> String {
        match self.at.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.at),
        }
    }

    /// Takes the field out; `null` is a value here.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.swap_remove(name)
    }

    /// Takes the field out; `null` counts as absent.
    pub fn given(&mut self, name: &str) -> Option<Value> {
        self.take(name).filter(|v| !v.is_null())
    }

    pub fn need(&mut self, name: &str, accepted: &str) -> Result<Value, Invalid> {
        self.given(name).ok_or_else(|| Invalid::missing(self.path(name), accepted))
    }

    /// A text whose length in characters is in `chars`.
    pub fn text(&mut self, name: &str, chars: RangeInclusive<usize>) -> Result<Option<String>, Invalid> {
        match self.given(name) {
            None => Ok(None),
            Some(value) => text(&self.path(name), value, chars).map(Some),
        }
    }

    pub fn need_text(&mut self, name: &str, chars: RangeInclusive<usize>) -> Result<String, Invalid> {
        let accepted = characters(&chars);
        self.text(name, chars)?.ok_or_else(|| Invalid::missing(self.path(name), accepted))
    }

    pub fn patch_text(&mut self, name: &str, chars: RangeInclusive<usize>) -> Result<Patch<String>, Invalid> {
        match self.take(name) {
            None => Ok(Patch::Keep),
            Some(Value::Null) => Ok(Patch::Clear),
            Some(value) => text(&self.path(name), value, chars).map(Patch::Set),
        }
    }

    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, Invalid> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(b)),
            Some(other) => Err(Invalid::new(self.path(name), describe(&other), "`true` or `false`")),
        }
    }

    pub fn integer(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Invalid> {
        let Some(value) = self.given(name) else { return Ok(None) };
        match value.as_u64().filter(|n| range.contains(n)) {
            Some(n) => Ok(Some(n)),
            None => {
                let accepted = format!("an integer from {} to {}", range.start(), range.end());
                Err(Invalid::new(self.path(name), describe(&value), accepted))
            }
        }
    }

    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Invalid> {
        let Some(value) = self.given(name) else { return Ok(None) };
        match value.as_f64().filter(|n| range.contains(n)) {
            Some(n) => Ok(Some(n)),
            None => {
                let accepted = format!("a number from {} to {}", range.start(), range.end());
                Err(Invalid::new(self.path(name), describe(&value), accepted))
            }
        }
    }

    pub fn list(&mut self, name: &str, items_max: usize) -> Result<Option<Vec<Value>>, Invalid> {
        match self.given(name) {
            None => Ok(None),
            Some(value) => items(&self.path(name), value, items_max).map(Some),
        }
    }

    /// One of a few words.
    pub fn word(&mut self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>, Invalid> {
        match self.given(name) {
            None => Ok(None),
            Some(value) => word(&self.path(name), &value, words).map(Some),
        }
    }

    /// Refuses a field of the wire format that this version cannot honour, unless it asks for nothing.
    pub fn unavailable(&mut self, name: &str) -> Result<(), Invalid> {
        match self.take(name) {
            None => Ok(()),
            Some(value) if is_empty(&value) => Ok(()),
            Some(value) => Err(unavailable(&self.path(name), &value)),
        }
    }
}

/// `field` asks for something that this version cannot do.
pub fn unavailable(field: &str, value: &Value) -> Invalid {
    Invalid::new(field, describe(value), "nothing for now: this is not available in this version of loopd")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

pub fn text(field: &str, value: Value, chars: RangeInclusive<usize>) -> Result<String, Invalid> {
    match value {
        // Counting stops early: a text can have up to the body's 32 MiB.
        Value::String(text) if chars.contains(&text.chars().take(chars.end() + 1).count()) => Ok(text),
        other => Err(Invalid::new(field, describe(&other), characters(&chars))),
    }
}

fn characters(chars: &RangeInclusive<usize>) -> String {
    match *chars.end() {
        usize::MAX => "a string".to_owned(),
        max => format!("a string of {} to {max} characters", chars.start()),
    }
}

pub fn items(field: &str, value: Value, items_max: usize) -> Result<Vec<Value>, Invalid> {
    match value {
        Value::Array(list) if list.len() <= items_max => Ok(list),
        other => Err(Invalid::new(field, describe(&other), format!("a list of up to {items_max} items"))),
    }
}

pub fn word(field: &str, value: &Value, words: &[&'static str]) -> Result<&'static str, Invalid> {
    let found = value.as_str().and_then(|text| words.iter().find(|w| **w == text).copied());
    found.ok_or_else(|| Invalid::new(field, describe(value), list(words)))
}

fn object(at: &str, value: Value) -> Result<Map<String, Value>, Invalid> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(Invalid::new(at, describe(&other), "an object")),
    }
}

fn list(words: &[&str]) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}

/// A value for a message: what it is rather than all of it.
pub fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().take(100).collect(),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(map) => match map.get("type").and_then(Value::as_str) {
            Some(kind) => format!("an object of type {}", kind.chars().take(60).collect::<String>()),
            None => "an object".to_owned(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TABLE: &[Field] = &[must("name", Kind::Text, "a name"), may("tools", Kind::List, "tools")];

    fn read(value: Value) -> Result<Fields, Invalid> {
        Fields::body(value, TABLE)
    }

    #[test]
    fn an_unknown_field_is_told_its_neighbour() {
        let fault = read(json!({"nmae": "x"})).expect_err("unknown").to_string();
        assert_eq!(fault, "`nmae` is `x`; accepted: no field of this name; did you mean `name`?");
        let fault = read(json!({"zzz": 1})).expect_err("unknown").to_string();
        assert!(fault.contains("known are `name`, `tools`"), "{fault}");
    }

    #[test]
    fn what_clients_add_is_tolerated() {
        assert!(read(json!({"name": "x", "betas": ["b"]})).is_ok());
    }

    #[test]
    fn types_and_lengths_are_checked() {
        let fault = read(json!([1])).expect_err("not an object").to_string();
        assert_eq!(fault, "`body` is `a list of 1`; accepted: an object");
        let fault = read(json!({"name": 7})).and_then(|mut f| f.need_text("name", 1..=5)).expect_err("number");
        assert_eq!(fault.to_string(), "`name` is `7`; accepted: a string of 1 to 5 characters");
        let fault = read(json!({"name": "sechs!"})).and_then(|mut f| f.need_text("name", 1..=5)).expect_err("long");
        assert_eq!(fault.value, "sechs!");
        let fault = read(json!({})).and_then(|mut f| f.need_text("name", 1..=5)).expect_err("missing");
        assert!(fault.to_string().contains("missing"));
    }

    #[test]
    fn a_patch_has_three_states() {
        let patch = |value: Value| read(value).and_then(|mut f| f.patch_text("name", 0..=9)).expect("valid");
        assert_eq!(patch(json!({})), Patch::Keep);
        assert_eq!(patch(json!({"name": null})), Patch::Clear);
        assert_eq!(patch(json!({"name": "x"})), Patch::Set("x".into()));
    }

    #[test]
    fn what_is_not_available_may_be_empty() {
        for empty in [json!({}), json!({"tools": null}), json!({"tools": []})] {
            assert!(read(empty).and_then(|mut f| f.unavailable("tools")).is_ok());
        }
        let fault = read(json!({"tools": [1]})).and_then(|mut f| f.unavailable("tools")).expect_err("asked");
        assert!(fault.to_string().contains("not available in this version of loopd"));
    }
}
