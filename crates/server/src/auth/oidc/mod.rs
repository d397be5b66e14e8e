//! Callers whom an OIDC issuer vouches for: a signed token instead of a key.
//!
//! - `config`: which issuer, and what its claims mean here. - `token`: is it the issuer's, for us, and now? Pure.
//! - `keys`: the issuer's keys, fetched, kept, renewed. - `fetch`: reads bounded documents from the issuer.
//!
//! Nothing in a token says how it is to be checked: the issuer's key does, so a token cannot choose a weaker algorithm. Secrets
//! that both sides share (HS256) are not taken at all.

mod config;
mod fetch;
mod keys;
#[cfg(test)]
mod tests;
mod token;

pub use config::{OidcConfig, OidcError};

use super::Caller;
use crate::error::ApiError;
use crate::state::ServerState;
use keys::{KeyFault, Keys};
use loopd_domain::WorkspaceId;
use loopd_domain::audit::Actor;
use std::sync::Arc;
use token::{Claims, Token};

pub struct Oidc {
    config: OidcConfig,
    keys: Arc<Keys>,
}

impl Oidc {
    /// Asks the issuer nothing yet: it may be down while this server starts.
    pub fn new(config: OidcConfig) -> Result<Self, OidcError> {
        let keys = Arc::new(Keys::new(fetch::Issuer::new(&config.issuer)?));
        Ok(Oidc { config, keys })
    }

    pub async fn caller(&self, state: &ServerState, text: &str) -> Result<Caller, ApiError> {
        let now = state.clock.now();
        let refused = |why: String| ApiError::unauthenticated(format!("the token {why}"));
        let token = Token::parse(text).map_err(refused)?;
        let key = self.keys.find(token.key_id(), token.algorithm(), now).await.map_err(|fault| match fault {
            KeyFault::Unknown => refused("is signed with a key that its issuer does not list".to_owned()),
            KeyFault::Unavailable(cause) => {
                let message = "the issuer of tokens cannot be asked for its keys now; try again";
                ApiError::unavailable(message, Some(cause))
            }
        })?;
        let claims = token.verify(&key, &self.config, now).map_err(refused)?;
        let workspace = self.workspace(state, &claims).await?;
        let actor = Actor::Subject { issuer: self.config.issuer.clone(), subject: claims.subject.clone() };
        Ok(Caller::new(workspace, actor, claims.scopes(&self.config)))
    }

    async fn workspace(&self, state: &ServerState, claims: &Claims) -> Result<WorkspaceId, ApiError> {
        let Some(claim) = &self.config.workspace_claim else { return Ok(WorkspaceId::default_workspace()) };
        let named = claims.text(claim).ok_or_else(|| {
            ApiError::forbidden(format!("the token has no claim `{claim}`; accepted: the name of a workspace in it"))
        })?;
        let found = match WorkspaceId::parse("workspace", named) {
            Ok(id) => state.store.workspaces().get(&id).await?,
            Err(_) => state.store.workspaces().named(named).await?,
        };
        let shown: String = named.chars().take(loopd_domain::limits::WORKSPACE_NAME_CHARS_MAX).collect();
        found.map(|workspace| workspace.id).ok_or_else(|| {
            ApiError::forbidden(format!("the token's `{claim}` is `{shown}`; accepted: a workspace that exists here"))
        })
    }
}
