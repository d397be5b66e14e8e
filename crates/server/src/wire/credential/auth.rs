//! What a credential is for, and where its secret goes: a variable of rooms, or the header for an MCP server.

use crate::fields::{Fields, describe, items, unavailable};
use crate::wire::environment::read_host;
use loopd_broker::Secret;
use loopd_broker::vault::mcp_url;
use loopd_domain::limits::{CREDENTIAL_HOSTS_MAX, SECRET_BYTES_MAX, SECRET_NAME_CHARS_MAX, TOOL_URL_CHARS_MAX};
use loopd_domain::vault::{CredentialAuth, CredentialNetworking, InjectionPlace};
use loopd_domain::{Invalid, variable};
use serde_json::{Value, json};

pub(super) const AUTH: &str = "{type: \"environment_variable\", secret_name, secret_value, networking, injection_location? | aws_signature?} or \
    {type: \"static_bearer\", mcp_server_url, token}";
/// Characters of an AWS access key id.
const ACCESS_KEY_CHARS_MAX: usize = 128;

pub(super) fn read(value: Value) -> Result<(CredentialAuth, Secret), Invalid> {
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

/// The new secret of a change, taken out of it.
pub(super) fn take_secret(value: &mut Value) -> Result<Option<Secret>, Invalid> {
    let kind = kind_of(value)?;
    let given = match (value.as_object_mut(), kind.as_str()) {
        (None, _) => None,
        (Some(map), "static_bearer") => map.swap_remove("token").map(|token| ("token", token)),
        (Some(map), _) => map.swap_remove("secret_value").map(|value| ("secret_value", value)),
    };
    let Some((name, value)) = given else { return Ok(None) };
    let mut alone = Fields::open("auth", json!({name: value}), &[name])?;
    let secret = secret(&mut alone, name)?;
    match name {
        "token" => secret.map(|token| header_value(&alone, token)).transpose(),
        _ => Ok(secret),
    }
}

pub(super) fn change(value: Value, old: CredentialAuth) -> Result<CredentialAuth, Invalid> {
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

pub(super) fn write(auth: &CredentialAuth) -> Value {
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
