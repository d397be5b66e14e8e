//! The request of a model call: a function of the agent, the turn and the conversation, so that it can be built again.

use loopd_domain::SessionId;
use loopd_domain::agent::{AgentSpec, ToolSpec};
use loopd_domain::chain::sha256_hex;
use loopd_domain::conversation::Message;
use loopd_domain::limits::MODEL_MAX_TOKENS_DEFAULT;
use loopd_models::{ModelError, ModelRequest};
use serde_json::Value;
use std::sync::Arc;

/// What a request is made of, beside its messages.
pub struct Ground<'a> {
    /// The session whose conversation it is: providers find their cache by it.
    pub session: &'a SessionId,
    pub spec: &'a AgentSpec,
    pub tools: Arc<Vec<ToolSpec>>,
    /// The turn's `output_schema`.
    pub schema: Option<&'a Value>,
}

/// `name`: the model as its provider knows it.
pub fn build(ground: Ground<'_>, name: &str, messages: Vec<Arc<Message>>) -> ModelRequest {
    let Ground { session, spec, tools, schema } = ground;
    ModelRequest {
        model: spec.model.clone(),
        name: name.to_owned(),
        system: system(spec.system.clone(), schema),
        tools,
        messages,
        max_tokens: spec.model.max_tokens.unwrap_or(MODEL_MAX_TOKENS_DEFAULT),
        cache_key: session.to_string(),
    }
}

/// What the journal has of a request: the digest of what is sent, or of why nothing can be.
pub fn digest(body: &Result<Vec<u8>, ModelError>) -> String {
    match body {
        Ok(body) => sha256_hex(body),
        Err(fault) => sha256_hex(fault.message.as_bytes()),
    }
}

/// The agent's system prompt, with the turn's output schema where there is one.
fn system(system: Option<String>, schema: Option<&Value>) -> Option<String> {
    let Some(schema) = schema else { return system };
    let rule = format!(
        "Your final answer must be one JSON value that satisfies this JSON Schema, with nothing before or after it:\n{schema}"
    );
    Some(system.map_or(rule.clone(), |system| format!("{system}\n\n{rule}")))
}
