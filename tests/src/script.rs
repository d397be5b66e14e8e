//! System prompts for `builtin/script`: what the model will say, step by step.

use serde_json::{Value, json};

/// Plays these steps, then says `done`.
pub fn script(steps: Vec<Value>) -> String {
    json!({"steps": steps}).to_string()
}

pub fn says(text: &str) -> Value {
    json!({"text": text})
}

/// Asks for one shell command.
pub fn runs(command: &str) -> Value {
    calls("bash", json!({"command": command}))
}

pub fn calls(tool: &str, input: Value) -> Value {
    json!({"tools": [{"name": tool, "input": input}]})
}

pub fn fails(class: &str, message: &str) -> Value {
    json!({"fault": {"class": class, "message": message, "retry_after_ms": 1}})
}

/// The body of an invocation that plays a script.
pub fn invocation(steps: Vec<Value>) -> Value {
    json!({"model": "builtin/script", "system": script(steps), "input": "go"})
}
