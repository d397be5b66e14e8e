//! Entries of the audit log as clients see them.

use loopd_domain::Timestamp;
use loopd_domain::audit::{Actor, AuditRecord, AuditResult, CredentialUse};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    pub id: String,
    #[serde(rename = "type")]
    #[schema(example = "audit_entry")]
    pub kind: &'static str,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    pub workspace_id: String,
    /// `{type, id?, issuer?, subject?}`; the type is `api_key`, `subject`, `development`, `operator`, `session` or `unknown`.
    #[schema(value_type = Object)]
    pub actor: Actor,
    #[schema(example = "agents.create")]
    pub action: String,
    /// The id of what it was done to; empty when it was done to nothing.
    pub resource: String,
    /// `{type, reason?}`; the type is `done`, `refused` or `failed` (then it may have happened).
    #[schema(value_type = Object)]
    pub result: AuditResult,
    pub request_id: Option<String>,
    /// Of `credentials.use`: `{vault, credential, host, port, calls}`.
    #[schema(value_type = Option<Object>)]
    pub credential_use: Option<CredentialUse>,
}

pub fn write(record: &AuditRecord) -> AuditEntry {
    let entry = &record.entry;
    AuditEntry {
        id: record.id.to_string(),
        kind: "audit_entry",
        created_at: entry.at,
        workspace_id: entry.workspace.to_string(),
        actor: entry.actor.clone(),
        action: entry.action.clone(),
        resource: entry.resource.clone(),
        result: entry.result.clone(),
        request_id: record.request.as_ref().map(|id| id.to_string()),
        credential_use: entry.credential_use.clone(),
    }
}
