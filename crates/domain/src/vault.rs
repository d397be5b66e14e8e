//! Vaults: what is said of secrets, and never a secret. Where one may be used, under which name, and until when.

use crate::agent::Metadata;
use crate::{CredentialId, Timestamp, VaultId, WorkspaceId};
use serde::{Deserialize, Serialize};

/// A set of credentials that sessions can be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vault {
    pub id: VaultId,
    pub workspace: WorkspaceId,
    pub display_name: String,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// From then on its credentials have no secrets, and no session uses it.
    pub archived_at: Option<Timestamp>,
}

/// One secret's description. The secret itself lies sealed beside it in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    pub id: CredentialId,
    pub vault: VaultId,
    pub workspace: WorkspaceId,
    pub display_name: Option<String>,
    pub auth: CredentialAuth,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// From then on its secret is gone, and its key is free.
    pub archived_at: Option<Timestamp>,
}

/// What the secret is for. Kind and key stay what they are; the rest may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CredentialAuth {
    /// Programs of the room find a placeholder in a variable; the broker puts the secret in its place on the way out.
    EnvironmentVariable {
        /// The variable's name.
        secret_name: String,
        networking: CredentialNetworking,
        place: InjectionPlace,
    },
    /// The host shows the secret as a bearer token to this MCP server.
    StaticBearer {
        /// As it was written.
        mcp_server_url: String,
        /// As it is compared (see [`CredentialAuth::key`]).
        normal_url: String,
    },
}

impl CredentialAuth {
    /// What no two active credentials of a vault share.
    pub fn key(&self) -> String {
        match self {
            CredentialAuth::EnvironmentVariable { secret_name, .. } => format!("variable:{secret_name}"),
            CredentialAuth::StaticBearer { normal_url, .. } => format!("mcp:{normal_url}"),
        }
    }
}

/// Hosts to which the secret may go; the environment must allow them as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CredentialNetworking {
    /// Every host that the environment allows.
    Unrestricted,
    /// Host names, addresses, or `*.` and a name.
    Limited { allowed_hosts: Vec<String> },
}

/// Where in a request the secret is put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InjectionPlace {
    /// Wherever the placeholder stands in these parts.
    Anywhere { header: bool, body: bool },
    /// Nowhere: requests that were signed under the placeholder (AWS Signature Version 4) are signed again.
    AwsSignature { access_key_id: String },
}
