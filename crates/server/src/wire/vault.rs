//! Vaults: reading a definition and a patch; writing the object.

use crate::fields::{Field, Fields, Kind, may, must, request_body};
use crate::wire::metadata;
use loopd_domain::agent::Metadata;
use loopd_domain::limits::VAULT_NAME_CHARS_MAX;
use loopd_domain::vault::Vault as Stored;
use loopd_domain::{Invalid, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

pub const CREATE: &[Field] = &[
    must("display_name", Kind::Text, "1 to 255 characters"),
    may("metadata", Kind::Object, "up to 16 pairs of texts"),
];
request_body!(
    /// Body of `POST /v1/vaults`.
    VaultCreate, CREATE
);

pub const UPDATE: &[Field] = &[
    may("display_name", Kind::Text, "absent keeps it"),
    may("metadata", Kind::Object, "key by key: a text sets, null removes"),
];
request_body!(
    /// Body of `POST /v1/vaults/{vault_id}`.
    VaultUpdate, UPDATE
);

pub fn read_new(body: Value) -> Result<(String, Metadata), Invalid> {
    let mut fields = Fields::body(body, CREATE)?;
    let display_name = fields.need_text("display_name", 1..=VAULT_NAME_CHARS_MAX)?;
    Ok((display_name, metadata::read_new("metadata", fields.given("metadata"))?))
}

/// The vault after a patch; `updated_at` is the caller's business.
pub fn patch(body: Value, mut old: Stored) -> Result<Stored, Invalid> {
    let mut fields = Fields::body(body, UPDATE)?;
    if let Some(name) = fields.text("display_name", 1..=VAULT_NAME_CHARS_MAX)? {
        old.display_name = name;
    }
    let patch = metadata::read_patch("metadata", fields.given("metadata"), false)?;
    old.metadata = metadata::apply("metadata", old.metadata, &patch)?;
    Ok(old)
}

/// A vault as clients see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Vault {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub display_name: String,
    #[schema(value_type = Object)]
    pub metadata: Value,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub archived_at: Option<Timestamp>,
}

pub fn write(vault: &Stored) -> Vault {
    Vault {
        id: vault.id.to_string(),
        kind: "vault",
        display_name: vault.display_name.clone(),
        metadata: json!(vault.metadata),
        created_at: vault.created_at,
        updated_at: vault.updated_at,
        archived_at: vault.archived_at,
    }
}
