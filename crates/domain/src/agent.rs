//! An agent: a versioned definition of model, system prompt, tools and policy. It does not run.

use crate::event::{EffectClass, Permission, RunsIn};
use crate::mcp::{McpListings, McpServer, McpToolset};
use crate::{AgentId, Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Up to 16 short pairs that belong to the caller; see `limits::METADATA_*`.
pub type Metadata = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    pub id: AgentId,
    pub workspace: WorkspaceId,
    /// From 1; every real change makes the next.
    pub version: u64,
    pub spec: AgentSpec,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

/// All that a version of an agent says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentSpec {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    pub model: ModelRef,
    #[serde(default)]
    pub system: Option<String>,
    #[serde(default)]
    pub tools: Vec<Tool>,
    /// What follows when nobody knows whether a call happened.
    #[serde(default, skip_serializing_if = "OnUnknownOutcome::is_default")]
    pub on_unknown_outcome: OnUnknownOutcome,
    /// Each is named by one toolset of `tools`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    #[serde(default)]
    pub metadata: Metadata,
}

/// What a session does with a call of which nobody can know whether it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknownOutcome {
    /// The model is told what is known, and goes on.
    #[default]
    Continue,
    /// The client decides whether the call is run again.
    Ask,
    /// The turn ends.
    Fail,
}

impl OnUnknownOutcome {
    pub const NAMES: [&str; 3] = ["continue", "ask", "fail"];

    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "continue" => OnUnknownOutcome::Continue,
            "ask" => OnUnknownOutcome::Ask,
            "fail" => OnUnknownOutcome::Fail,
            _ => return None,
        })
    }

    pub fn is_default(&self) -> bool {
        *self == OnUnknownOutcome::default()
    }
}

/// Which model, and how it is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRef {
    /// `provider/name`, or a bare name that belongs to a known provider.
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    /// Another address of the same wire format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Fields for the provider's request body that loopd does not know; merged on top of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

/// What an agent may use, as the caller declared it and in the caller's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Tool {
    /// The built-in tools that act in the room.
    #[serde(rename = "agent_toolset_20260401")]
    Toolset {
        /// For every built-in that `configs` does not name.
        default_config: ToolConfig,
        #[serde(default)]
        configs: Vec<NamedToolConfig>,
    },
    /// A tool that the caller runs.
    #[serde(rename = "custom")]
    Custom { name: String, description: String, input_schema: Value },
    /// A service that the host calls: the input is posted to it as JSON. Ours; not part of the wire format.
    #[serde(rename = "http")]
    Http(HttpTool),
    /// The tools of one of the agent's MCP servers.
    #[serde(rename = "mcp_toolset")]
    Mcp(McpToolset),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpTool {
    pub name: String,
    pub description: String,
    pub input_schema: Value,
    /// `http` or `https`, without user name and password.
    pub url: String,
    /// `Pure`, `Keyed` or `Once`.
    pub effect: EffectClass,
    /// For one attempt, from connecting to the last byte of the answer.
    pub timeout_ms: u64,
    pub permission_policy: PermissionPolicy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolConfig {
    pub enabled: bool,
    pub permission_policy: PermissionPolicy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedToolConfig {
    pub name: Builtin,
    #[serde(flatten)]
    pub config: ToolConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PermissionPolicy {
    AlwaysAllow,
    AlwaysAsk,
}

/// The built-in tools. To add one: a variant here, its row in `BUILTINS` (the text that the model sees), its file in
/// `cell/src/tools/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Builtin {
    Bash,
    Read,
    Write,
    Edit,
    Glob,
    Grep,
}

/// What the model is told of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    pub name: String,
    pub description: String,
    pub input_schema: Value,
}

/// A tool as one session has it: what the model sees, who runs it, what may be done when its outcome is unknown.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedTool {
    pub spec: ToolSpec,
    pub runs_in: RunsIn,
    pub effect: EffectClass,
    pub policy: PermissionPolicy,
    /// Where a call goes whose `runs_in` is [`RunsIn::Host`]; `None` for every other.
    pub host: Option<HostTarget>,
}

/// What the host calls for a tool that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostTarget {
    Http {
        url: String,
        timeout_ms: u64,
    },
    /// `tool` as the server names it.
    Mcp {
        server: McpServer,
        tool: String,
    },
}

impl Builtin {
    pub const ALL: [Builtin; 6] =
        [Builtin::Bash, Builtin::Read, Builtin::Write, Builtin::Edit, Builtin::Glob, Builtin::Grep];

    pub fn name(self) -> &'static str {
        match self {
            Builtin::Bash => "bash",
            Builtin::Read => "read",
            Builtin::Write => "write",
            Builtin::Edit => "edit",
            Builtin::Glob => "glob",
            Builtin::Grep => "grep",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|b| b.name() == name)
    }

    pub fn effect(self) -> EffectClass {
        match self {
            Builtin::Read | Builtin::Glob | Builtin::Grep => EffectClass::Pure,
            Builtin::Bash | Builtin::Write | Builtin::Edit => EffectClass::Room,
        }
    }

    /// What the model is told: purpose, inputs, limits.
    pub fn spec(self) -> ToolSpec {
        let string = |text: &str| serde_json::json!({"type": "string", "description": text});
        let object = |properties: Value, required: &[&str]| serde_json::json!({"type": "object", "properties": properties, "required": required});
        let (description, input_schema) = match self {
            Builtin::Bash => (
                "Run a command in a persistent bash shell in your sandbox. Working directory, variables and background jobs \
                 survive between calls. Standard output and error come back together, in the order of writing; output over \
                 100 KiB keeps its head and tail and the whole is saved to a file that the result names. A command that \
                 exits with another status than 0 is reported as an error with its output.",
                object(
                    serde_json::json!({
                        "command": string("The command to run."),
                        "restart": {"type": "boolean", "description": "Start a fresh shell; everything it was running is ended."},
                        "timeout_ms": {"type": "integer", "minimum": 1, "maximum": 3_600_000, "description": "Time limit in milliseconds, 120000 by default. At the limit the command and the shell are killed."},
                    }),
                    &[],
                ),
            ),
            Builtin::Read => (
                "Read a file. Text comes back as it is (up to 256 KiB: use view_range for larger files); png, jpg, gif and \
                 webp come back as images, pdf as a document.",
                object(
                    serde_json::json!({
                        "file_path": string("Path of the file; relative paths start at the working directory."),
                        "view_range": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2, "description": "First and last line, from 1, inclusive; a last line of 0 or less means the end of the file."},
                    }),
                    &["file_path"],
                ),
            ),
            Builtin::Write => (
                "Write a file, replacing it if it exists and creating its directories.",
                object(
                    serde_json::json!({"file_path": string("Path of the file."), "content": string("The whole new content.")}),
                    &["file_path", "content"],
                ),
            ),
            Builtin::Edit => (
                "Replace a piece of text in a file. The old text must stand in the file exactly once, unless replace_all is true.",
                object(
                    serde_json::json!({
                        "file_path": string("Path of the file."),
                        "old_string": string("The text to replace, exactly as it stands."),
                        "new_string": string("The text to put there."),
                        "replace_all": {"type": "boolean", "description": "Replace every occurrence."},
                    }),
                    &["file_path", "old_string", "new_string"],
                ),
            ),
            Builtin::Glob => (
                "Find files by pattern (`**` crosses directories). Newest first, at most 200.",
                object(
                    serde_json::json!({"pattern": string("The pattern, e.g. `src/**/*.rs`."), "path": string("Directory to start at; the working directory by default.")}),
                    &["pattern"],
                ),
            ),
            Builtin::Grep => (
                "Search file contents by regular expression. Answers lines as `path:line:text`; honours .gitignore, skips \
                 binary files, at most 100 KiB.",
                object(
                    serde_json::json!({"pattern": string("The regular expression."), "path": string("File or directory to search; the working directory by default.")}),
                    &["pattern"],
                ),
            ),
        };
        ToolSpec { name: self.name().to_owned(), description: description.to_owned(), input_schema }
    }
}

impl AgentSpec {
    /// Every tool that a session of this agent has, in declaration order; what is disabled, or was not listed by its
    /// server, is not there.
    pub fn resolve_tools(&self, listed: &McpListings) -> Vec<ResolvedTool> {
        let mut out = Vec::new();
        for tool in &self.tools {
            match tool {
                Tool::Toolset { default_config, configs } => {
                    for builtin in Builtin::ALL {
                        let named = configs.iter().find(|c| c.name == builtin).map(|c| c.config);
                        let config = named.unwrap_or(*default_config);
                        if config.enabled {
                            out.push(ResolvedTool {
                                spec: builtin.spec(),
                                runs_in: RunsIn::Room,
                                effect: builtin.effect(),
                                policy: config.permission_policy,
                                host: None,
                            });
                        }
                    }
                }
                Tool::Custom { name, description, input_schema } => out.push(ResolvedTool {
                    spec: ToolSpec {
                        name: name.clone(),
                        description: description.clone(),
                        input_schema: input_schema.clone(),
                    },
                    runs_in: RunsIn::Client,
                    effect: EffectClass::Client,
                    policy: PermissionPolicy::AlwaysAllow,
                    host: None,
                }),
                Tool::Http(http) => out.push(http.resolve()),
                Tool::Mcp(toolset) => {
                    let server = self.mcp_servers.iter().find(|s| s.name == toolset.mcp_server_name);
                    if let (Some(server), Some(tools)) = (server, listed.get(&toolset.mcp_server_name)) {
                        out.extend(toolset.resolve(server, tools));
                    }
                }
            }
        }
        out
    }
}

impl HttpTool {
    fn resolve(&self) -> ResolvedTool {
        ResolvedTool {
            spec: ToolSpec {
                name: self.name.clone(),
                description: self.description.clone(),
                input_schema: self.input_schema.clone(),
            },
            runs_in: RunsIn::Host,
            effect: self.effect,
            policy: self.permission_policy,
            host: Some(HostTarget::Http { url: self.url.clone(), timeout_ms: self.timeout_ms }),
        }
    }
}

impl PermissionPolicy {
    /// What this policy says of a call before anybody is asked.
    pub fn evaluate(self) -> Permission {
        match self {
            PermissionPolicy::AlwaysAllow => Permission::Allow,
            PermissionPolicy::AlwaysAsk => Permission::Ask,
        }
    }
}

impl Default for ToolConfig {
    fn default() -> Self {
        ToolConfig { enabled: true, permission_policy: PermissionPolicy::AlwaysAllow }
    }
}
