//! MCP servers as an agent names them, and their tools as a session has them.
//!
//! What a server lists is journaled when a turn begins (`loopd.mcp_tools_listed`), so a tool means the same for the whole
//! turn, whatever its server says meanwhile. Towards the model a tool is called `mcp__<server>__<tool>`: names of two
//! servers, and of built-ins, cannot meet.

use crate::agent::{HostTarget, PermissionPolicy, ResolvedTool, ToolSpec};
use crate::chain::sha256_hex;
use crate::event::{EffectClass, RunsIn};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Longest name that every provider takes for a tool.
const CALLED_BYTES_MAX: usize = 64;
/// Of the digest that tells shortened names apart.
const DIGEST_CHARS: usize = 8;

/// What each server listed last, by its name.
pub type McpListings = BTreeMap<String, Vec<McpTool>>;

/// A server that speaks streamable HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "url")]
pub struct McpServer {
    /// Of this agent's own; toolsets and events name it.
    pub name: String,
    pub url: String,
}

/// A tool as its server describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct McpTool {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub input_schema: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

/// What an agent says of a server's tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpToolset {
    pub mcp_server_name: String,
    /// For every tool that `configs` does not name.
    pub default_config: McpToolConfig,
    #[serde(default)]
    pub configs: Vec<NamedMcpToolConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpToolConfig {
    pub enabled: bool,
    pub permission_policy: PermissionPolicy,
    /// `None`: `pure` where the server says that the tool only reads, else `once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectClass>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedMcpToolConfig {
    /// As the server names it.
    pub name: String,
    #[serde(flatten)]
    pub config: McpToolConfig,
}

impl Default for McpToolConfig {
    fn default() -> Self {
        McpToolConfig { enabled: true, permission_policy: PermissionPolicy::AlwaysAsk, effect: None }
    }
}

impl McpToolset {
    /// The tools that are enabled of those that were listed.
    pub(crate) fn resolve(&self, server: &McpServer, listed: &[McpTool]) -> Vec<ResolvedTool> {
        let mut tools = Vec::new();
        for tool in listed {
            let named = self.configs.iter().find(|c| c.name == tool.name).map(|c| c.config);
            let config = named.unwrap_or(self.default_config);
            if config.enabled {
                tools.push(ResolvedTool {
                    spec: ToolSpec {
                        name: called(&server.name, &tool.name),
                        description: tool.description.clone().unwrap_or_default(),
                        input_schema: tool.input_schema.clone(),
                    },
                    runs_in: RunsIn::Host,
                    effect: config.effect.unwrap_or_else(|| tool.effect()),
                    policy: config.permission_policy,
                    host: Some(HostTarget::Mcp { server: server.clone(), tool: tool.name.clone() }),
                });
            }
        }
        tools
    }
}

impl McpTool {
    /// What its server hints.
    fn effect(&self) -> EffectClass {
        let only_reads = self.annotations.as_ref().and_then(|a| a.get("readOnlyHint")).and_then(Value::as_bool);
        if only_reads == Some(true) { EffectClass::Pure } else { EffectClass::Once }
    }
}

/// What the model calls a server's tool. A name that had to be changed for that carries a digest of what it was.
pub fn called(server: &str, tool: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let whole = format!("mcp__{server}__{tool}");
    let name: String = whole.chars().map(plain).collect();
    // A server's name with two underscores could be read as another server's and the front of its tool.
    if name == whole && name.len() <= CALLED_BYTES_MAX && !server.contains("__") {
        return name;
    }
    let digest = sha256_hex(format!("{}:{server}:{tool}", server.len()).as_bytes());
    let front: String = name.chars().take(CALLED_BYTES_MAX - DIGEST_CHARS - 1).collect();
    format!("{front}_{}", &digest[..DIGEST_CHARS])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(name: &str, annotations: Option<Value>) -> McpTool {
        McpTool { name: name.to_owned(), description: None, input_schema: json!({"type": "object"}), annotations }
    }

    fn server() -> McpServer {
        McpServer { name: "shop".to_owned(), url: "http://127.0.0.1/mcp".to_owned() }
    }

    #[test]
    fn names_towards_the_model_are_plain_short_and_different() {
        assert_eq!(called("shop", "find_item"), "mcp__shop__find_item");
        let names = [
            called("shop", "a.b"),
            called("shop", "a b"),
            called("shop", &"x".repeat(200)),
            called("shop", &"x".repeat(201)),
            called("a__b", "c"),
            called("a", "b__c"),
            called("läden", "suche"),
        ];
        for (i, name) in names.iter().enumerate() {
            assert!(name.len() <= CALLED_BYTES_MAX && name.starts_with("mcp__"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{name}");
            assert!(!names[..i].contains(name), "{name}");
        }
    }

    #[test]
    fn the_class_is_the_agents_word_else_the_servers_hint_else_once() {
        let keyed = McpToolConfig { effect: Some(EffectClass::Keyed), ..McpToolConfig::default() };
        let toolset = McpToolset {
            mcp_server_name: "shop".to_owned(),
            default_config: McpToolConfig::default(),
            configs: vec![
                NamedMcpToolConfig { name: "buy".to_owned(), config: keyed },
                NamedMcpToolConfig {
                    name: "wipe".to_owned(),
                    config: McpToolConfig { enabled: false, ..McpToolConfig::default() },
                },
            ],
        };
        let reads = Some(json!({"readOnlyHint": true}));
        let listed = [tool("find", reads.clone()), tool("buy", reads), tool("pay", None), tool("wipe", None)];
        let tools = toolset.resolve(&server(), &listed);
        let seen: Vec<_> = tools.iter().map(|t| (t.spec.name.as_str(), t.effect, t.policy)).collect();
        let ask = PermissionPolicy::AlwaysAsk;
        let expected = [
            ("mcp__shop__find", EffectClass::Pure, ask),
            ("mcp__shop__buy", EffectClass::Keyed, ask),
            ("mcp__shop__pay", EffectClass::Once, ask),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_server_is_written_as_the_wire_has_it() {
        let wire = json!({"type": "url", "name": "shop", "url": "http://127.0.0.1/mcp"});
        assert_eq!(serde_json::to_value(server()).expect("serialises"), wire);
        assert_eq!(serde_json::from_value::<McpServer>(wire).expect("reads back"), server());
    }
}
