//! What the tests have in common.

use loopd_domain::agent::{ModelRef, ToolSpec};
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::{Block, Message, Role};
use loopd_domain::event::NativeBlock;
use loopd_domain::{Clock, Timestamp};
use loopd_models::testing::{FakeProvider, Planned};
use loopd_models::{Answer, Delta, ModelError, ModelRequest, ModelsConfig, Registry};
use serde_json::{Value, json};
use std::sync::Arc;

pub struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::parse("2026-11-23T20:00:00Z").expect("a time")
    }
}

/// A fake provider, and a registry whose `anthropic` and `openai` point at it, with keys.
pub struct Setup {
    pub fake: FakeProvider,
    pub registry: Registry,
}

pub const ANTHROPIC_KEY: &str = "sk-ant-0123456789-abcdefghij";
pub const OPENAI_KEY: &str = "sk-proj-0123456789-abcdefghij";

impl Setup {
    pub async fn new() -> Self {
        let fake = FakeProvider::start().await.expect("a free port");
        let (anthropic, openai) = (fake.anthropic_url(), fake.openai_url());
        let env = move |name: &str| match name {
            "ANTHROPIC_API_KEY" => Some(ANTHROPIC_KEY.to_owned()),
            "ANTHROPIC_BASE_URL" => Some(anthropic.clone()),
            "OPENAI_API_KEY" => Some(OPENAI_KEY.to_owned()),
            "OPENAI_BASE_URL" => Some(openai.clone()),
            _ => None,
        };
        let config = ModelsConfig { silence_ms: Some(400), ..ModelsConfig::default() };
        let registry = Registry::from_config(config, &env, Arc::new(FixedClock)).expect("a registry");
        Setup { fake, registry }
    }

    pub async fn call(&self, request: &ModelRequest) -> Result<Answer, ModelError> {
        self.call_with_deltas(request).await.0
    }

    pub async fn call_with_deltas(&self, request: &ModelRequest) -> (Result<Answer, ModelError>, Vec<Delta>) {
        let resolved = self.registry.resolve(&request.model).expect("resolves");
        let request = ModelRequest { name: resolved.name.clone(), ..request.clone() };
        let mut deltas = Vec::new();
        let body = match resolved.provider.body(&request) {
            Ok(body) => body,
            Err(fault) => return (Err(fault), deltas),
        };
        let answer = resolved.provider.call(&request, body, &mut |delta| deltas.push(delta)).await;
        (answer, deltas)
    }

    /// Plans the reply, then calls.
    pub async fn exchange(&self, request: &ModelRequest, planned: impl Into<Planned>) -> Result<Answer, ModelError> {
        self.fake.plan(planned);
        self.call(request).await
    }

    /// The body of the last request that arrived.
    pub fn sent(&self) -> Value {
        self.fake.requests().last().expect("a request").json()
    }
}

pub fn model(id: &str) -> ModelRef {
    ModelRef { id: id.to_owned(), effort: None, base_url: None, max_tokens: None, temperature: None, extra: None }
}

/// A request with one message: "hi".
pub fn request(id: &str) -> ModelRequest {
    ModelRequest {
        model: model(id),
        name: id.split_once('/').map_or(id, |(_, name)| name).to_owned(),
        system: None,
        tools: Arc::new(Vec::new()),
        messages: vec![user(vec![text("hi")])],
        max_tokens: 4_096,
        cache_key: "sesn_1".to_owned(),
    }
}

pub fn tools() -> Arc<Vec<ToolSpec>> {
    let tool = |name: &str| ToolSpec {
        name: name.to_owned(),
        description: format!("the {name} tool"),
        input_schema: json!({"type": "object", "properties": {"b": {}, "a": {}}}),
    };
    Arc::new(vec![tool("read"), tool("bash")])
}

pub fn user(blocks: Vec<Block>) -> Arc<Message> {
    Arc::new(Message { role: Role::User, blocks })
}

pub fn assistant(blocks: Vec<Block>) -> Arc<Message> {
    Arc::new(Message { role: Role::Assistant, blocks })
}

pub fn text(text: &str) -> Block {
    Block::Content(ContentBlock::text(text))
}

pub fn thinking(dialect: &str, block: Value) -> Block {
    Block::Thinking(NativeBlock { dialect: dialect.to_owned(), block })
}

pub fn tool_use(id: &str, name: &str, input: Value) -> Block {
    let name = name.to_owned();
    Block::ToolUse { provider_call_id: id.to_owned(), name, input, raw_arguments: None, native: None }
}

pub fn result(id: &str, content: Vec<ContentBlock>, is_error: bool) -> Block {
    Block::ToolResult { provider_call_id: id.to_owned(), content, is_error }
}

pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|fault| panic!("{path}: {fault}"))
}
