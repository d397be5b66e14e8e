//! What a room has in the place of its session's secrets, and how those are kept from coming back.
//!
//! The driver of a session asks for both: variables when a turn begins, a mask for whatever the room, a tool of the host's or
//! the model says, before that is journaled, shown or logged.

use crate::client::Client;
use crate::credentials::{Bearer, Bearers, CredentialsError};
use async_trait::async_trait;
use std::borrow::Cow;
use std::sync::Arc;
use url::Url;

#[async_trait]
pub trait Placeholders: Send + Sync {
    /// Variables for the programs of the room: name and placeholder, each name once.
    async fn variables(&self, client: &Client) -> Result<Vec<(String, String)>, CredentialsError>;

    /// The mask as it is now. Asked for each result, also of sessions that have no vault, so that a rotation reaches a session
    /// that runs: it is to be cheap.
    async fn mask(&self, client: &Client) -> Result<Arc<dyn Mask>, CredentialsError>;
}

/// Puts placeholders where secrets of one session stand.
pub trait Mask: Send + Sync {
    /// The text without a secret, borrowed when there was none in it. A placeholder is letters and digits, and as long as the
    /// secret was.
    fn text<'t>(&self, text: &'t str) -> Cow<'t, str>;

    /// Bytes of the longest text that it replaces; 0: it replaces nothing.
    fn longest(&self) -> usize;

    /// Bytes at the end of `text`, which was masked already, that may be the beginning of a secret whose rest is still to come.
    fn open_end(&self, text: &str) -> usize {
        self.longest().saturating_sub(1).min(text.len())
    }
}

/// Of a session without credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

#[async_trait]
impl Placeholders for NoCredentials {
    async fn variables(&self, _client: &Client) -> Result<Vec<(String, String)>, CredentialsError> {
        Ok(Vec::new())
    }

    async fn mask(&self, _client: &Client) -> Result<Arc<dyn Mask>, CredentialsError> {
        Ok(Arc::new(NoCredentials))
    }
}

#[async_trait]
impl Bearers for NoCredentials {
    async fn bearer_for(&self, _client: &Client, _url: &Url) -> Result<Option<Bearer>, CredentialsError> {
        Ok(None)
    }
}

impl Mask for NoCredentials {
    fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        Cow::Borrowed(text)
    }

    fn longest(&self) -> usize {
        0
    }
}
