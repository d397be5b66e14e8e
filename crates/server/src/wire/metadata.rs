//! Metadata: up to 16 short pairs of the caller's own; patched key by key.

use crate::fields::describe;
use loopd_domain::Invalid;
use loopd_domain::agent::Metadata;
use loopd_domain::limits::{METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX};
use serde_json::Value;

/// `Some` sets a key, `None` removes it.
pub type MetadataPatch = Vec<(String, Option<String>)>;

/// A patch as `metadata` of an update; `empty_deletes` where the wire takes an empty text for a deletion.
pub fn read_patch(at: &str, value: Option<Value>, empty_deletes: bool) -> Result<MetadataPatch, Invalid> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let Value::Object(map) = value else {
        return Err(Invalid::new(at, describe(&value), "an object of texts"));
    };
    if map.len() > METADATA_PAIRS_MAX {
        return Err(Invalid::new(at, format!("{} pairs", map.len()), format!("up to {METADATA_PAIRS_MAX} pairs")));
    }
    map.into_iter().map(|(key, value)| pair(at, key, value, empty_deletes)).collect()
}

fn pair(at: &str, key: String, value: Value, empty_deletes: bool) -> Result<(String, Option<String>), Invalid> {
    if !(1..=METADATA_KEY_CHARS_MAX).contains(&key.chars().count()) {
        return Err(Invalid::new(at, key, format!("keys of 1 to {METADATA_KEY_CHARS_MAX} characters")));
    }
    match value {
        Value::Null => Ok((key, None)),
        Value::String(text) if empty_deletes && text.is_empty() => Ok((key, None)),
        Value::String(text) if text.chars().count() <= METADATA_VALUE_CHARS_MAX => Ok((key, Some(text))),
        other => {
            let accepted = format!("a string of up to {METADATA_VALUE_CHARS_MAX} characters");
            Err(Invalid::new(format!("{at}.{key}"), describe(&other), accepted))
        }
    }
}

/// The whole of a new object's metadata.
pub fn read_new(at: &str, value: Option<Value>) -> Result<Metadata, Invalid> {
    apply(at, Metadata::new(), &read_patch(at, value, false)?)
}

pub fn apply(at: &str, mut metadata: Metadata, patch: &MetadataPatch) -> Result<Metadata, Invalid> {
    for (key, value) in patch {
        match value {
            Some(value) => metadata.insert(key.clone(), value.clone()),
            None => metadata.remove(key),
        };
    }
    match metadata.len() <= METADATA_PAIRS_MAX {
        true => Ok(metadata),
        false => {
            Err(Invalid::new(at, format!("{} pairs", metadata.len()), format!("up to {METADATA_PAIRS_MAX} pairs")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sets_replaces_and_removes() {
        let old = read_new("metadata", Some(json!({"a": "1", "b": "2"}))).expect("valid");
        let patch = read_patch("metadata", Some(json!({"a": null, "b": "3", "c": ""})), false).expect("valid");
        let new = apply("metadata", old.clone(), &patch).expect("few");
        assert_eq!(new, Metadata::from([("b".into(), "3".into()), ("c".into(), String::new())]));
        let patch = read_patch("metadata", Some(json!({"a": ""})), true).expect("valid");
        assert_eq!(apply("metadata", old, &patch).expect("few").get("a"), None);
    }

    #[test]
    fn is_bounded_and_typed() {
        for bad in
            [json!({"a": 1}), json!({"": "x"}), json!({"k".repeat(65): "x"}), json!({"a": "x".repeat(513)}), json!([])]
        {
            assert!(read_new("metadata", Some(bad.clone())).is_err(), "{bad}");
        }
        let full = read_new("m", Some((0..16).map(|i| (i.to_string(), json!("x"))).collect())).expect("just fits");
        let fault = apply("m", full, &vec![("one more".into(), Some("x".into()))]).expect_err("too many");
        assert!(fault.to_string().contains("17 pairs"));
    }
}
