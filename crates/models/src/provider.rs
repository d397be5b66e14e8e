//! The port: what a model is asked, what it answers, how it fails.

use async_trait::async_trait;
use loopd_domain::agent::{ModelRef, ToolSpec};
use loopd_domain::conversation::{Block, Message};
use loopd_domain::event::AnswerStop;
use loopd_domain::session::StopDetails;
use loopd_domain::usage::Usage;
use std::sync::Arc;

/// One question to a model.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    pub model: ModelRef,
    /// The name after the provider's prefix, as the provider knows it.
    pub name: String,
    pub system: Option<String>,
    pub tools: Arc<Vec<ToolSpec>>,
    pub messages: Vec<Arc<Message>>,
    pub max_tokens: u64,
    /// Stable per session: a routing hint for providers that cache prompts by key.
    pub cache_key: String,
}

/// A whole answer: blocks in the provider's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Only `Content(Text)`, `Thinking` and `ToolUse`.
    pub blocks: Vec<Block>,
    pub stop: AnswerStop,
    pub stop_details: Option<StopDetails>,
    pub usage: Usage,
    pub request_id: Option<String>,
    /// The model's name as the provider gave it.
    pub model: Option<String>,
}

/// A piece of an answer on its way. `index` counts blocks of the answer from 0.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    TextStart { index: usize },
    Text { index: usize, text: String },
    ThinkingStart { index: usize },
    ToolStart { index: usize, name: String },
}

/// One model provider. Implementations are stateless but for their HTTP client; dropping the future abandons the request.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The request as it is sent, so that its digest is of that; or why it cannot be sent. Never contains a key.
    fn body(&self, request: &ModelRequest) -> Result<Vec<u8>, ModelError>;

    /// Sends the request, whose `body` is what [`body`](Self::body) made of it, and reads the answer to its end; `deltas` is called as
    /// pieces arrive.
    async fn call(
        &self,
        request: &ModelRequest,
        body: Vec<u8>,
        deltas: &mut (dyn FnMut(Delta) + Send),
    ) -> Result<Answer, ModelError>;
}

/// A failed call. `Display` and `message` are safe to show: no key, no header, bounded length.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{class}: {message}")]
pub struct ModelError {
    pub class: ErrorClass,
    /// What happened and what to do about it.
    pub message: String,
    pub status: Option<u16>,
    pub retry_after_ms: Option<u64>,
    pub request_id: Option<String>,
    /// Tokens that the provider had reported before it failed.
    pub usage: Usage,
}

impl ModelError {
    /// An error that knows only its class and what to say; the rest is filled in where it is known.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        ModelError {
            class,
            message: message.into(),
            status: None,
            retry_after_ms: None,
            request_id: None,
            usage: Usage::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// 429.
    RateLimited,
    /// 529, 503, `overloaded_error` in mid-stream.
    Overloaded,
    /// 5xx.
    Server,
    /// Could not connect, connection reset, stream cut before its end.
    Connection,
    /// No byte for `limits::MODEL_SILENCE_MS`.
    Timeout,
    /// The answer is not of the wire format: HTML, broken JSON, an answer without end.
    Garbage,
    /// 400, 413, 422: the request itself.
    BadRequest,
    /// The conversation does not fit the model's context.
    ContextTooLong,
    /// 401.
    Authentication,
    /// 403.
    Permission,
    /// 404: no such model, or no such address.
    NotFound,
    /// 402, or a quota that does not come back by waiting.
    Billing,
}

impl ErrorClass {
    pub const ALL: [ErrorClass; 12] = [
        ErrorClass::RateLimited,
        ErrorClass::Overloaded,
        ErrorClass::Server,
        ErrorClass::Connection,
        ErrorClass::Timeout,
        ErrorClass::Garbage,
        ErrorClass::BadRequest,
        ErrorClass::ContextTooLong,
        ErrorClass::Authentication,
        ErrorClass::Permission,
        ErrorClass::NotFound,
        ErrorClass::Billing,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::RateLimited => "rate_limited",
            ErrorClass::Overloaded => "overloaded",
            ErrorClass::Server => "server",
            ErrorClass::Connection => "connection",
            ErrorClass::Timeout => "timeout",
            ErrorClass::Garbage => "garbage",
            ErrorClass::BadRequest => "bad_request",
            ErrorClass::ContextTooLong => "context_too_long",
            ErrorClass::Authentication => "authentication",
            ErrorClass::Permission => "permission",
            ErrorClass::NotFound => "not_found",
            ErrorClass::Billing => "billing",
        }
    }

    /// May the same request succeed later?
    pub fn is_retryable(self) -> bool {
        use ErrorClass::*;
        matches!(self, RateLimited | Overloaded | Server | Connection | Timeout | Garbage)
    }
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
