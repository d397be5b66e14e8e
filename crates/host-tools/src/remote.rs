//! The one implementation: real services, over real connections.

use crate::allow::AllowHosts;
use crate::client::{ClientError, Clients};
use crate::port::{HostCall, HostResult, HostTools, ListFault, SessionTools};
use crate::tokens::Tokens;
use crate::{http, mcp};
use async_trait::async_trait;
use loopd_domain::agent::HostTarget;
use loopd_domain::mcp::{McpServer, McpTool};
use std::sync::Arc;
use url::Url;

/// Shared by all sessions: clients, and where they may go.
#[derive(Debug, Clone)]
pub struct RemoteTools {
    clients: Clients,
    allow: Arc<AllowHosts>,
}

/// One session's.
struct Remote {
    tools: RemoteTools,
    mcp: mcp::Connections,
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
    fn for_session(&self, tokens: Arc<dyn Tokens>) -> Arc<dyn SessionTools> {
        Arc::new(Remote { tools: self.clone(), mcp: mcp::Connections::new(tokens) })
    }
}

#[async_trait]
impl SessionTools for Remote {
    async fn call(&self, call: HostCall) -> HostResult {
        let (HostTarget::Http { url, .. } | HostTarget::Mcp { server: McpServer { url, .. }, .. }) = &call.target;
        let url = match self.tools.address(url) {
            Ok(url) => url,
            Err(refusal) => return HostResult::not_sent(refusal),
        };
        let clients = &self.tools.clients;
        match &call.target {
            HostTarget::Http { timeout_ms, .. } => http::call(clients, url, *timeout_ms, &call).await,
            HostTarget::Mcp { tool, .. } => self.mcp.call(clients, &url, tool, &call).await,
        }
    }

    async fn list(&self, server: &McpServer) -> Result<Vec<McpTool>, ListFault> {
        let url = self.tools.address(&server.url).map_err(ListFault::connection)?;
        self.mcp.list(&self.tools.clients, server, &url).await
    }
}
