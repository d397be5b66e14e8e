//! MCP servers over streamable HTTP. The only place that knows the client library.
//!
//! Owns one connection for each server of a session: made when it is first needed, kept while it works, made anew after it
//! broke. A call is never repeated by the library: whether it may be is decided by its class, as for HTTP tools.

mod content;
mod fault;
mod listing;

use crate::attempt::{self, Attempt, Exchange};
use crate::client::Clients;
use crate::port::{HostCall, HostResult, ListFault};
use crate::tokens::Tokens;
use async_trait::async_trait;
use loopd_domain::limits::{HOST_ANSWER_BYTES_MAX, MCP_CALL_TIMEOUT_MS, MCP_CONNECT_TIMEOUT_MS};
use loopd_domain::mcp::{McpServer, McpTool};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, Implementation, JsonObject,
    RequestMetaObject,
};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use url::Url;

/// Where the key of a call stands among what MCP calls `_meta`.
const KEY_META: &str = "loopd/idempotencyKey";
const TRACEPARENT_META: &str = "traceparent";

type Connection = Arc<RunningService<RoleClient, ClientConfig>>;
/// One server's place; held while a connection is made, so that only one is.
type Place = Arc<Mutex<Option<Known>>>;

/// A connection, and the mark of the token that its server was shown.
struct Known {
    connection: Connection,
    mark: Option<String>,
}

/// The connections of one session, by address.
pub(crate) struct Connections {
    places: Mutex<HashMap<String, Place>>,
    tokens: Arc<dyn Tokens>,
}

impl Connections {
    pub(crate) fn new(tokens: Arc<dyn Tokens>) -> Self {
        Connections { places: Mutex::default(), tokens }
    }

    /// All tools of a server, within limits.
    pub(crate) async fn list(
        &self,
        clients: &Clients,
        server: &McpServer,
        url: &Url,
    ) -> Result<Vec<McpTool>, ListFault> {
        let wait = Duration::from_millis(MCP_CONNECT_TIMEOUT_MS);
        let list = async {
            let connection = self.connect(clients, url).await?;
            listing::list(&connection, &server.name).await.map_err(|fault| fault::of_listing(&fault))
        };
        let listed = match tokio::time::timeout(wait, list).await {
            Ok(listed) => listed,
            Err(_) => Err(ListFault::connection(format!("no answer in {} ms", wait.as_millis()))),
        };
        if listed.is_err() {
            self.forget(url).await;
        }
        listed
    }

    pub(crate) async fn call(&self, clients: &Clients, url: &Url, tool: &str, call: &HostCall) -> HostResult {
        attempt::repeat(call, &ToolCall { connections: self, clients, url, tool, call }).await
    }

    /// The connection that there is, or a new one: also where the token is another one by now.
    async fn connect(&self, clients: &Clients, url: &Url) -> Result<Connection, ListFault> {
        let token = self.tokens.of(url).await.map_err(|fault| ListFault::connection(fault.0))?;
        let mark = token.as_ref().map(|token| token.mark.clone());
        let place = self.places.lock().await.entry(url.to_string()).or_default().clone();
        let mut held = place.lock().await;
        if let Some(known) = held.as_ref().filter(|known| known.mark == mark && !known.connection.is_closed()) {
            return Ok(known.connection.clone());
        }
        let mut config = StreamableHttpClientTransportConfig::with_uri(url.to_string())
            .max_json_response_size(HOST_ANSWER_BYTES_MAX)
            .max_sse_event_size(HOST_ANSWER_BYTES_MAX);
        if let Some(token) = token {
            config = config.auth_header(token.text.as_str());
        }
        let transport = StreamableHttpClientTransport::with_client(clients.of(url).clone(), config);
        let connection = rmcp::serve_client(client_config(), transport).await;
        let connection = Arc::new(connection.map_err(|fault| fault::of_connecting(&fault))?);
        *held = Some(Known { connection: connection.clone(), mark });
        Ok(connection)
    }

    async fn forget(&self, url: &Url) {
        self.places.lock().await.remove(url.as_str());
    }
}

struct ToolCall<'a> {
    connections: &'a Connections,
    clients: &'a Clients,
    url: &'a Url,
    tool: &'a str,
    call: &'a HostCall,
}

#[async_trait]
impl Exchange for ToolCall<'_> {
    async fn attempt(&self) -> Attempt {
        // Nothing of the call is sent before this is done.
        let connect = self.connections.connect(self.clients, self.url);
        let connection = match tokio::time::timeout(Duration::from_millis(MCP_CONNECT_TIMEOUT_MS), connect).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(fault)) => return Attempt::NotSent(fault.message),
            Err(_) => return Attempt::NotSent(format!("no connection in {MCP_CONNECT_TIMEOUT_MS} ms")),
        };
        let wait = Duration::from_millis(MCP_CALL_TIMEOUT_MS);
        let sent = connection.call_tool_once(request(self.tool, self.call));
        let attempt = match tokio::time::timeout(wait, sent).await {
            Ok(Ok(CallToolResponse::Complete(result))) => return Attempt::Answered(content::result(result)),
            Ok(Ok(_)) => {
                return Attempt::Answered(HostResult::refused("the server wants more than a call before it answers"));
            }
            Ok(Err(fault)) => fault::of_call(&fault),
            Err(_) => Attempt::TimedOut(format!("no answer in {MCP_CALL_TIMEOUT_MS} ms")),
        };
        if !matches!(attempt, Attempt::Answered(_)) {
            self.connections.forget(self.url).await;
        }
        attempt
    }
}

fn client_config() -> ClientConfig {
    ClientConfig::new(ClientCapabilities::default(), Implementation::new("loopd", env!("CARGO_PKG_VERSION")))
}

fn request(tool: &str, call: &HostCall) -> CallToolRequestParams {
    let mut meta = JsonObject::new();
    meta.insert(KEY_META.to_owned(), json!(call.key));
    if let Some(traceparent) = &call.traceparent {
        meta.insert(TRACEPARENT_META.to_owned(), json!(traceparent));
    }
    let mut params = CallToolRequestParams::new(tool.to_owned());
    params.meta = Some(RequestMetaObject::from(meta));
    params.arguments = match &call.input {
        Value::Object(arguments) => Some(arguments.clone()),
        // Arguments that are no object are malformed, and never come this far.
        _ => None,
    };
    params
}
