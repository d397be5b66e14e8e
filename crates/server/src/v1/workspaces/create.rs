//! `POST /v1/workspaces`

use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::fields::{Field, Fields, Kind, may, must, request_body};
use crate::state::ServerState;
use crate::wire::identity::{self, Workspace};
use axum::Json;
use axum::extract::State;
use loopd_domain::identity::check_workspace_name;
use loopd_domain::limits::WORKSPACE_NAME_CHARS_MAX;

const FIELDS: &[Field] = &[
    must("name", Kind::Text, "up to 64 of `a` to `z`, digits, `-`, `_` and `.`"),
    may("require_isolation", Kind::Text, "the weakest kind of room: `namespaces` (the default) or `microvm`"),
];
request_body!(
    /// Body of `POST /v1/workspaces`.
    WorkspaceCreate, FIELDS
);

/// Makes a workspace. One that is there already under this name is the answer, if it requires what is asked for.
#[utoipa::path(post, path = "/v1/workspaces", tag = "workspaces", request_body = WorkspaceCreate,
    responses((status = 200, body = Workspace), (status = "4XX", body = ErrorBody)))]
pub async fn create(State(state): State<ServerState>, caller: Caller, body: JsonBody) -> Answer<Json<Workspace>> {
    let mut fields = Fields::body(body.value, FIELDS)?;
    let name = fields.need_text("name", 1..=WORKSPACE_NAME_CHARS_MAX)?;
    check_workspace_name("name", &name)?;
    let required = super::read_isolation(&mut fields)?;
    let made = match super::find(&state, &name).await? {
        Some(there) => there,
        None => super::make(&state, &name, required.unwrap_or_default()).await?,
    };
    if let Some(required) = required.filter(|required| *required != made.require_isolation) {
        let told = format!(
            "workspace `{name}` is there already and requires `{}`, not `{}`; change it with `POST /v1/workspaces/{}`",
            made.require_isolation.as_str(),
            required.as_str(),
            made.id
        );
        return Err(ApiError::conflict(told));
    }
    caller.made(&made.id);
    Ok(Json(identity::write_workspace(&made)))
}
