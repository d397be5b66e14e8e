//! `POST /v1/agents`

use super::check_model;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::idempotency::{Done, Request};
use crate::state::ServerState;
use crate::wire::agent::{self, Agent, AgentCreate};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use loopd_domain::AgentId;
use loopd_domain::agent::Agent as Definition;
use loopd_store::AppendError;
use serde_json::json;

/// Makes an agent: version 1 of its definition.
#[utoipa::path(post, path = "/v1/agents", tag = "agents", request_body = AgentCreate,
    responses((status = 200, body = Agent), (status = "4XX", body = ErrorBody)))]
pub async fn create(
    State(state): State<ServerState>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody,
) -> Answer<Json<Agent>> {
    let request = Request::of("agents.create", &state, &caller, &headers, &body.digest)?;
    let spec = agent::read_new(body.value)?;
    check_model(&state, &spec.model)?;
    let now = state.clock.now();
    let new = Definition {
        id: AgentId::generate(state.ids.as_ref()),
        workspace: caller.workspace.clone(),
        version: 1,
        spec,
        created_at: now,
        updated_at: now,
        archived_at: None,
    };
    let done = request.once(&state, async |key| {
        let once = key.map(|key| request.record(key, json!({"id": new.id})));
        match state.store.agents().create(new.clone(), once).await {
            Ok(()) => Ok(Done { value: new.clone(), repeated: false }),
            Err(AppendError::Repeated(record)) => {
                let id = AgentId::parse("id", &request.referred(&record)?)?;
                let first = super::find(&state, &caller.workspace, &id, None).await?;
                Ok(Done { value: first, repeated: true })
            }
            Err(fault) => Err(ApiError::from(fault)),
        }
    });
    let done = done.await?.value;
    caller.made(&done.id);
    Ok(Json(agent::write(&done)))
}
