//! A turn begins with what its MCP servers offer: they are asked, and what they say is journaled, before the loop hears of the
//! turn. So a request to the model stays a function of the journal, and a tool means the same for the whole turn.
//!
//! A server that cannot be asked is a `session.error`; the turn goes on without its tools, and the next turn asks again.

use super::model::session_error;
use super::{Driver, Halt};
use loopd_domain::agent::Tool;
use loopd_domain::event::{EventBody, RetryStatus};
use loopd_domain::mcp::{McpServer, McpTool};
use loopd_host_tools::ListFault;
use std::future::Future;
use std::pin::Pin;

pub(super) type Listing = Pin<Box<dyn Future<Output = Vec<Listed>> + Send>>;

/// What one server said.
pub struct Listed {
    server: String,
    outcome: Result<Vec<McpTool>, ListFault>,
}

/// The answers of all servers. Safe to cancel.
pub(super) async fn ended(listing: &mut Option<Listing>) -> Vec<Listed> {
    match listing {
        Some(listing) => listing.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Driver {
    /// Sees to it that every server was asked in this turn. True while one is to answer.
    pub(super) fn is_listing(&mut self) -> bool {
        if self.listing.is_none() {
            let servers = self.unlisted();
            if servers.is_empty() {
                return false;
            }
            let tools = self.host.tools();
            self.listing = Some(Box::pin(async move {
                let asked = servers.into_iter().map(|server| {
                    let tools = tools.clone();
                    async move { Listed { outcome: tools.list(&server).await, server: server.name } }
                });
                futures_util::future::join_all(asked).await
            }));
        }
        true
    }

    /// Servers with a toolset that the open turn has not asked.
    fn unlisted(&self) -> Vec<McpServer> {
        let spec = &self.ledger.session.agent.spec;
        let Some(turn) = self.ledger.fold().turn.as_ref() else { return Vec::new() };
        let is_used = |s: &&McpServer| {
            let names = |tool: &Tool| matches!(tool, Tool::Mcp(toolset) if toolset.mcp_server_name == s.name);
            !turn.mcp_listed.contains(&s.name) && spec.tools.iter().any(names)
        };
        spec.mcp_servers.iter().filter(is_used).cloned().collect()
    }

    pub(super) async fn on_listed(&mut self, listed: Vec<Listed>) -> Result<(), Halt> {
        self.listing = None;
        let masking = self.masking().await;
        let mut draft = self.ledger.draft();
        for Listed { server, outcome } in listed {
            let tools = match outcome {
                Ok(mut tools) => {
                    masking.tools(&mut tools);
                    tools
                }
                Err(fault) => {
                    let told = fault.to_string();
                    let told = masking.text(&told);
                    tracing::warn!(session = %self.id(), server, fault = %told, "an MCP server could not be asked for its tools");
                    draft.push(connection_error(&server, &fault, &told))?;
                    Vec::new()
                }
            };
            let is_known = self.ledger.listed(&server) == Some(tools.as_slice());
            let tools = (!is_known).then_some(tools);
            draft.push(EventBody::McpToolsListed { mcp_server_name: server, tools })?;
        }
        self.commit(&draft).await?;
        self.begin().await
    }
}

fn connection_error(server: &str, fault: &ListFault, told: &str) -> EventBody {
    let kind = match fault.wants_authentication {
        true => "mcp_authentication_failed_error",
        false => "mcp_connection_failed_error",
    };
    let message = format!("MCP server `{server}`: {told}; the turn goes on without its tools");
    // Nothing more is tried within this turn.
    let mut body = session_error(kind, message, RetryStatus::Exhausted);
    if let EventBody::SessionError { error } = &mut body {
        error.mcp_server_name = Some(server.to_owned());
    }
    body
}
