//! Credentials: secrets come in here, and none goes out. No refusal repeats a value that could be one.

use crate::fields::{Field, Fields, Kind, Patch, describe, items, may, must, request_body, unavailable};
use crate::wire::environment::read_host;
use crate::wire::metadata;
use loopd_broker::Secret;
use loopd_broker::vault::mcp_url;
use loopd_domain::agent::Metadata;
use loopd_domain::limits::{
    CREDENTIAL_HOSTS_MAX, SECRET_BYTES_MAX, SECRET_NAME_CHARS_MAX, TOOL_URL_CHARS_MAX, VAULT_NAME_CHARS_MAX,
};
use loopd_domain::vault::{Credential as Stored, CredentialAuth, CredentialNetworking, InjectionPlace};
use loopd_domain::{Invalid, Timestamp, variable};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

const AUTH: &str = "{type: \"environment_variable\", secret_name, secret_value, networking, injection_location? | aws_signature?} or \
    {type: \"static_bearer\", mcp_server_url, token}";
/// Characters of an AWS access key id.
const ACCESS_KEY_CHARS_MAX: usize = 128;
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
        let (auth, secret) = read_auth(fields.need("auth", AUTH)?)?;
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

fn read_auth(value: Value) -> Result<(CredentialAuth, Secret), Invalid> {
    match kind_of(&value)?.as_str() {
        "environment_variable" => {
            let names = ["type", "secret_name", "secret_value", "networking", "injection_location", "aws_signature"];
            let mut fields = Fields::open("auth", value, &names)?;
            let secret = need_secret(&mut fields, "secret_value")?;
            let secret_name = read_name(&mut fields)?;
            let networking =
                fields.need("networking", "{type: \"unrestricted\"} or {type: \"limited\", allowed_hosts}")?;
            let networking = read_networking(&fields.path("networking"), networking)?;
            let both = InjectionPlace::Anywhere { header: true, body: true };
            let place = read_place(&mut fields, (false, false))?.unwrap_or(both);
            Ok((CredentialAuth::EnvironmentVariable { secret_name, networking, place }, secret))
        }
        _ => {
            let mut fields = Fields::open("auth", value, &["type", "mcp_server_url", "token"])?;
            let token = need_secret(&mut fields, "token").and_then(|token| header_value(&fields, token))?;
            let mcp_server_url = fields.need_text("mcp_server_url", 1..=TOOL_URL_CHARS_MAX)?;
            let normal_url = normal_address(&fields, &mcp_server_url)?;
            Ok((CredentialAuth::StaticBearer { mcp_server_url, normal_url }, token))
        }
    }
}

fn kind_of(value: &Value) -> Result<String, Invalid> {
    let kind = value.get("type").and_then(Value::as_str);
    match kind {
        Some(kind @ ("environment_variable" | "static_bearer")) => Ok(kind.to_owned()),
        Some("mcp_oauth") => Err(unavailable("auth.type", &json!("mcp_oauth"))),
        Some(other) => {
            let shown: String = other.chars().take(60).collect();
            Err(Invalid::new("auth.type", shown, "`environment_variable` or `static_bearer`"))
        }
        None => Err(Invalid::missing("auth.type", "`environment_variable` or `static_bearer`")),
    }
}

fn need_secret(fields: &mut Fields, name: &str) -> Result<Secret, Invalid> {
    let accepted = format!("a string of 1 to {SECRET_BYTES_MAX} bytes without NUL");
    secret(fields, name)?.ok_or_else(|| Invalid::missing(fields.path(name), accepted))
}

/// Takes the text itself: there is no second copy of it.
fn secret(fields: &mut Fields, name: &str) -> Result<Option<Secret>, Invalid> {
    let text = match fields.given(name) {
        None => return Ok(None),
        Some(Value::String(text)) => Secret::new(text.into_bytes()),
        Some(_) => Secret::new(Vec::new()),
    };
    let value = text.reveal();
    match (1..=SECRET_BYTES_MAX).contains(&value.len()) && !value.contains(&0) {
        true => Ok(Some(text)),
        false => {
            let accepted = format!("a string of 1 to {SECRET_BYTES_MAX} bytes without NUL");
            Err(Invalid::new(fields.path(name), "(not shown)", accepted))
        }
    }
}

/// A token that cannot stand in a header could never be shown.
fn header_value(fields: &Fields, token: Secret) -> Result<Secret, Invalid> {
    match token.reveal().iter().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token),
        false => Err(Invalid::new(fields.path("token"), "(not shown)", "printable ASCII without spaces")),
    }
}

fn read_name(fields: &mut Fields) -> Result<String, Invalid> {
    let name = fields.need_text("secret_name", 1..=SECRET_NAME_CHARS_MAX)?;
    let at = fields.path("secret_name");
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !letters || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Invalid::new(at, name, "the name of a variable: letters, digits and `_`, no digit first"));
    }
    if !variable::may_be_set(&name) {
        return Err(Invalid::new(at, name, "a variable that programs do not need for anything else"));
    }
    Ok(name)
}

fn normal_address(fields: &Fields, text: &str) -> Result<String, Invalid> {
    let accepted = "an `https://` or `http://` address without user name and password";
    // An address with a password in it is not repeated.
    mcp_url::normal(text).ok_or_else(|| Invalid::new(fields.path("mcp_server_url"), "(not shown)", accepted))
}

fn read_networking(at: &str, value: Value) -> Result<CredentialNetworking, Invalid> {
    let mut fields = Fields::open(at, value, &["type", "allowed_hosts"])?;
    match fields.word("type", &["unrestricted", "limited"])? {
        None => Err(Invalid::missing(fields.path("type"), "`unrestricted` or `limited`")),
        Some("unrestricted") => match fields.given("allowed_hosts") {
            None => Ok(CredentialNetworking::Unrestricted),
            Some(value) => {
                Err(Invalid::new(fields.path("allowed_hosts"), describe(&value), "nothing beside `unrestricted`"))
            }
        },
        Some(_) => {
            let at = fields.path("allowed_hosts");
            let hosts = items(&at, fields.need("allowed_hosts", "a list of host names")?, CREDENTIAL_HOSTS_MAX)?;
            let hosts = hosts.into_iter().enumerate().map(|(i, v)| read_host(&format!("{at}[{i}]"), v));
            let allowed_hosts = hosts.collect::<Result<Vec<_>, _>>()?;
            match allowed_hosts.is_empty() {
                true => Err(Invalid::missing(at, format!("1 to {CREDENTIAL_HOSTS_MAX} host names"))),
                false => Ok(CredentialNetworking::Limited { allowed_hosts }),
            }
        }
    }
}

/// Where the secret goes; `base` is what a location has that is not named. `None`: nothing was said.
fn read_place(fields: &mut Fields, base: (bool, bool)) -> Result<Option<InjectionPlace>, Invalid> {
    let at = fields.path("injection_location");
    let anywhere = match fields.take("injection_location") {
        None => None,
        Some(Value::Null) => return Err(Invalid::new(at, "null", "an object with `header` or `body`, or absent")),
        Some(value) => {
            let mut parts = Fields::open(&at, value, &["header", "body"])?;
            let header = parts.boolean("header")?.unwrap_or(base.0);
            let body = parts.boolean("body")?.unwrap_or(base.1);
            if !header && !body {
                return Err(Invalid::new(at, "neither `header` nor `body`", "at least one of them"));
            }
            Some(InjectionPlace::Anywhere { header, body })
        }
    };
    let at = fields.path("aws_signature");
    match fields.given("aws_signature") {
        None => Ok(anywhere),
        Some(_) if anywhere.is_some() => {
            Err(Invalid::new(at, "an object", "`injection_location` or `aws_signature`, not both"))
        }
        Some(value) => {
            let mut parts = Fields::open(&at, value, &["access_key_id"])?;
            let access_key_id = parts.need_text("access_key_id", 1..=ACCESS_KEY_CHARS_MAX)?;
            match access_key_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                true => Ok(Some(InjectionPlace::AwsSignature { access_key_id })),
                false => Err(Invalid::new(
                    parts.path("access_key_id"),
                    access_key_id,
                    "letters, digits and `_`, as AWS gives it",
                )),
            }
        }
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
        let kind = kind_of(&auth)?;
        let given = match (auth.as_object_mut(), kind.as_str()) {
            (None, _) => None,
            (Some(map), "static_bearer") => map.swap_remove("token").map(|token| ("token", token)),
            (Some(map), _) => map.swap_remove("secret_value").map(|value| ("secret_value", value)),
        };
        let secret = match given {
            None => None,
            Some((name, value)) => {
                let mut alone = Fields::open("auth", json!({name: value}), &[name])?;
                let secret = secret(&mut alone, name)?;
                match name {
                    "token" => secret.map(|token| header_value(&alone, token)).transpose()?,
                    _ => secret,
                }
            }
        };
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
            old.auth = changed(auth.clone(), old.auth)?;
        }
        Ok(old)
    }
}

fn changed(value: Value, old: CredentialAuth) -> Result<CredentialAuth, Invalid> {
    let (kind, own) = (kind_of(&value)?, word(&old));
    if kind != own {
        return Err(Invalid::new("auth.type", kind, format!("`{own}`: the type of a credential cannot change")));
    }
    let stays = |fields: &Fields, name: &str, new: &str, old: &str| match new == old {
        true => Ok(()),
        false => {
            Err(Invalid::new(fields.path(name), new, format!("`{old}`: it cannot change; make another credential")))
        }
    };
    match old {
        CredentialAuth::StaticBearer { mcp_server_url, normal_url } => {
            let mut fields = Fields::open("auth", value, &["type", "mcp_server_url"])?;
            if let Some(text) = fields.text("mcp_server_url", 0..=TOOL_URL_CHARS_MAX)? {
                let new = normal_address(&fields, &text)?;
                stays(&fields, "mcp_server_url", &new, &normal_url)?;
            }
            Ok(CredentialAuth::StaticBearer { mcp_server_url, normal_url })
        }
        CredentialAuth::EnvironmentVariable { secret_name, networking, place } => {
            let names = ["type", "secret_name", "networking", "injection_location", "aws_signature"];
            let mut fields = Fields::open("auth", value, &names)?;
            if let Some(new) = fields.text("secret_name", 0..=SECRET_NAME_CHARS_MAX)? {
                stays(&fields, "secret_name", &new, &secret_name)?;
            }
            let networking = match fields.given("networking") {
                None => networking,
                Some(value) => read_networking(&fields.path("networking"), value)?,
            };
            let base = match &place {
                InjectionPlace::Anywhere { header, body } => (*header, *body),
                InjectionPlace::AwsSignature { .. } => (false, false),
            };
            let place = read_place(&mut fields, base)?.unwrap_or(place);
            Ok(CredentialAuth::EnvironmentVariable { secret_name, networking, place })
        }
    }
}

fn word(auth: &CredentialAuth) -> &'static str {
    match auth {
        CredentialAuth::EnvironmentVariable { .. } => "environment_variable",
        CredentialAuth::StaticBearer { .. } => "static_bearer",
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
        auth: write_auth(&credential.auth),
        display_name: credential.display_name.clone(),
        metadata: json!(credential.metadata),
        created_at: credential.created_at,
        updated_at: credential.updated_at,
        archived_at: credential.archived_at,
    }
}

fn write_auth(auth: &CredentialAuth) -> Value {
    match auth {
        CredentialAuth::EnvironmentVariable { secret_name, networking, place } => {
            let (header, body, aws) = match place {
                InjectionPlace::Anywhere { header, body } => (*header, *body, Value::Null),
                InjectionPlace::AwsSignature { access_key_id } => {
                    (false, false, json!({"access_key_id": access_key_id}))
                }
            };
            json!({
                "type": "environment_variable",
                "secret_name": secret_name,
                "networking": networking,
                "injection_location": {"header": header, "body": body},
                "aws_signature": aws,
            })
        }
        CredentialAuth::StaticBearer { mcp_server_url, .. } => {
            json!({"type": "static_bearer", "mcp_server_url": mcp_server_url})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loopd_domain::{CredentialId, VaultId, WorkspaceId};

    fn variable() -> Value {
        json!({"type": "environment_variable", "secret_name": "API_TOKEN", "secret_value": "hunter2hunter2",
            "networking": {"type": "limited", "allowed_hosts": ["API.example.com", "*.h.org", "10.0.0.1"]}})
    }

    fn with(mut auth: Value, extra: Value) -> Value {
        let map = auth.as_object_mut().expect("an object");
        map.extend(extra.as_object().expect("an object").clone());
        json!({"auth": auth})
    }

    fn stored(auth: CredentialAuth) -> Stored {
        Stored {
            id: CredentialId::parse("id", "vcrd_1").expect("an id"),
            vault: VaultId::parse("id", "vlt_1").expect("an id"),
            workspace: WorkspaceId::default_workspace(),
            display_name: None,
            auth,
            metadata: Metadata::new(),
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            archived_at: None,
        }
    }

    #[test]
    fn a_variable_is_read_and_shown_without_its_secret() {
        let new = read_new(json!({"auth": variable(), "display_name": "d"})).expect("valid");
        assert_eq!(new.secret.reveal(), b"hunter2hunter2");
        let wire = serde_json::to_value(write(&stored(new.auth))).expect("serialises");
        let expected = json!({"type": "environment_variable", "secret_name": "API_TOKEN",
            "networking": {"type": "limited", "allowed_hosts": ["api.example.com", "*.h.org", "10.0.0.1"]},
            "injection_location": {"header": true, "body": true}, "aws_signature": null});
        assert_eq!(wire["auth"], expected);
        assert!(!wire.to_string().contains("hunter2"));
    }

    #[test]
    fn places_are_both_one_or_a_signature() {
        let place = |extra: Value| match read_new(with(variable(), extra)).expect("valid").auth {
            CredentialAuth::EnvironmentVariable { place, .. } => place,
            other => panic!("{other:?}"),
        };
        let anywhere = |header, body| InjectionPlace::Anywhere { header, body };
        assert_eq!(place(json!({})), anywhere(true, true));
        assert_eq!(place(json!({"injection_location": {"header": true}})), anywhere(true, false));
        assert_eq!(place(json!({"injection_location": {"body": true, "header": false}})), anywhere(false, true));
        let signed = place(json!({"aws_signature": {"access_key_id": "AKIA0123"}}));
        assert_eq!(signed, InjectionPlace::AwsSignature { access_key_id: "AKIA0123".to_owned() });
    }

    #[test]
    fn refusals_name_the_field_and_no_secret() {
        let bearer =
            |token: Value| json!({"auth": {"type": "static_bearer", "mcp_server_url": "https://h/", "token": token}});
        let cases = [
            (json!({"auth": "hunter2"}), "auth.type"),
            (json!({}), "auth"),
            (json!({"auth": variable(), "token": "hunter2"}), "token"),
            (json!({"secret_value": "hunter2", "auth": {}}), "secret_value"),
            (with(variable(), json!({"secret_valeu": "hunter2"})), "auth.secret_valeu"),
            (with(variable(), json!({"secret_value": ["hunter2"]})), "auth.secret_value"),
            (with(variable(), json!({"secret_value": {"type": "hunter2"}})), "auth.secret_value"),
            (with(variable(), json!({"secret_value": "hunter2".repeat(SECRET_BYTES_MAX)})), "auth.secret_value"),
            (with(variable(), json!({"secret_value": "hunter2\u{0}"})), "auth.secret_value"),
            (with(variable(), json!({"secret_value": ""})), "auth.secret_value"),
            (with(variable(), json!({"secret_value": null})), "auth.secret_value"),
            (with(variable(), json!({"secret_name": "1A"})), "auth.secret_name"),
            (with(variable(), json!({"secret_name": "A-B"})), "auth.secret_name"),
            (with(variable(), json!({"secret_name": "ld_preload"})), "auth.secret_name"),
            (with(variable(), json!({"secret_name": "PATH"})), "auth.secret_name"),
            (with(variable(), json!({"networking": null})), "auth.networking"),
            (with(variable(), json!({"networking": {"type": "none"}})), "auth.networking.type"),
            (with(variable(), json!({"networking": {"type": "limited"}})), "auth.networking.allowed_hosts"),
            (
                with(variable(), json!({"networking": {"type": "limited", "allowed_hosts": []}})),
                "auth.networking.allowed_hosts",
            ),
            (
                with(variable(), json!({"networking": {"type": "limited", "allowed_hosts": vec!["h"; 17]}})),
                "auth.networking.allowed_hosts",
            ),
            (
                with(variable(), json!({"networking": {"type": "limited", "allowed_hosts": ["h/x"]}})),
                "auth.networking.allowed_hosts[0]",
            ),
            (with(variable(), json!({"injection_location": null})), "auth.injection_location"),
            (with(variable(), json!({"injection_location": {}})), "auth.injection_location"),
            (
                with(variable(), json!({"injection_location": {"header": false, "body": false}})),
                "auth.injection_location",
            ),
            (
                with(
                    variable(),
                    json!({"injection_location": {"header": true}, "aws_signature": {"access_key_id": "A"}}),
                ),
                "auth.aws_signature",
            ),
            (with(variable(), json!({"aws_signature": {}})), "auth.aws_signature.access_key_id"),
            (json!({"auth": {"type": "mcp_oauth", "access_token": "hunter2"}}), "auth.type"),
            (json!({"auth": {"type": "hunter"}}), "auth.type"),
            (bearer(json!("hunter2 with spaces")), "auth.token"),
            (bearer(json!("hunter2\r\nx: y")), "auth.token"),
            (bearer(json!(7)), "auth.token"),
            (
                json!({"auth": {"type": "static_bearer", "mcp_server_url": "https://me:hunter2@h/", "token": "t"}}),
                "auth.mcp_server_url",
            ),
        ];
        for (body, field) in cases {
            let fault = read_new(body.clone()).expect_err("refused");
            assert_eq!(fault.field, field, "{body:.200}");
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
        }
        let told = read_new(json!({"auth": {"type": "mcp_oauth"}})).expect_err("refused").to_string();
        assert!(told.contains("not available in this version"), "{told}");
    }

    #[test]
    fn an_edit_changes_what_it_names() {
        let old = stored(read_new(json!({"auth": variable()})).expect("valid").auth);
        let edit = |body: Value| read_edit(body).and_then(|(edit, secret)| Ok((edit.apply(old.clone())?, secret)));
        let (new, secret) = edit(json!({"display_name": "n", "metadata": {"a": "b"}})).expect("valid");
        assert_eq!((new.display_name.as_deref(), new.metadata.len(), secret.is_none()), (Some("n"), 1, true));
        assert_eq!(new.auth, old.auth);

        let (new, secret) =
            edit(json!({"auth": {"type": "environment_variable", "secret_value": "new-secret"}})).expect("valid");
        assert_eq!(new, old);
        assert_eq!(secret.expect("one").reveal(), b"new-secret");

        let auth = json!({"type": "environment_variable", "secret_value": null, "injection_location": {"body": false},
            "networking": {"type": "unrestricted"}, "secret_name": "API_TOKEN"});
        let (new, secret) = edit(json!({"auth": auth})).expect("valid");
        assert!(secret.is_none());
        let CredentialAuth::EnvironmentVariable { networking, place, .. } = &new.auth else { panic!("{new:?}") };
        assert_eq!(*networking, CredentialNetworking::Unrestricted);
        assert_eq!(*place, InjectionPlace::Anywhere { header: true, body: false });

        for (auth, field) in [
            (json!({"type": "static_bearer", "token": "hunter2"}), "auth.type"),
            (json!({"type": "environment_variable", "secret_name": "OTHER"}), "auth.secret_name"),
            (
                json!({"type": "environment_variable", "injection_location": {"body": false, "header": false}}),
                "auth.injection_location",
            ),
            (json!({"type": "environment_variable", "token": "hunter2"}), "auth.token"),
            (json!({"secret_value": "hunter2"}), "auth.type"),
        ] {
            let fault = edit(json!({"auth": auth})).expect_err("refused");
            assert_eq!(fault.field, field);
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn a_bearer_keeps_its_server() {
        let auth = json!({"type": "static_bearer", "mcp_server_url": "https://H/x/", "token": "tok"});
        let new = read_new(json!({"auth": auth})).expect("valid");
        assert_eq!(new.auth.key(), "mcp:https://h/x");
        let old = stored(new.auth);
        let edit = |auth: Value| {
            read_edit(json!({"auth": auth})).and_then(|(edit, secret)| Ok((edit.apply(old.clone())?, secret)))
        };
        let (new, secret) = edit(json!({"type": "static_bearer", "token": "other"})).expect("valid");
        assert_eq!((new.auth, secret.expect("one").reveal()), (old.auth.clone(), b"other".as_slice()));
        edit(json!({"type": "static_bearer", "mcp_server_url": "https://h:443/x"})).expect("the same server");
        let fault = edit(json!({"type": "static_bearer", "mcp_server_url": "https://h/y"})).expect_err("another");
        assert_eq!(fault.field, "auth.mcp_server_url");
        let fault = edit(json!({"type": "static_bearer", "token": "a b"})).expect_err("no header");
        assert_eq!(fault.field, "auth.token");
    }
}
