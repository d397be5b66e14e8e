//! What a server offers: page by page, and no more than a session can hold. A tool that does not fit is left out, and the log
//! says so.

use loopd_domain::limits::{
    MCP_LISTING_BYTES_MAX, MCP_TOOLS_MAX, TOOL_DESCRIPTION_CHARS_MAX, TOOL_NAME_CHARS_MAX, TOOL_SCHEMA_BYTES_MAX,
};
use loopd_domain::mcp::McpTool;
use rmcp::model::{ClientConfig, PaginatedRequestParams, Tool};
use rmcp::service::{RoleClient, RunningService, ServiceError};
use serde_json::Value;

pub(super) async fn list(
    connection: &RunningService<RoleClient, ClientConfig>,
    server: &str,
) -> Result<Vec<McpTool>, ServiceError> {
    let mut tools: Vec<McpTool> = Vec::new();
    let mut bytes = 0;
    let mut cursor: Option<String> = None;
    // A page holds a tool at least, or it is the last one that we read.
    for _ in 0..MCP_TOOLS_MAX {
        let page = connection.list_tools(Some(PaginatedRequestParams::default().with_cursor(cursor))).await?;
        let is_empty = page.tools.is_empty();
        for tool in page.tools.into_iter().map(read) {
            let weight = tool.name.len() + tool.input_schema.to_string().len();
            let fits = tools.len() < MCP_TOOLS_MAX
                && weight <= TOOL_SCHEMA_BYTES_MAX
                && bytes + weight <= MCP_LISTING_BYTES_MAX
                && (1..=TOOL_NAME_CHARS_MAX).contains(&tool.name.chars().count())
                && tools.iter().all(|t| t.name != tool.name);
            match fits {
                true => {
                    bytes += weight;
                    tools.push(tool);
                }
                false => {
                    tracing::warn!(server, tool = %tool.name.escape_debug(), "a tool is left out: name, size or number")
                }
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() || is_empty {
            break;
        }
    }
    Ok(tools)
}

fn read(tool: Tool) -> McpTool {
    let description = tool.description.map(|text| text.chars().take(TOOL_DESCRIPTION_CHARS_MAX).collect());
    McpTool {
        name: tool.name.into_owned(),
        description,
        input_schema: Value::Object((*tool.input_schema).clone()),
        annotations: tool.annotations.and_then(|hints| serde_json::to_value(hints).ok()),
    }
}
