//! `POST /v1/sessions`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::fields::{Field, Fields, Kind, describe, may, must, request_body};
use crate::idempotency::{Done, Request};
use crate::state::{ServerState, detached};
use crate::v1::{agents, environments, path_id, vaults};
use crate::wire::agent::{OVERRIDES, read_overrides};
use crate::wire::session::{self, Session};
use crate::wire::{input, metadata};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::limits::{NAME_CHARS_MAX, SESSION_TITLE_CHARS_MAX};
use loopd_domain::session::{SessionAgent, TurnSettings};
use loopd_domain::{AgentId, EnvironmentId, Invalid};
use loopd_session::NewSession;
use serde_json::Value;

const AGENT_SHAPES: &str = "an agent id, {type: \"agent\", id, version?}, or {type: \"agent_with_overrides\", id, version?, model?, system?, tools?}";

const FIELDS: &[Field] = &[
    must("agent", Kind::Any, AGENT_SHAPES),
    may("environment_id", Kind::Text, "absent: the default environment"),
    may("title", Kind::Text, "up to 500 characters"),
    may("metadata", Kind::Object, "up to 16 pairs of texts"),
    may("initial_events", Kind::List, "up to 50 `user.message`; any of them starts the first turn at once"),
    may("resources", Kind::List, "not available in this version: empty or absent"),
    may("vault_ids", Kind::List, "up to 50 vaults whose credentials it may use; the first with a match wins"),
    may("budget", Kind::Object, "not available in this version: null or absent"),
];
request_body!(
    /// Body of `POST /v1/sessions`.
    SessionCreate, FIELDS
);

/// Makes a session, and starts its first turn when it comes with events.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", request_body = SessionCreate,
    responses((status = 200, body = Session), (status = "4XX", body = ErrorBody)))]
pub async fn create(
    State(state): State<ServerState>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody,
) -> Answer<Json<Session>> {
    let request = Request::of("sessions.create", &state, &caller, &headers, &body.digest)?;
    let new = read(&state, &caller, body.value).await?;
    let done = request.once(&state, async |key| {
        let (sessions, new) = (state.sessions.clone(), new.clone());
        let accepted = detached(async move { sessions.create(new, key).await }).await?;
        Ok(Done { repeated: accepted.repeated, value: accepted.session })
    });
    Ok(Json(session::write(&done.await?.value, state.clock.now())))
}

async fn read(state: &ServerState, caller: &Caller, body: Value) -> Answer<NewSession> {
    let mut fields = Fields::body(body, FIELDS)?;
    for name in ["resources", "budget"] {
        fields.unavailable(name)?;
    }
    let agent = fields.need("agent", AGENT_SHAPES)?;
    let environment = fields.text("environment_id", 1..=NAME_CHARS_MAX)?;
    let title = fields.text("title", 0..=SESSION_TITLE_CHARS_MAX)?;
    let metadata = metadata::read_new("metadata", fields.given("metadata"))?;
    let inputs = fields.given("initial_events").map_or(Ok(Vec::new()), |v| input::read_initial("initial_events", v))?;
    let vaults = vaults::read_ids(&mut fields, "vault_ids")?;
    let (environment, room) = room_of(state, caller, environment).await?;
    Ok(NewSession {
        workspace: caller.workspace.clone(),
        agent: agent_of(state, caller, agent).await?,
        environment,
        room,
        vaults: vaults::usable(state, caller, vaults).await?,
        title,
        metadata,
        inputs,
        settings: TurnSettings::default(),
    })
}

/// The environment that was named, or the default one.
pub async fn room_of(
    state: &ServerState,
    caller: &Caller,
    id: Option<String>,
) -> Answer<(Option<EnvironmentId>, EnvironmentConfig)> {
    match id {
        None => Ok((None, EnvironmentConfig::default())),
        Some(id) => {
            let found = environments::find_active(state, &caller.workspace, &id).await?;
            Ok((Some(found.id), found.config))
        }
    }
}

/// The effective agent: what was named, with what was overridden.
async fn agent_of(state: &ServerState, caller: &Caller, value: Value) -> Answer<SessionAgent> {
    if let Value::String(id) = value {
        return base(state, caller, &id, None).await;
    }
    let kind = value.get("type").and_then(Value::as_str).unwrap_or("agent").to_owned();
    let names: Vec<&str> = match kind.as_str() {
        "agent" => vec!["type", "id", "version"],
        "agent_with_overrides" => ["type", "id", "version"].into_iter().chain(OVERRIDES).collect(),
        other => return Err(Invalid::new("agent.type", other, "`agent` or `agent_with_overrides`").into()),
    };
    if !value.is_object() {
        return Err(Invalid::new("agent", describe(&value), AGENT_SHAPES).into());
    }
    let mut fields = Fields::open("agent", value, &names)?;
    let id = fields.need_text("id", 1..=NAME_CHARS_MAX)?;
    let version = fields.integer("version", 1..=i64::MAX as u64)?;
    let mut agent = base(state, caller, &id, version).await?;
    if kind == "agent_with_overrides" {
        agent.spec = read_overrides(&mut fields, &agent.spec).map_err(|fault| {
            let is_model = fault.field == "agent.model" && fault.value == "null";
            let error = ApiError::from(fault);
            if is_model { error.with_code("agent_model_required") } else { error }
        })?;
    }
    Ok(agent)
}

/// A stored agent, if it still takes sessions.
pub async fn base(state: &ServerState, caller: &Caller, id: &str, version: Option<u64>) -> Answer<SessionAgent> {
    let id = path_id("agent", id, AgentId::parse)?;
    let found = agents::find(state, &caller.workspace, &id, version).await?;
    if found.archived_at.is_some() {
        return Err(ApiError::invalid(format!("agent `{id}` is archived; accepted: one that is not")));
    }
    Ok(SessionAgent { id: Some(found.id), version: found.version, spec: found.spec })
}
