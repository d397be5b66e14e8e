//! Workspaces: walls between tenants. Each caller is of one, and sees nothing of another.

mod create;
mod list;
mod update;

use crate::auth::Caller;
use crate::error::{Answer, ApiError};
use crate::fields::Fields;
use crate::state::ServerState;
use loopd_domain::environment::Isolation;
use loopd_domain::identity::{Access, Noun, Scope, Workspace, check_workspace_name};
use loopd_domain::limits::WORKSPACE_NAME_CHARS_MAX;
use loopd_domain::{Invalid, WorkspaceId};
use loopd_store::MakeError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new().routes(routes!(create::create, list::list)).routes(routes!(update::update))
}

/// The workspace that a request is about: the caller's own, or the one it names, by name or id. Another one than its own is
/// for callers that may reach it; to others it is not there.
pub async fn meant(state: &ServerState, caller: &Caller, named: Option<&str>, access: Access) -> Answer<Workspace> {
    let Some(named) = named else { return own(state, caller).await };
    let found = find(state, named).await?;
    if found.as_ref().is_some_and(|found| found.id == caller.workspace) {
        return own(state, caller).await;
    }
    caller.need(Scope { noun: Noun::Workspaces, access })?;
    found.ok_or_else(|| absent(named))
}

/// The same, made if it is not there yet.
pub async fn meant_or_made(state: &ServerState, caller: &Caller, named: Option<&str>) -> Answer<Workspace> {
    match meant(state, caller, named, Access::Write).await {
        Err(fault) if fault.status == axum::http::StatusCode::NOT_FOUND => {
            make(state, named.unwrap_or_default(), Isolation::default()).await
        }
        outcome => outcome,
    }
}

async fn make(state: &ServerState, name: &str, require_isolation: Isolation) -> Answer<Workspace> {
    check_workspace_name("workspace", name)?;
    let workspace = Workspace {
        id: WorkspaceId::generate(state.ids.as_ref()),
        name: name.to_owned(),
        require_isolation,
        created_at: state.clock.now(),
    };
    match state.store.workspaces().create(workspace.clone()).await {
        Ok(()) => Ok(workspace),
        // Somebody else made it meanwhile.
        Err(MakeError::Exists) => find(state, name).await?.ok_or_else(|| absent(name)),
        Err(fault) => Err(fault.into()),
    }
}

fn read_isolation(fields: &mut Fields) -> Result<Option<Isolation>, Invalid> {
    let word = fields.word("require_isolation", &Isolation::ALL.map(Isolation::as_str))?;
    Ok(word.and_then(Isolation::parse))
}

async fn own(state: &ServerState, caller: &Caller) -> Answer<Workspace> {
    let found = state.store.workspaces().get(&caller.workspace).await?;
    found.ok_or_else(|| ApiError::internal(format!("workspace `{}` of a caller is not there", caller.workspace)))
}

async fn find(state: &ServerState, named: &str) -> Answer<Option<Workspace>> {
    Ok(match WorkspaceId::parse("workspace", named) {
        Ok(id) => state.store.workspaces().get(&id).await?,
        Err(_) => state.store.workspaces().named(named).await?,
    })
}

fn absent(named: &str) -> ApiError {
    let shown: String = named.chars().take(WORKSPACE_NAME_CHARS_MAX).collect();
    ApiError::absent("workspace", &shown)
}
