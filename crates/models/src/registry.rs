//! Which provider a model id belongs to, what is configured, and what a model costs.

use crate::provider::Provider;
use loopd_domain::agent::ModelRef;
use loopd_domain::usage::Price;
use std::sync::Arc;

/// Everything that is configured. Built once at start; cheap to share.
pub struct Registry {}

/// A model that can be called.
#[derive(Clone)]
pub struct Resolved {
    pub provider: Arc<dyn Provider>,
    /// As the provider knows it.
    pub name: String,
    /// `provider/name`, as events and traces show it.
    pub full_id: String,
    /// `None`: not known, so cost is not known either.
    pub price: Option<Price>,
}

/// Why a model reference cannot be called. `Display` names the value and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("model `{id}`: no provider is called `{provider}`; accepted: {accepted}")]
    UnknownProvider { id: String, provider: String, accepted: String },
    #[error("model `{id}` names no provider; accepted: `provider/name`, or a bare `claude-…` or `gpt-…`")]
    NoProvider { id: String },
    #[error("model `{id}` needs a key: set {variable} and start again")]
    MissingKey { id: String, variable: String },
    #[error("model `{id}`: {reason}")]
    Unusable { id: String, reason: String },
}

/// One row of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    pub id: String,
    pub display_name: String,
    pub scripted: bool,
    pub price: Option<Price>,
}

impl Registry {
    pub fn resolve(&self, model: &ModelRef) -> Result<Resolved, ResolveError> {
        Err(ResolveError::NoProvider { id: model.id.clone() })
    }

    pub fn list(&self) -> Vec<ModelInfo> {
        Vec::new()
    }
}
