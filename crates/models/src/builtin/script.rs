//! The script that `builtin/script` plays, and that the fake provider of the tests plays over real wires.
//!
//! ```json
//! {"steps": [{"thinking": "…", "text": "…", "tools": [{"name": "bash", "input": {}}, {"name": "x", "raw_input": "{"}],
//!             "stop": "end_turn", "usage": {"input_tokens": 3}, "delay_ms": 5, "chunk_delay_ms": 1,
//!             "fault": {"class": "overloaded", "status": 529, "retry_after_ms": 10, "message": "…", "after_text": "…", "times": 1}}],
//!  "repeat": 3, "then": "…"}
//! ```
//!
//! The script has no memory: the step to play is the number of assistant messages in the conversation, so a later turn goes
//! on where the last one stopped. `repeat` plays the list that often (once by default); after its end the answer is `then`
//! ("done" by default). `{{last_result}}` in a text is replaced by what the last tool result since the last answer says. A fault happens on each of
//! the first `times` attempts of its step (on every attempt by default), after `after_text` where it names one.

use crate::provider::ErrorClass;
use loopd_domain::event::AnswerStop;
use loopd_domain::usage::Usage;
use serde::Deserialize;
use serde_json::Value;

const DONE: &str = "done";

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub steps: Vec<Step>,
    #[serde(default)]
    pub repeat: Option<u64>,
    #[serde(default)]
    pub then: Option<String>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    #[serde(default)]
    pub thinking: Option<String>,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub tools: Vec<Call>,
    /// `tool_use` by default where there are tools, `end_turn` where there are none.
    #[serde(default)]
    pub stop: Option<AnswerStop>,
    /// Fields that replace the made-up counts.
    #[serde(default)]
    pub usage: Option<PartialUsage>,
    /// Before the first byte.
    #[serde(default)]
    pub delay_ms: u64,
    /// Before each word of the text.
    #[serde(default)]
    pub chunk_delay_ms: u64,
    #[serde(default)]
    pub fault: Option<Fault>,
}

/// One tool call: `input` is an object; `raw_input` is the text that stands in its place, whatever it is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    pub name: String,
    #[serde(default)]
    pub input: Option<serde_json::Map<String, Value>>,
    #[serde(default)]
    pub raw_input: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartialUsage {
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cache_read_input_tokens: Option<u64>,
    pub cache_creation_input_tokens: Option<u64>,
    pub reasoning_tokens: Option<u64>,
}

/// A failure instead of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    #[serde(deserialize_with = "class")]
    pub class: ErrorClass,
    #[serde(default)]
    pub status: Option<u16>,
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
    #[serde(default)]
    pub message: Option<String>,
    /// What is said before it breaks off.
    #[serde(default)]
    pub after_text: Option<String>,
    /// Attempts of this step that fail; every one by default.
    #[serde(default)]
    pub times: Option<u32>,
}

/// A system prompt that is no script. `Display` names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the system prompt of builtin/script is not a script: {0}; accepted: {{\"steps\": [{{\"text\"?, \"thinking\"?, \"tools\"?, …}}], \"repeat\"?, \"then\"?}}"
)]
pub struct NotAScript(String);

impl Script {
    /// Reads the JSON value at the start. What follows it is for other models: loopd adds an output schema to a system
    /// prompt, for instance.
    pub fn parse(text: &str) -> Result<Self, NotAScript> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter();
        let first = values.next().unwrap_or_else(|| serde_json::from_str(""));
        first.map_err(|fault| NotAScript(fault.to_string()))
    }

    /// The step to play after `answers` answers.
    pub fn step(&self, answers: usize) -> Step {
        let rounds = usize::try_from(self.repeat.unwrap_or(1)).unwrap_or(usize::MAX);
        match self.steps.len() {
            0 => self.after(),
            steps if answers / steps < rounds => self.steps[answers % steps].clone(),
            _ => self.after(),
        }
    }

    fn after(&self) -> Step {
        Step { text: Some(self.then.clone().unwrap_or_else(|| DONE.to_owned())), ..Step::default() }
    }
}

impl Step {
    pub fn stop(&self) -> AnswerStop {
        self.stop.unwrap_or(if self.tools.is_empty() { AnswerStop::EndTurn } else { AnswerStop::ToolUse })
    }

    /// Its text, with what the last result says in its place.
    pub fn text(&self, last_result: &str) -> Option<String> {
        self.text.as_ref().map(|text| text.replace("{{last_result}}", last_result)).filter(|text| !text.is_empty())
    }

    pub fn usage(&self, made_up: Usage) -> Usage {
        let said = self.usage.unwrap_or_default();
        Usage {
            input_tokens: said.input_tokens.unwrap_or(made_up.input_tokens),
            output_tokens: said.output_tokens.unwrap_or(made_up.output_tokens),
            cache_read_input_tokens: said.cache_read_input_tokens.unwrap_or(made_up.cache_read_input_tokens),
            cache_creation_input_tokens: said
                .cache_creation_input_tokens
                .unwrap_or(made_up.cache_creation_input_tokens),
            reasoning_tokens: said.reasoning_tokens.unwrap_or(made_up.reasoning_tokens),
            ..made_up
        }
    }
}

impl Call {
    /// The arguments as a model would have written them.
    pub fn arguments(&self) -> String {
        match (&self.raw_input, &self.input) {
            (Some(raw), _) => raw.clone(),
            (None, Some(input)) => serde_json::to_string(input).expect("a JSON object is written as JSON"),
            (None, None) => "{}".to_owned(),
        }
    }
}

impl Fault {
    pub fn message(&self) -> String {
        let made_up = || match self.class {
            // One of the wires has no other sign of this class than its words.
            ErrorClass::ContextTooLong => "prompt is too long (scripted fault)".to_owned(),
            class => format!("scripted fault of class `{class}`"),
        };
        self.message.clone().unwrap_or_else(made_up)
    }
}

fn class<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ErrorClass, D::Error> {
    let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    ErrorClass::ALL.into_iter().find(|class| class.as_str() == name).ok_or_else(|| {
        let accepted: Vec<&str> = ErrorClass::ALL.into_iter().map(ErrorClass::as_str).collect();
        serde::de::Error::custom(format!("`{name}` is no error class; accepted: {}", accepted.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_is_the_number_of_answers() {
        let script =
            Script::parse(r#"{"steps":[{"text":"a"},{"text":"b"}],"repeat":2,"then":"end"}"#).expect("a script");
        let texts: Vec<_> = (0..6).map(|n| script.step(n).text.expect("text")).collect();
        assert_eq!(texts, ["a", "b", "a", "b", "end", "end"]);
        assert_eq!(Script::parse(r#"{"steps":[]}"#).expect("a script").step(0).text.as_deref(), Some(DONE));
    }

    #[test]
    fn a_malformed_script_is_refused_with_its_place() {
        let said = |text: &str| Script::parse(text).expect_err("malformed").to_string();
        assert!(said("You are helpful").contains("line 1 column 1"), "{}", said("You are helpful"));
        assert!(said(r#"{"steps":[{"txt":"a"}]}"#).contains("unknown field `txt`"));
        assert!(
            said(r#"{"steps":[{"fault":{"class":"bored"}}]}"#)
                .contains("`bored` is no error class; accepted: rate_limited")
        );
    }
}
