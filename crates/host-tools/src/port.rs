//! What a session sees of the tools that the host runs.

use crate::tokens::Tokens;
use async_trait::async_trait;
use loopd_domain::agent::HostTarget;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EffectClass, Outcome};
use loopd_domain::mcp::{McpServer, McpTool};
use serde_json::Value;
use std::sync::Arc;

/// Made once, by the composition root.
pub trait HostTools: Send + Sync {
    /// The tools of one session while somebody owns it. What they keep open is closed when this is dropped.
    fn for_session(&self, tokens: Arc<dyn Tokens>) -> Arc<dyn SessionTools>;
}

#[async_trait]
pub trait SessionTools: Send + Sync {
    /// Makes a call. Always comes to an end by itself. Dropping it abandons the call: what was sent stays sent.
    async fn call(&self, call: HostCall) -> HostResult;

    /// What an MCP server offers, within `limits::MCP_*`.
    async fn list(&self, server: &McpServer) -> Result<Vec<McpTool>, ListFault>;
}

/// Why a server's tools are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ListFault {
    /// It wants to know who asks.
    pub wants_authentication: bool,
    pub message: String,
}

impl ListFault {
    pub fn connection(message: impl Into<String>) -> Self {
        ListFault { wants_authentication: false, message: message.into() }
    }
    pub fn authentication(message: impl Into<String>) -> Self {
        ListFault { wants_authentication: true, message: message.into() }
    }
}

/// One call, decided and durable.
#[derive(Debug, Clone)]
pub struct HostCall {
    pub target: HostTarget,
    pub effect: EffectClass,
    pub input: Value,
    /// The same at every attempt (see `loopd_domain::event::idempotency_key`).
    pub key: String,
    /// W3C `traceparent` of who asked for the turn.
    pub traceparent: Option<String>,
}

/// What a call came to. Its text is within `limits::TOOL_RESULT_BYTES_MAX`.
#[derive(Debug, Clone, PartialEq)]
pub struct HostResult {
    pub content: Vec<ContentBlock>,
    pub is_error: bool,
    pub outcome: Outcome,
}

impl HostResult {
    pub fn completed(content: Vec<ContentBlock>, is_error: bool) -> Self {
        HostResult { content, is_error, outcome: Outcome::Completed }
    }

    /// The service answered that it will not, or cannot.
    pub fn refused(message: impl Into<String>) -> Self {
        HostResult::failed(Outcome::Completed, message.into())
    }

    /// Nothing left this machine.
    pub fn not_sent(reason: impl Into<String>) -> Self {
        HostResult::failed(Outcome::NotRun, format!("This call was not sent: {}", reason.into()))
    }

    /// It may have been sent, and there is no answer. What that means is the class's to say.
    pub fn unanswered(effect: EffectClass, timed_out: bool, reason: &str) -> Self {
        match (effect, timed_out) {
            (EffectClass::Pure, true) => HostResult::failed(Outcome::TimedOut, format!("No answer: {reason}.")),
            (EffectClass::Pure, false) => HostResult::failed(Outcome::Completed, format!("No answer: {reason}.")),
            _ => HostResult::failed(
                Outcome::Unknown,
                format!(
                    "outcome_unknown: the call was sent and its answer was lost ({reason}). It may or may not have \
                     happened. Check before you repeat it."
                ),
            ),
        }
    }

    fn failed(outcome: Outcome, message: String) -> Self {
        HostResult { content: vec![ContentBlock::text(message)], is_error: true, outcome }
    }
}
