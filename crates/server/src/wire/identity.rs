//! Workspaces and API keys as clients see them.

use loopd_domain::identity::{ApiKey as StoredKey, NewKey, Workspace as StoredWorkspace};
use loopd_domain::{Timestamp, identity};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct Workspace {
    pub id: String,
    #[serde(rename = "type")]
    #[schema(example = "workspace")]
    pub kind: &'static str,
    pub name: String,
    /// The weakest kind of room that its sessions may have.
    #[schema(example = "namespaces")]
    pub require_isolation: &'static str,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKey {
    pub id: String,
    #[serde(rename = "type")]
    #[schema(example = "api_key")]
    pub kind: &'static str,
    pub name: String,
    pub workspace_id: String,
    /// Its first characters.
    #[schema(example = "lpd_0C3PX8V9")]
    pub hint: String,
    #[schema(value_type = Vec<String>)]
    pub scopes: identity::Scopes,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// The key, subject or mode that made it.
    pub created_by: String,
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    pub revoked_at: Option<Timestamp>,
    /// Exact to ten minutes.
    #[schema(value_type = Option<String>)]
    pub last_used_at: Option<Timestamp>,
}

#[derive(Serialize, ToSchema)]
pub struct NewApiKey {
    #[serde(flatten)]
    pub record: ApiKey,
    /// The key itself. It is told here and never again.
    pub key: String,
}

pub fn write_workspace(stored: &StoredWorkspace) -> Workspace {
    let (id, name) = (stored.id.to_string(), stored.name.clone());
    let require_isolation = stored.require_isolation.as_str();
    Workspace { id, kind: "workspace", name, require_isolation, created_at: stored.created_at }
}

pub fn write_key(stored: &StoredKey) -> ApiKey {
    ApiKey {
        id: stored.id.to_string(),
        kind: "api_key",
        name: stored.name.clone(),
        workspace_id: stored.workspace.to_string(),
        hint: stored.hint.clone(),
        scopes: stored.scopes.clone(),
        created_at: stored.created_at,
        created_by: stored.created_by.name(),
        expires_at: stored.expires_at,
        revoked_at: stored.revoked_at,
        last_used_at: stored.last_used_at,
    }
}

pub fn write_new_key(stored: &StoredKey, new: &NewKey) -> NewApiKey {
    NewApiKey { record: write_key(stored), key: new.reveal().to_owned() }
}
