//! A session's view of the vaults that it was given: the first vault that has something for a name wins.

use super::former::Seen;
use super::mask::Masking;
use super::mcp_url;
use super::opened::OpenedCredential;
use super::{VaultError, Vaults};
use crate::client::Client;
use crate::credentials::{Bearer, Bearers, BoundCredential, Credentials, CredentialsError, Placement};
use crate::placeholders::{Mask, Placeholders};
use crate::secret::Secret;
use async_trait::async_trait;
use loopd_domain::vault::{CredentialAuth, CredentialNetworking, InjectionPlace};
use loopd_domain::{VaultId, WorkspaceId};
use std::collections::HashSet;
use std::sync::Arc;
use url::Url;

pub struct View {
    workspace: WorkspaceId,
    /// In the order in which they are searched.
    pub vaults: Vec<VaultId>,
    bound: Vec<Arc<BoundCredential>>,
    /// By the address of the server.
    bearers: Vec<(String, Bearer)>,
    mask: Arc<Masking>,
}

impl View {
    /// Of a session that was given nothing: made faster than found.
    fn of_none(client: &Client) -> Self {
        let (workspace, vaults) = (client.workspace.clone(), Vec::new());
        View { workspace, vaults, bound: Vec::new(), bearers: Vec::new(), mask: Arc::default() }
    }
}

impl Vaults {
    async fn view(&self, client: &Client) -> Result<Arc<View>, VaultError> {
        if client.vaults.is_empty() {
            return Ok(Arc::new(View::of_none(client)));
        }
        let read_at = (self.opened.generation(), self.clock.now());
        if let Some(view) = self.opened.view(&client.session, read_at.1)
            && view.workspace == client.workspace
            && view.vaults == client.vaults
        {
            return Ok(view);
        }
        let (mut bound, mut bearers, mut taken) = (Vec::new(), Vec::new(), HashSet::new());
        // What may be seen of a credential that another one hides is a secret all the same.
        let mut masked: Vec<(Secret, String)> = Vec::new();
        for vault in &client.vaults {
            let opened = self.opened(&client.workspace, vault).await?;
            for Seen { credential, placeholder_chars, secret, .. } in &opened.former {
                masked.push((secret.clone(), self.house.placeholder(&client.session, credential, *placeholder_chars)));
            }
            for one in &opened.credentials {
                let id = &one.credential.id;
                let placeholder = self.house.placeholder(&client.session, id, one.placeholder_chars);
                masked.push((one.secret.clone(), placeholder.clone()));
                if !taken.insert(one.credential.auth.key()) {
                    continue;
                }
                match &one.credential.auth {
                    CredentialAuth::EnvironmentVariable { secret_name, networking, place } => {
                        let placed = (secret_name.clone(), networking, place);
                        bound.push(Arc::new(bind(vault, one, placeholder, placed)));
                    }
                    CredentialAuth::StaticBearer { normal_url, .. } => {
                        let (credential, token) = (id.clone(), one.secret.clone());
                        let bearer = Bearer { vault: vault.clone(), credential, version: one.version, token };
                        bearers.push((normal_url.clone(), bearer));
                    }
                }
            }
        }
        let mask = Arc::new(Masking::new(masked.iter().map(|(secret, placeholder)| (secret, placeholder.as_str()))));
        let (workspace, vaults) = (client.workspace.clone(), client.vaults.clone());
        let view = Arc::new(View { workspace, vaults, bound, bearers, mask });
        self.opened.keep_view(client.session.clone(), view.clone(), read_at);
        Ok(view)
    }
}

fn bind(
    vault: &VaultId,
    one: &OpenedCredential,
    placeholder: String,
    (variable, networking, place): (String, &CredentialNetworking, &InjectionPlace),
) -> BoundCredential {
    BoundCredential {
        vault: vault.clone(),
        credential: one.credential.id.clone(),
        variable,
        placeholder,
        secret: one.secret.clone(),
        hosts: match networking {
            CredentialNetworking::Unrestricted => None,
            CredentialNetworking::Limited { allowed_hosts } => Some(allowed_hosts.clone()),
        },
        placement: match place {
            InjectionPlace::Anywhere { header, body } => Placement::Anywhere { headers: *header, body: *body },
            InjectionPlace::AwsSignature { access_key_id } => {
                Placement::AwsSignature { access_key_id: access_key_id.clone() }
            }
        },
    }
}

fn unavailable(fault: VaultError) -> CredentialsError {
    CredentialsError(fault.to_string())
}

#[async_trait]
impl Credentials for Vaults {
    async fn of(&self, client: &Client) -> Result<Vec<Arc<BoundCredential>>, CredentialsError> {
        Ok(self.view(client).await.map_err(unavailable)?.bound.clone())
    }
}

#[async_trait]
impl Placeholders for Vaults {
    async fn variables(&self, client: &Client) -> Result<Vec<(String, String)>, CredentialsError> {
        let view = self.view(client).await.map_err(unavailable)?;
        Ok(view.bound.iter().map(|one| (one.variable.clone(), one.placeholder.clone())).collect())
    }

    async fn mask(&self, client: &Client) -> Result<Arc<dyn Mask>, CredentialsError> {
        Ok(self.view(client).await.map_err(unavailable)?.mask.clone())
    }
}

#[async_trait]
impl Bearers for Vaults {
    async fn bearer_for(&self, client: &Client, url: &Url) -> Result<Option<Bearer>, CredentialsError> {
        let Some(wanted) = mcp_url::normal_of(url) else { return Ok(None) };
        let view = self.view(client).await.map_err(unavailable)?;
        Ok(view.bearers.iter().find(|(url, _)| *url == wanted).map(|(_, bearer)| bearer.clone()))
    }
}
