//! Vaults: secrets that sessions may use and nobody may read.

mod archive;
mod create;
mod credentials;
mod delete;
mod list;
mod retrieve;
mod update;

use crate::auth::Caller;
use crate::error::{Answer, ApiError};
use crate::fields::{Fields, items};
use crate::state::ServerState;
use loopd_domain::limits::{SESSION_VAULTS_MAX, VAULT_NAME_CHARS_MAX};
use loopd_domain::vault::Vault;
use loopd_domain::{Invalid, VaultId, WorkspaceId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new()
        .routes(routes!(create::create, list::list))
        .routes(routes!(retrieve::retrieve, update::update, delete::delete))
        .routes(routes!(archive::archive))
        .merge(credentials::routes())
}

fn absent(id: &str) -> ApiError {
    ApiError::absent("vault", id).with_code("vault_not_found")
}

fn archived(id: &str) -> ApiError {
    ApiError::invalid(format!("vault `{id}` is archived; accepted: one that is not")).with_code("vault_archived")
}

/// The vault, or the refusal that names it.
async fn find(state: &ServerState, workspace: &WorkspaceId, id: &str) -> Answer<Vault> {
    let parsed = VaultId::parse("vault", id).map_err(|_| absent(id))?;
    state.store.vaults().get(workspace, &parsed).await?.ok_or_else(|| absent(id))
}

/// Ids of vaults for a new session, as they are written in a body.
pub fn read_ids(fields: &mut Fields, name: &str) -> Result<Vec<VaultId>, Invalid> {
    let Some(value) = fields.given(name) else { return Ok(Vec::new()) };
    let at = fields.path(name);
    let mut ids: Vec<VaultId> = Vec::new();
    for (i, value) in items(&at, value, SESSION_VAULTS_MAX)?.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        let id = VaultId::parse(&at, &crate::fields::text(&at, value, 1..=VAULT_NAME_CHARS_MAX)?)?;
        if ids.contains(&id) {
            return Err(Invalid::new(at, id, "each vault once"));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// The same, if a session of this caller may use them all.
pub async fn usable(state: &ServerState, caller: &Caller, ids: Vec<VaultId>) -> Answer<Vec<VaultId>> {
    for id in &ids {
        let found = state.store.vaults().get(&caller.workspace, id).await?.ok_or_else(|| absent(id.as_str()))?;
        if found.archived_at.is_some() {
            return Err(archived(id.as_str()));
        }
    }
    Ok(ids)
}
