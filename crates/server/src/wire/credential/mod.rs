//! Credentials: secrets come in here, and none goes out. No refusal repeats a value that could be one.
//!
//! - [`auth`]: what a credential is for, and where its secret goes.

mod auth;

use crate::fields::{Field, Fields, Kind, Patch, may, must, request_body};
use crate::wire::metadata;
use auth::AUTH;
use loopd_broker::Secret;
use loopd_domain::agent::Metadata;
use loopd_domain::limits::VAULT_NAME_CHARS_MAX;
use loopd_domain::vault::{Credential as Stored, CredentialAuth};
use loopd_domain::{Invalid, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// Fields whose values are shown in a refusal; in all others somebody may have put a secret.
const SHOWN: [&str; 8] = [
    "display_name",
    "metadata",
    "auth.type",
    "auth.mcp_server_url",
    "auth.secret_name",
    "auth.networking",
    "auth.injection_location",
    "auth.aws_signature",
];

pub const CREATE: &[Field] = &[
    must("auth", Kind::Object, AUTH),
    may("display_name", Kind::Text, "up to 255 characters"),
    may("metadata", Kind::Object, "up to 16 pairs of texts"),
];
request_body!(
    /// Body of `POST /v1/vaults/{vault_id}/credentials`.
    CredentialCreate, CREATE
);

pub const UPDATE: &[Field] = &[
    may(
        "auth",
        Kind::Object,
        "{type, secret_value?, networking?, injection_location?, aws_signature?} or {type, token?}; a new secret reaches running \
         sessions. Type, `secret_name` and `mcp_server_url` stay what they are",
    ),
    may("display_name", Kind::Text, "absent keeps it, null clears it"),
    may("metadata", Kind::Object, "key by key: a text sets, null removes"),
];
request_body!(
    /// Body of `POST /v1/vaults/{vault_id}/credentials/{credential_id}`.
    CredentialUpdate, UPDATE
);

/// What a caller says of a new credential.
#[derive(Debug)]
pub struct NewCredential {
    pub auth: CredentialAuth,
    pub secret: Secret,
    pub display_name: Option<String>,
    pub metadata: Metadata,
}

pub fn read_new(body: Value) -> Result<NewCredential, Invalid> {
    let read = || {
        let mut fields = Fields::body(body, CREATE)?;
        let (auth, secret) = auth::read(fields.need("auth", AUTH)?)?;
        Ok(NewCredential {
            auth,
            secret,
            display_name: fields.text("display_name", 0..=VAULT_NAME_CHARS_MAX)?.filter(|name| !name.is_empty()),
            metadata: metadata::read_new("metadata", fields.given("metadata"))?,
        })
    };
    read().map_err(hushed)
}

/// A value in a place that is not known may be a secret in the wrong place.
fn hushed(fault: Invalid) -> Invalid {
    let shown = SHOWN.iter().any(|name| {
        let rest = fault.field.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    });
    match shown || fault.value.is_empty() {
        true => fault,
        false => Invalid { value: "(not shown)".to_owned(), ..fault },
    }
}

/// A change of a credential, read as far as it can be without the credential.
#[derive(Debug)]
pub struct Edit {
    auth: Option<Value>,
    display_name: Patch<String>,
    metadata: metadata::MetadataPatch,
}

/// The new secret is apart, so that the rest can be applied more than once.
pub fn read_edit(body: Value) -> Result<(Edit, Option<Secret>), Invalid> {
    let read = || {
        let mut fields = Fields::body(body, UPDATE)?;
        let display_name = fields.patch_text("display_name", 1..=VAULT_NAME_CHARS_MAX)?;
        let metadata = metadata::read_patch("metadata", fields.given("metadata"), false)?;
        let mut edit = Edit { auth: None, display_name, metadata };
        let Some(mut auth) = fields.given("auth") else { return Ok((edit, None)) };
        let secret = auth::take_secret(&mut auth)?;
        edit.auth = Some(auth);
        Ok((edit, secret))
    };
    read().map_err(hushed)
}

impl Edit {
    /// The credential after the change; `updated_at` is the caller's business.
    pub fn apply(&self, old: Stored) -> Result<Stored, Invalid> {
        self.applied(old).map_err(hushed)
    }

    fn applied(&self, mut old: Stored) -> Result<Stored, Invalid> {
        match &self.display_name {
            Patch::Keep => {}
            Patch::Clear => old.display_name = None,
            Patch::Set(name) => old.display_name = Some(name.clone()),
        }
        old.metadata = metadata::apply("metadata", old.metadata, &self.metadata)?;
        if let Some(auth) = &self.auth {
            old.auth = auth::change(auth.clone(), old.auth)?;
        }
        Ok(old)
    }
}

/// A credential as clients see it: all but the secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct Credential {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub vault_id: String,
    #[schema(value_type = Object)]
    pub auth: Value,
    pub display_name: Option<String>,
    #[schema(value_type = Object)]
    pub metadata: Value,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub archived_at: Option<Timestamp>,
}

pub fn write(credential: &Stored) -> Credential {
    Credential {
        id: credential.id.to_string(),
        kind: "vault_credential",
        vault_id: credential.vault.to_string(),
        auth: auth::write(&credential.auth),
        display_name: credential.display_name.clone(),
        metadata: json!(credential.metadata),
        created_at: credential.created_at,
        updated_at: credential.updated_at,
        archived_at: credential.archived_at,
    }
}

#[cfg(test)]
mod tests;
