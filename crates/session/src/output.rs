//! Does a final answer satisfy the turn's `output_schema`?
//!
//! Owns: finding the JSON in the text, and the sentence that the model reads when it does not fit. Does not decide what
//! follows from that (the loop does), and never fetches anything: a `$ref` may only point inside the schema.

use jsonschema::{PatternOptions, Validator};
use loopd_domain::event::AnswerStop;
use loopd_domain::fold::{FinalAnswer, OpenTurn};
use serde_json::Value;

/// Most faults that one message names; a model mends a few at a time.
const FAULTS_SHOWN_MAX: usize = 5;
/// Longest rendering of one fault, in characters.
const FAULT_CHARS_MAX: usize = 300;

/// Can this be used as an output schema? The error says what is wrong with it, for the caller who wrote it.
pub fn check_schema(schema: &Value) -> Result<(), String> {
    if !schema.is_object() {
        return Err("a JSON Schema object is expected".to_owned());
    }
    compile(schema).map(|_| ())
}

/// The value that `text` holds, if it is of the schema. The error is written for the model that must mend its answer.
pub fn check(schema: &Value, text: &str) -> Result<Value, String> {
    let value = extract(text)?;
    let validator = compile(schema)?;
    let faults: Vec<String> = validator.iter_errors(&value).take(FAULTS_SHOWN_MAX + 1).map(|f| sentence(&f)).collect();
    if faults.is_empty() {
        return Ok(value);
    }
    let more = if faults.len() > FAULTS_SHOWN_MAX { "; and more" } else { "" };
    let shown = faults[..faults.len().min(FAULTS_SHOWN_MAX)].join("; ");
    Err(format!("the answer is JSON but not of the output schema: {shown}{more}"))
}

/// What is wrong with a turn's final answer, when the turn has an output schema.
pub fn fault_of(turn: &OpenTurn, answer: &FinalAnswer, text: &str) -> Option<String> {
    let schema = turn.settings.output_schema.as_ref()?;
    if answer.stop != AnswerStop::EndTurn {
        return None;
    }
    check(schema, text).err()
}

fn compile(schema: &Value) -> Result<Validator, String> {
    // The schema is a stranger's: patterns run on the engine that is linear in its input.
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|fault| sentence(&fault))
}

fn sentence(fault: &jsonschema::ValidationError<'_>) -> String {
    let place = fault.instance_path().to_string();
    let place = if place.is_empty() { "the top level".to_owned() } else { format!("`{place}`") };
    format!("at {place}: {}", shorten(&fault.to_string()))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(FAULT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The text itself when it is JSON; else the last fenced block that is; else an error.
fn extract(text: &str) -> Result<Value, String> {
    let whole = text.trim();
    let fault = match serde_json::from_str(whole) {
        Ok(value) => return Ok(value),
        Err(fault) => fault,
    };
    let fenced = fenced_blocks(whole).into_iter().rev().find_map(|block| serde_json::from_str(block.trim()).ok());
    fenced.ok_or_else(|| {
        format!("the answer is not JSON ({fault}); answer with one JSON value of the output schema and nothing else")
    })
}

/// What stands between pairs of lines that start with three backticks.
fn fenced_blocks(text: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    let mut open: Option<usize> = None;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            match open.take() {
                Some(start) => blocks.push(&text[start..offset]),
                None => open = Some(offset + line.len()),
            }
        }
        offset += line.len();
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false})
    }

    #[test]
    fn takes_plain_and_fenced_json() {
        assert_eq!(check(&schema(), " {\"n\": 3}\n"), Ok(json!({"n": 3})));
        assert_eq!(check(&schema(), "Here it is:\n```json\n{\"n\": 4}\n```\nDone."), Ok(json!({"n": 4})));
        assert_eq!(check(&schema(), "```\nnot this\n```\nbut\n```json\n{\"n\": 5}\n```"), Ok(json!({"n": 5})));
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let fault = check(&schema(), "forty-two").expect_err("not JSON");
        assert!(fault.contains("not JSON"), "{fault}");
        let fault = check(&schema(), "{\"n\": \"x\"}").expect_err("wrong type");
        assert!(fault.contains("`/n`") && fault.contains("integer"), "{fault}");
        let fault = check(&schema(), "{}").expect_err("missing");
        assert!(fault.contains("the top level") && fault.contains("\"n\""), "{fault}");
    }

    #[test]
    fn an_unclosed_fence_is_not_json() {
        assert!(check(&schema(), "```json\n{\"n\": 1}").is_err());
    }

    #[test]
    fn schemas_are_checked_before_they_are_used() {
        assert_eq!(check_schema(&schema()), Ok(()));
        assert!(check_schema(&json!(["x"])).is_err());
        assert!(check_schema(&json!({"type": "no such type"})).is_err());
        assert!(check_schema(&json!({"$ref": "http://127.0.0.1:1/schema.json"})).is_err());
        assert!(check_schema(&json!({"$ref": "file:///etc/passwd"})).is_err());
    }
}
