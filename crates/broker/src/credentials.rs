//! Where egress and vault meet: the credentials of a session, opened.

use crate::client::Client;
use crate::secret::Secret;
use async_trait::async_trait;
use loopd_domain::{CredentialId, VaultId};
use std::sync::Arc;
use url::Url;

/// What a session may use. Asked for each request, so that a rotation or an archived credential reaches running sessions.
#[async_trait]
pub trait Credentials: Send + Sync {
    async fn of(&self, client: &Client) -> Result<Vec<Arc<BoundCredential>>, CredentialsError>;
}

/// What a session shows to MCP servers, which the host connects to for it.
#[async_trait]
pub trait Bearers: Send + Sync {
    /// The token for the server at this address. `None`: it is connected to without.
    async fn bearer_for(&self, client: &Client, url: &Url) -> Result<Option<Bearer>, CredentialsError>;
}

/// A token for one MCP server.
#[derive(Debug, Clone)]
pub struct Bearer {
    pub vault: VaultId,
    pub credential: CredentialId,
    /// One more with every rotation: a connection that was made with an earlier one is made anew.
    pub version: u64,
    pub token: Secret,
}

/// The vault cannot be read now. The request is refused; it is never sent without its credential.
#[derive(Debug, Clone, thiserror::Error)]
#[error("credentials are not available: {0}")]
pub struct CredentialsError(pub String);

/// A credential as it is bound to one session.
#[derive(Debug, Clone)]
pub struct BoundCredential {
    pub vault: VaultId,
    pub credential: CredentialId,
    /// Name of the variable in the room.
    pub variable: String,
    /// What stands in the room in the secret's place: random per session, letters and digits.
    pub placeholder: String,
    pub secret: Secret,
    /// Host names, or `*.` and a name; `None`: every host that the environment allows.
    pub hosts: Option<Vec<String>>,
    pub placement: Placement,
}

/// Where in a request the broker puts the secret in the placeholder's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Wherever it stands in these parts.
    Anywhere { headers: bool, body: bool },
    /// The request was signed with AWS Signature Version 4 under the placeholder as secret key: it is signed again.
    AwsSignature { access_key_id: String },
}
