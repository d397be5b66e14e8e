//! `POST /v1/environments`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::idempotency::{Done, Request};
use crate::state::ServerState;
use crate::wire::environment::{self, Environment, EnvironmentCreate};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use loopd_domain::EnvironmentId;
use loopd_domain::environment::Environment as Definition;
use loopd_store::AppendError;
use serde_json::json;

/// Makes an environment. Names may repeat: programs make theirs anew at every run.
#[utoipa::path(post, path = "/v1/environments", tag = "environments", request_body = EnvironmentCreate,
    responses((status = 200, body = Environment), (status = "4XX", body = ErrorBody)))]
pub async fn create(
    State(state): State<ServerState>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody,
) -> Answer<Json<Environment>> {
    let request = Request::of("environments.create", &state, &caller, &headers, &body.digest)?;
    let read = environment::read_new(body.value)?;
    state.sessions.check_room(&caller.workspace, "config", &read.config).await?;
    let now = state.clock.now();
    let new = Definition {
        id: EnvironmentId::generate(state.ids.as_ref()),
        workspace: caller.workspace.clone(),
        name: read.name,
        description: read.description,
        config: read.config,
        metadata: read.metadata,
        created_at: now,
        updated_at: now,
        archived_at: None,
    };
    let done = request.once(&state, async |key| {
        let once = key.map(|key| request.record(key, json!({"id": new.id})));
        match state.store.environments().create(new.clone(), once).await {
            Ok(()) => Ok(Done { value: new.clone(), repeated: false }),
            Err(AppendError::Repeated(record)) => {
                let first = super::find(&state, &caller.workspace, &request.referred(&record)?).await?;
                Ok(Done { value: first, repeated: true })
            }
            Err(fault) => Err(ApiError::from(fault)),
        }
    });
    let done = done.await?.value;
    caller.made(&done.id);
    Ok(Json(environment::write(&done)))
}
