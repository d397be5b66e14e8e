//! The one implementation: real services, over real connections.

use crate::allow::AllowHosts;
use crate::client::{ClientError, Clients};
use crate::http;
use crate::port::{HostCall, HostResult, HostTools, SessionTools};
use async_trait::async_trait;
use loopd_domain::agent::HostTarget;
use std::sync::Arc;
use url::Url;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct RemoteTools {
    clients: Clients,
    allow: Arc<AllowHosts>,
}

impl RemoteTools {
    pub fn new(allow: AllowHosts) -> Result<Self, ClientError> {
        Ok(RemoteTools { clients: Clients::new()?, allow: Arc::new(allow) })
    }

    fn address(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|fault| format!("its address `{text}` is none: {fault}"))?;
        self.allow.check(&url)?;
        Ok(url)
    }
}

impl HostTools for RemoteTools {
    fn for_session(&self) -> Arc<dyn SessionTools> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl SessionTools for RemoteTools {
    async fn call(&self, call: HostCall) -> HostResult {
        match &call.target {
            HostTarget::Http { url, timeout_ms } => match self.address(url) {
                Ok(url) => http::call(&self.clients, url, *timeout_ms, &call).await,
                Err(refusal) => HostResult::not_sent(refusal),
            },
        }
    }
}
