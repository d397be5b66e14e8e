//! A reference to a model: a bare id, or an object that also says how it is asked. And the rows of `GET /v1/models`.

use crate::fields::{Fields, Patch, describe, text, unavailable};
use loopd_domain::Invalid;
use loopd_domain::agent::{Effort, ModelRef};
use loopd_models::ModelInfo;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

const MODEL_ID_CHARS_MAX: usize = 256;
const BASE_URL_CHARS_MAX: usize = 2_048;
const MAX_TOKENS_MAX: u64 = 10_000_000;
const EFFORTS: [(&str, Effort); 5] = [
    ("low", Effort::Low),
    ("medium", Effort::Medium),
    ("high", Effort::High),
    ("xhigh", Effort::Xhigh),
    ("max", Effort::Max),
];

/// A model reference, and whether it says something of effort (an agent's update keeps it where the id stays).
pub fn read(at: &str, value: Value) -> Result<(ModelRef, bool), Invalid> {
    if let Value::String(_) = value {
        let id = text(at, value, 1..=MODEL_ID_CHARS_MAX)?;
        let model = ModelRef { id, effort: None, base_url: None, max_tokens: None, temperature: None, extra: None };
        return Ok((model, false));
    }
    if !value.is_object() {
        return Err(Invalid::new(at, describe(&value), "a model id, or an object with `id`"));
    }
    let names = ["id", "effort", "speed", "inference_geo", "base_url", "max_tokens", "temperature", "extra", "type"];
    let mut fields = Fields::open(at, value, &names)?;
    fields.given("type");
    match fields.word("speed", &["standard", "fast"])? {
        Some("fast") => return Err(unavailable(&fields.path("speed"), &json!("fast"))),
        _ => fields.unavailable("inference_geo")?,
    }
    let effort = fields.take("effort");
    let says_effort = effort.is_some();
    let model = ModelRef {
        id: fields.need_text("id", 1..=MODEL_ID_CHARS_MAX)?,
        effort: read_effort(&fields.path("effort"), effort)?,
        base_url: read_base_url(&mut fields)?,
        max_tokens: fields.integer("max_tokens", 1..=MAX_TOKENS_MAX)?,
        temperature: fields.number("temperature", 0.0..=2.0)?,
        extra: match fields.given("extra") {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => return Err(Invalid::new(fields.path("extra"), describe(&other), "an object")),
        },
    };
    Ok((model, says_effort))
}

fn read_effort(at: &str, value: Option<Value>) -> Result<Option<Effort>, Invalid> {
    let word = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(object @ Value::Object(_)) => Fields::open(at, object, &["type"])?.need("type", "an effort")?,
        Some(word) => word,
    };
    let found = EFFORTS.iter().find(|(name, _)| word.as_str() == Some(name)).map(|(_, effort)| *effort);
    let refused = || Invalid::new(at, describe(&word), "`low`, `medium`, `high`, `xhigh` or `max`");
    found.map(Some).ok_or_else(refused)
}

fn read_base_url(fields: &mut Fields) -> Result<Option<String>, Invalid> {
    let Some(text) = fields.text("base_url", 1..=BASE_URL_CHARS_MAX)? else { return Ok(None) };
    let fine = url::Url::parse(&text).is_ok_and(|u| ["http", "https"].contains(&u.scheme()) && u.has_host());
    match fine {
        true => Ok(Some(text)),
        false => Err(Invalid::new(fields.path("base_url"), text, "an http or https address")),
    }
}

/// The model of an agent after an update.
pub fn replace(old: &ModelRef, (mut new, says_effort): (ModelRef, bool)) -> ModelRef {
    if new.id == old.id && !says_effort {
        new.effort = old.effort;
    }
    new
}

/// What an override says of the model: it cannot be cleared.
pub fn read_override(at: &str, value: Option<Value>) -> Result<Patch<(ModelRef, bool)>, Invalid> {
    match value {
        None => Ok(Patch::Keep),
        Some(Value::Null) => Err(Invalid::new(at, "null", "a model; an agent cannot be without one")),
        Some(value) => read(at, value).map(Patch::Set),
    }
}

/// As clients see it.
pub fn write(model: &ModelRef) -> Value {
    let effort =
        model.effort.and_then(|e| EFFORTS.iter().find(|(_, x)| *x == e)).map(|(name, _)| json!({"type": name}));
    let mut out = json!({"id": model.id, "effort": effort, "speed": "standard", "inference_geo": null});
    let own = [
        ("base_url", json!(model.base_url)),
        ("max_tokens", json!(model.max_tokens)),
        ("temperature", json!(model.temperature)),
        ("extra", json!(model.extra)),
    ];
    for (name, value) in own.into_iter().filter(|(_, value)| !value.is_null()) {
        out[name] = value;
    }
    out
}

/// One row of `GET /v1/models`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Model {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub display_name: String,
    /// Not known here: the epoch, as the wire format has it for such cases.
    pub created_at: &'static str,
    /// `active`: what is listed can be used.
    pub lifecycle: &'static str,
    /// Not known here: null, as are the line, the limits, the dates and the fallbacks.
    #[schema(value_type = Option<Object>)]
    pub capabilities: Value,
    pub line: Option<String>,
    pub max_input_tokens: Option<u64>,
    pub max_tokens: Option<u64>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deprecated_at: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retires_at: Option<String>,
    pub allowed_fallback_models: Option<Vec<String>>,
    /// Played from a script that ships with loopd; no model answers.
    pub scripted: bool,
    /// List price in millionths of a US dollar for a million tokens; null when it is not known.
    #[schema(value_type = Option<Object>)]
    pub price: Option<Value>,
}

pub fn write_row(info: ModelInfo) -> Model {
    let price = info.price.map(|p| json!(p));
    let ModelInfo { id, display_name, scripted, .. } = info;
    Model {
        id,
        kind: "model",
        display_name,
        created_at: "1970-01-01T00:00:00Z",
        lifecycle: "active",
        capabilities: Value::Null,
        line: None,
        max_input_tokens: None,
        max_tokens: None,
        deprecated_at: None,
        retires_at: None,
        allowed_fallback_models: None,
        scripted,
        price,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_object_are_the_same_model() {
        let (plain, says) = read("model", json!("builtin/shell")).expect("valid");
        assert!(!says);
        assert_eq!(read("model", json!({"id": "builtin/shell"})).expect("valid").0, plain);
        assert_eq!(
            write(&plain),
            json!({"id": "builtin/shell", "effort": null, "speed": "standard", "inference_geo": null})
        );
    }

    #[test]
    fn effort_comes_in_two_shapes_and_stays_with_its_model() {
        let old = read("model", json!({"id": "a/b", "effort": {"type": "high"}})).expect("valid").0;
        assert_eq!(old.effort, Some(Effort::High));
        assert_eq!(replace(&old, read("model", json!("a/b")).expect("valid")).effort, Some(Effort::High));
        assert_eq!(replace(&old, read("model", json!("a/c")).expect("valid")).effort, None);
        let cleared = replace(&old, read("model", json!({"id": "a/b", "effort": null})).expect("valid"));
        assert_eq!(cleared.effort, None);
        assert_eq!(write(&old)["effort"], json!({"type": "high"}));
    }

    #[test]
    fn refuses_what_it_cannot_honour() {
        let bad = [
            json!(7),
            json!(""),
            json!({"id": "a/b", "speed": "fast"}),
            json!({"id": "a/b", "effort": "huge"}),
            json!({"id": "a/b", "base_url": "file:///etc/passwd"}),
            json!({"id": "a/b", "temperature": 9}),
            json!({"id": "a/b", "inference_geo": "us"}),
            json!({"id": "a/b", "temprature": 1}),
        ];
        for value in bad {
            let fault = read("model", value.clone()).expect_err("refused");
            assert!(fault.field.starts_with("model"), "{value}: {fault}");
        }
    }
}
