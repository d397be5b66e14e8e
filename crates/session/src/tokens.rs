//! What a session's MCP servers are shown: the tokens of its vaults.

use async_trait::async_trait;
use loopd_broker::{Bearers, Client};
use loopd_host_tools::{NoToken, Token, Tokens};
use std::sync::Arc;
use tokio::sync::watch;
use url::Url;

pub struct SessionTokens {
    pub bearers: Arc<dyn Bearers>,
    /// As whom the session is known now.
    pub client: watch::Receiver<Arc<Client>>,
}

#[async_trait]
impl Tokens for SessionTokens {
    async fn of(&self, url: &Url) -> Result<Option<Token>, NoToken> {
        let client = self.client.borrow().clone();
        let found = self.bearers.bearer_for(&client, url).await.map_err(|fault| NoToken(fault.to_string()))?;
        let Some(bearer) = found else { return Ok(None) };
        let mark = format!("{}.{}", bearer.credential, bearer.version);
        // The vault takes nothing else for a token.
        let text = str::from_utf8(bearer.token.reveal()).map_err(|_| NoToken("the token is no text".to_owned()))?;
        Ok(Some(Token { mark, text: Arc::new(text.to_owned().into()) }))
    }
}
