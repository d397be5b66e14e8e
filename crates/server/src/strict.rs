//! JSON as strangers write it: one value, bounded depth, no key twice, valid UTF-8.
//!
//! Two readers of the same text must not see two documents: most JSON libraries keep the last of two equal keys, some the
//! first, so a repeated key is refused.

use loopd_domain::limits::JSON_DEPTH_MAX;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Names by which serde_json tells its own wrappers from objects: what is in such a field would be read as something else when it
/// comes back from the journal, or not at all.
const SERDES_OWN: &str = "$serde_json::private::";

/// The value in `bytes`, or a sentence for the caller.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| format!("the body is not UTF-8 at byte {}; accepted: JSON in UTF-8", e.valid_up_to()))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(|e| sentence(&e))?;
    reader.end().map_err(|e| sentence(&e))?;
    Ok(value)
}

fn sentence(fault: &serde_json::Error) -> String {
    format!("the body is not acceptable JSON: {fault}")
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn inner<E: Error>(self) -> Result<Strict, E> {
        match self.depth < JSON_DEPTH_MAX {
            true => Ok(Strict { depth: self.depth + 1 }),
            false => Err(E::custom(format!("nested too deep; accepted: up to {JSON_DEPTH_MAX} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if map.contains_key(&name) {
                let shown: String = name.chars().take(80).collect();
                return Err(A::Error::custom(format!("field `{shown}` is given twice")));
            }
            if name.starts_with(SERDES_OWN) {
                return Err(A::Error::custom(format!("a field begins with `{SERDES_OWN}`; accepted: any other name")));
            }
            let value = fields.next_value_seed(inner)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn takes_what_json_is() {
        let text = r#"{"a":[1,-2,3.5,"x\u00e9",null,true],"b":{"a":{}}}"#;
        assert_eq!(parse(text.as_bytes()), Ok(json!({"a": [1, -2, 3.5, "xé", null, true], "b": {"a": {}}})));
    }

    #[test]
    fn refuses_two_of_a_key_at_any_depth() {
        let fault = parse(br#"{"a":{"b":1,"b":2}}"#).expect_err("twice");
        assert!(fault.contains("`b` is given twice"), "{fault}");
    }

    #[test]
    fn refuses_names_that_would_be_read_as_something_else_the_next_time() {
        let text = r#"{"a":{"$serde_json::private::RawValue":"{"}}"#;
        assert!(serde_json::from_str::<Value>(text).is_err(), "the reason is gone");
        assert!(parse(text.as_bytes()).expect_err("refused").contains("any other name"));
    }

    #[test]
    fn refuses_what_is_too_deep_and_takes_what_is_just_deep_enough() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert!(parse(nested(JSON_DEPTH_MAX + 1).as_bytes()).expect_err("deep").contains("64 levels"));
        assert!(parse(nested(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn refuses_garbage_with_its_place() {
        assert!(parse(b"{\"a\": \xff}").expect_err("bytes").contains("byte 6"));
        assert!(parse(b"{\"a\": 1} x").expect_err("tail").contains("trailing"));
        assert!(parse(b"{\"a\":").expect_err("cut").contains("EOF"));
        assert!(parse(b"{\"a\": 1e999}").is_err());
    }
}
