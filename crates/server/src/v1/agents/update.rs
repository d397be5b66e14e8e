//! `POST /v1/agents/{agent_id}`

use super::{check_model, find};
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::state::ServerState;
use crate::v1::path_id;
use crate::wire::agent::{self, Agent, AgentUpdate};
use axum::Json;
use axum::extract::{Path, State};
use loopd_domain::AgentId;
use loopd_domain::agent::Agent as Definition;
use loopd_store::UpdateError;

/// Times that a change without `version` is tried again beside other changes.
const TRIES: u32 = 8;

/// Makes the next version. A change that changes nothing makes none. With `version`, a later latest version is a 409.
#[utoipa::path(post, path = "/v1/agents/{agent_id}", tag = "agents", request_body = AgentUpdate,
    params(("agent_id" = String, Path)),
    responses((status = 200, body = Agent), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn update(
    State(state): State<ServerState>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody,
) -> Answer<Json<Agent>> {
    let id = path_id("agent", &id, AgentId::parse)?;
    for _ in 0..TRIES {
        let patch = agent::read_patch(body.value.clone())?;
        let old = find(&state, &caller.workspace, &id, None).await?;
        if old.archived_at.is_some() {
            return Err(ApiError::invalid(format!("agent `{id}` is archived; it can no longer change")));
        }
        let expected = patch.version;
        if let Some(expected) = expected.filter(|v| *v != old.version) {
            return Err(UpdateError::VersionMismatch { expected, current: old.version }.into());
        }
        let spec = patch.apply(&old.spec)?;
        if spec == old.spec {
            return Ok(Json(agent::write(&old)));
        }
        if spec.model != old.spec.model {
            check_model(&state, &spec.model)?;
        }
        let new = Definition { version: old.version + 1, spec, updated_at: state.clock.now(), ..old.clone() };
        match state.store.agents().update(new.clone(), old.version).await {
            Ok(()) => return Ok(Json(agent::write(&new))),
            // Another change came first; without a version to hold on to, ours is made on top of it.
            Err(UpdateError::VersionMismatch { .. }) if expected.is_none() => continue,
            Err(fault) => return Err(fault.into()),
        }
    }
    Err(ApiError::conflict(format!("agent `{id}` is changed by others all the time; send `version` or try again")))
}
