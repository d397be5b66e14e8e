//! Credentials of a vault: each one secret, and where it may go. Secrets come in and never go out.

mod archive;
mod create;
mod delete;
mod list;
mod retrieve;
mod update;
mod validate;

use crate::error::{Answer, ApiError};
use crate::state::ServerState;
use loopd_domain::vault::Credential;
use loopd_domain::{CredentialId, VaultId, WorkspaceId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<ServerState> {
    OpenApiRouter::new()
        .routes(routes!(create::create, list::list))
        .routes(routes!(retrieve::retrieve, update::update, delete::delete))
        .routes(routes!(archive::archive))
        .routes(routes!(validate::mcp_oauth_validate))
}

fn absent(id: &str) -> ApiError {
    ApiError::absent("credential", id).with_code("credential_not_found")
}

fn archived(id: &str) -> ApiError {
    let message = format!("credential `{id}` is archived, and its secret is gone; accepted: one that is not");
    ApiError::invalid(message).with_code("credential_archived")
}

/// The credential, or the refusal that names what is not there.
async fn find(state: &ServerState, workspace: &WorkspaceId, vault: &str, id: &str) -> Answer<Credential> {
    let vault = VaultId::parse("vault", vault).map_err(|_| super::absent(vault))?;
    let parsed = CredentialId::parse("credential", id).map_err(|_| absent(id))?;
    match state.store.vaults().credential(workspace, &vault, &parsed).await? {
        Some(found) => Ok(found),
        None => super::find(state, workspace, vault.as_str()).await.and_then(|_| Err(absent(id))),
    }
}
