//! What a session shows to MCP servers, so that they know who asks.

use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use url::Url;
use zeroize::Zeroizing;

/// The tokens of one session. Asked before each use of a connection: one that was made with another token is made anew.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// For the server at `url`. `None`: it is shown nothing.
    async fn of(&self, url: &Url) -> Result<Option<Token>, NoToken>;
}

/// There may be one, and it cannot be had now: the server is not asked without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoToken(pub String);

/// Wiped when dropped. It does not print.
#[derive(Clone)]
pub struct Token {
    /// Tells it from other tokens, and says nothing about it.
    pub mark: String,
    /// As it stands behind `Bearer`.
    pub text: Arc<Zeroizing<String>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.mark)
    }
}

/// Of a session that has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTokens;

#[async_trait]
impl Tokens for NoTokens {
    async fn of(&self, _: &Url) -> Result<Option<Token>, NoToken> {
        Ok(None)
    }
}
