//! `POST /v1/keys`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::fields::{Field, Fields, Kind, describe, may, must, request_body};
use crate::state::ServerState;
use crate::v1::workspaces;
use crate::wire::identity::{self, NewApiKey};
use axum::Json;
use axum::extract::State;
use loopd_domain::identity::{ApiKey, Scopes};
use loopd_domain::limits::NAME_CHARS_MAX;
use loopd_domain::{ApiKeyId, Invalid, Timestamp};
use serde_json::Value;

const FIELDS: &[Field] = &[
    must("name", Kind::Text, "1 to 256 characters; what people know it by"),
    may("workspace", Kind::Text, "name or id; absent: the caller's own. One that is not there yet is made"),
    may("scopes", Kind::List, "of what the caller has, such as `sessions:write`; absent: `*`"),
    may("expires_at", Kind::Text, "an RFC 3339 time to come; absent: never"),
];
request_body!(
    /// Body of `POST /v1/keys`.
    KeyCreate, FIELDS
);

/// Makes a key. This answer alone has the key itself; only its digest is kept. A repetition makes another key.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = KeyCreate,
    responses((status = 200, body = NewApiKey), (status = "4XX", body = ErrorBody)))]
pub async fn create(State(state): State<ServerState>, caller: Caller, body: JsonBody) -> Answer<Json<NewApiKey>> {
    let now = state.clock.now();
    let mut fields = Fields::body(body.value, FIELDS)?;
    let name = fields.need_text("name", 1..=NAME_CHARS_MAX)?;
    let scopes = fields.given("scopes").map_or(Ok(Scopes::all()), read_scopes)?;
    let expires_at = fields.text("expires_at", 1..=64)?.map(|text| read_time(&text, now)).transpose()?;
    let named = fields.text("workspace", 1..=NAME_CHARS_MAX)?;
    if let Some(scope) = caller.scopes.lacks(&scopes) {
        // Nobody gives what he does not have.
        return Err(ApiError::lacks_scope(&scope));
    }
    let workspace = workspaces::meant_or_made(&state, &caller, named.as_deref()).await?;
    let new = state.auth.new_key()?;
    let key = ApiKey {
        id: ApiKeyId::generate(state.ids.as_ref()),
        workspace: workspace.id.clone(),
        name,
        hint: new.hint(),
        digest: new.digest(),
        scopes,
        created_at: now,
        created_by: caller.actor.clone(),
        expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    state.store.api_keys().create(key.clone()).await?;
    // Whoever made the first one knows that the door is closed now.
    state.auth.close();
    caller.made(&key.id);
    Ok(Json(identity::write_new_key(&key, &new)))
}

fn read_scopes(value: Value) -> Result<Scopes, Invalid> {
    let accepted = "a list of one or more scopes";
    let Value::Array(names) = &value else { return Err(Invalid::new("scopes", describe(&value), accepted)) };
    let text = |(place, name): (usize, &Value)| {
        let text = name.as_str().map(str::to_owned);
        text.ok_or_else(|| Invalid::new(format!("scopes[{place}]"), describe(name), "a text"))
    };
    let names = names.iter().enumerate().map(text).collect::<Result<Vec<String>, _>>()?;
    match names.is_empty() {
        true => Err(Invalid::missing("scopes", accepted)),
        false => Scopes::parse("scopes", names.iter().map(String::as_str)),
    }
}

fn read_time(text: &str, now: Timestamp) -> Result<Timestamp, Invalid> {
    let time = Timestamp::parse(text).filter(|time| *time > now);
    time.ok_or_else(|| Invalid::new("expires_at", text, "an RFC 3339 time to come, such as `2027-01-31T00:00:00Z`"))
}
