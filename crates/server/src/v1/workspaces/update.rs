//! `POST /v1/workspaces/{workspace_id}`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ErrorBody};
use crate::fields::{Field, Fields, Kind, may, request_body};
use crate::state::ServerState;
use crate::wire::identity::{self, Workspace};
use axum::Json;
use axum::extract::{Path, State};

const FIELDS: &[Field] =
    &[may("require_isolation", Kind::Text, "the weakest kind of room: `namespaces` or `microvm`; absent keeps it")];
request_body!(
    /// Body of `POST /v1/workspaces/{workspace_id}`.
    WorkspaceUpdate, FIELDS
);

/// Changes what a workspace requires. Environments and sessions that are weaker stay, and get no room any more.
#[utoipa::path(post, path = "/v1/workspaces/{workspace_id}", tag = "workspaces", request_body = WorkspaceUpdate,
    params(("workspace_id" = String, Path, description = "its id, or its name")),
    responses((status = 200, body = Workspace), (status = "4XX", body = ErrorBody)))]
pub async fn update(
    State(state): State<ServerState>,
    caller: Caller,
    Path(named): Path<String>,
    body: JsonBody,
) -> Answer<Json<Workspace>> {
    let mut fields = Fields::body(body.value, FIELDS)?;
    let required = super::read_isolation(&mut fields)?;
    let there = super::find(&state, &named).await?.ok_or_else(|| super::absent(&named))?;
    caller.made(&there.id);
    let now = match required {
        None => there,
        Some(required) => {
            let changed = state.store.workspaces().require(&there.id, required).await?;
            changed.ok_or_else(|| super::absent(&named))?
        }
    };
    Ok(Json(identity::write_workspace(&now)))
}
