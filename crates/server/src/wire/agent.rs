//! Agents: reading a definition, a patch and overrides; writing the object.

use crate::fields::{Field, Fields, Kind, Patch, may, must, request_body};
use crate::wire::metadata::{self, MetadataPatch};
use crate::wire::{mcp, model, tool};
use loopd_domain::agent::{Agent as Definition, AgentSpec, ModelRef, OnUnknownOutcome, Tool};
use loopd_domain::limits::{DESCRIPTION_CHARS_MAX, NAME_CHARS_MAX, SYSTEM_CHARS_MAX};
use loopd_domain::mcp::McpServer;
use loopd_domain::{Invalid, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// Parts of the wire's agent that this version has no room for.
const UNAVAILABLE: [&str; 2] = ["skills", "multiagent"];

pub const CREATE: &[Field] = &[
    must("name", Kind::Text, "1 to 256 characters"),
    must("model", Kind::Any, "`provider/name`, or {id, effort?, base_url?, max_tokens?, temperature?, extra?}"),
    may("description", Kind::Text, "up to 2,048 characters"),
    may("system", Kind::Text, "the system prompt, up to 100,000 characters"),
    may("tools", Kind::List, "toolsets, MCP toolsets, HTTP tools and custom tools, up to 128"),
    may("metadata", Kind::Object, "up to 16 pairs of texts"),
    may("mcp_servers", Kind::List, "up to 20 of {type: \"url\", name, url}, each with an `mcp_toolset` in `tools`"),
    may("skills", Kind::List, "not available in this version: empty or absent"),
    may("multiagent", Kind::Object, "not available in this version: null or absent"),
    may("execution_identity", Kind::Object, "`{\"type\": \"service_account\"}`"),
    may(
        "on_unknown_outcome",
        Kind::Text,
        "what follows a call of which nobody knows whether it happened: `continue` (default), `ask` or `fail`",
    ),
];
request_body!(
    /// Body of `POST /v1/agents`.
    AgentCreate, CREATE
);

pub const UPDATE: &[Field] = &[
    may("version", Kind::Integer, "the version that this change is based on; another latest version is a 409"),
    may("name", Kind::Text, "absent keeps it"),
    may("model", Kind::Any, "absent keeps it; effort stays where the id stays"),
    may("description", Kind::Text, "absent keeps it, null clears it"),
    may("system", Kind::Text, "absent keeps it, null clears it"),
    may("tools", Kind::List, "absent keeps them, null or [] clears them, a list replaces them"),
    may("metadata", Kind::Object, "key by key: a text sets, null removes"),
    may("mcp_servers", Kind::List, "absent keeps them, null or [] clears them, a list replaces them"),
    may("skills", Kind::List, "not available in this version: empty or absent"),
    may("multiagent", Kind::Object, "not available in this version: null or absent"),
    may("execution_identity", Kind::Object, "`{\"type\": \"service_account\"}`"),
    may(
        "on_unknown_outcome",
        Kind::Text,
        "absent keeps it; what follows a call of which nobody knows whether it happened: `continue` (default), `ask` or `fail`",
    ),
];
request_body!(
    /// Body of `POST /v1/agents/{agent_id}`.
    AgentUpdate, UPDATE
);

pub fn read_new(body: Value) -> Result<AgentSpec, Invalid> {
    let mut fields = Fields::body(body, CREATE)?;
    refuse_unavailable(&mut fields)?;
    let model = fields.need("model", "a model id such as `builtin/shell`, or an object with `id`")?;
    let tools = fields.given("tools").map_or(Ok(Vec::new()), |v| tool::read_list("tools", v))?;
    let mcp_servers = fields.given("mcp_servers").map_or(Ok(Vec::new()), |v| mcp::read_servers("mcp_servers", v))?;
    mcp::check(&mcp_servers, &tools)?;
    Ok(AgentSpec {
        name: fields.need_text("name", 1..=NAME_CHARS_MAX)?,
        description: fields.text("description", 0..=DESCRIPTION_CHARS_MAX)?,
        model: model::read("model", model)?.0,
        system: fields.text("system", 0..=SYSTEM_CHARS_MAX)?,
        tools,
        mcp_servers,
        on_unknown_outcome: read_on_unknown_outcome(&mut fields)?.unwrap_or_default(),
        metadata: metadata::read_new("metadata", fields.given("metadata"))?,
    })
}

/// What the agent does with a call of unknown outcome.
pub fn read_on_unknown_outcome(fields: &mut Fields) -> Result<Option<OnUnknownOutcome>, Invalid> {
    let word = fields.word("on_unknown_outcome", &OnUnknownOutcome::NAMES)?;
    Ok(word.and_then(OnUnknownOutcome::parse))
}

fn refuse_unavailable(fields: &mut Fields) -> Result<(), Invalid> {
    for name in UNAVAILABLE {
        fields.unavailable(name)?;
    }
    match fields.given("execution_identity") {
        None => Ok(()),
        Some(value) => {
            let at = fields.path("execution_identity");
            Fields::open(&at, value, &["type"])?.word("type", &["service_account"]).map(|_| ())
        }
    }
}

/// A change to an agent.
#[derive(Debug)]
pub struct AgentPatch {
    /// The version that the caller believes to be the latest.
    pub version: Option<u64>,
    name: Option<String>,
    model: Option<(ModelRef, bool)>,
    description: Patch<String>,
    system: Patch<String>,
    tools: Patch<Vec<Tool>>,
    on_unknown_outcome: Option<OnUnknownOutcome>,
    mcp_servers: Patch<Vec<McpServer>>,
    metadata: MetadataPatch,
}

pub fn read_patch(body: Value) -> Result<AgentPatch, Invalid> {
    let mut fields = Fields::body(body, UPDATE)?;
    refuse_unavailable(&mut fields)?;
    let model = match fields.take("model") {
        None => None,
        Some(value) => Some(model::read("model", value)?),
    };
    let name = match fields.patch_text("name", 1..=NAME_CHARS_MAX)? {
        Patch::Keep => None,
        Patch::Set(name) => Some(name),
        Patch::Clear => return Err(Invalid::new("name", "null", "a string of 1 to 256 characters")),
    };
    Ok(AgentPatch {
        version: fields.integer("version", 1..=u64::MAX)?,
        name,
        model,
        description: fields.patch_text("description", 0..=DESCRIPTION_CHARS_MAX)?,
        system: fields.patch_text("system", 0..=SYSTEM_CHARS_MAX)?,
        tools: read_tools_patch(&mut fields)?,
        on_unknown_outcome: read_on_unknown_outcome(&mut fields)?,
        mcp_servers: read_servers_patch(&mut fields)?,
        metadata: metadata::read_patch("metadata", fields.given("metadata"), false)?,
    })
}

fn read_tools_patch(fields: &mut Fields) -> Result<Patch<Vec<Tool>>, Invalid> {
    match fields.take("tools") {
        None => Ok(Patch::Keep),
        Some(Value::Null) => Ok(Patch::Clear),
        Some(value) => tool::read_list(&fields.path("tools"), value).map(Patch::Set),
    }
}

fn read_servers_patch(fields: &mut Fields) -> Result<Patch<Vec<McpServer>>, Invalid> {
    match fields.take("mcp_servers") {
        None => Ok(Patch::Keep),
        Some(value) => mcp::read_servers(&fields.path("mcp_servers"), value).map(Patch::Set),
    }
}

impl AgentPatch {
    pub fn apply(self, old: &AgentSpec) -> Result<AgentSpec, Invalid> {
        let tools = applied(self.tools, &Some(old.tools.clone())).unwrap_or_default();
        let mcp_servers = applied(self.mcp_servers, &Some(old.mcp_servers.clone())).unwrap_or_default();
        mcp::check(&mcp_servers, &tools)?;
        Ok(AgentSpec {
            name: self.name.unwrap_or_else(|| old.name.clone()),
            description: applied(self.description, &old.description),
            model: self.model.map_or_else(|| old.model.clone(), |new| model::replace(&old.model, new)),
            system: applied(self.system, &old.system),
            tools,
            mcp_servers,
            on_unknown_outcome: self.on_unknown_outcome.unwrap_or(old.on_unknown_outcome),
            metadata: metadata::apply("metadata", old.metadata.clone(), &self.metadata)?,
        })
    }
}

fn applied<T: Clone>(patch: Patch<T>, old: &Option<T>) -> Option<T> {
    match patch {
        Patch::Keep => old.clone(),
        Patch::Clear => None,
        Patch::Set(new) => Some(new),
    }
}

/// The fields of `agent_with_overrides` beside `type`, `id` and `version`.
pub const OVERRIDES: [&str; 5] = ["model", "system", "tools", "mcp_servers", "skills"];

/// The spec of a session whose agent is overridden for it alone: absent inherits, `null` or `[]` clears, a value replaces.
pub fn read_overrides(fields: &mut Fields, base: &AgentSpec) -> Result<AgentSpec, Invalid> {
    fields.unavailable("skills")?;
    let mut spec = base.clone();
    let model_value = fields.take("model");
    if let Patch::Set(new) = model::read_override(&fields.path("model"), model_value)? {
        spec.model = model::replace(&base.model, new);
    }
    spec.system = applied(fields.patch_text("system", 0..=SYSTEM_CHARS_MAX)?, &base.system);
    spec.tools = applied(read_tools_patch(fields)?, &Some(spec.tools)).unwrap_or_default();
    spec.mcp_servers = applied(read_servers_patch(fields)?, &Some(spec.mcp_servers)).unwrap_or_default();
    mcp::check(&spec.mcp_servers, &spec.tools)?;
    Ok(spec)
}

/// An agent as clients see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Agent {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub version: u64,
    #[serde(flatten)]
    pub definition: AgentDefinition,
    #[schema(value_type = Object)]
    pub metadata: Value,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub archived_at: Option<Timestamp>,
}

/// What an agent and the agent inside a session have in common.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentDefinition {
    pub name: String,
    pub description: Option<String>,
    #[schema(value_type = Object)]
    pub model: Value,
    pub system: Option<String>,
    #[schema(value_type = Vec<Object>)]
    pub tools: Value,
    #[schema(value_type = Vec<Object>)]
    pub mcp_servers: Value,
    #[schema(value_type = Vec<Object>)]
    pub skills: Value,
    #[schema(value_type = Option<Object>)]
    pub multiagent: Value,
    #[schema(value_type = String)]
    pub on_unknown_outcome: OnUnknownOutcome,
    #[schema(value_type = Object)]
    pub execution_identity: Value,
}

pub fn write_definition(spec: &AgentSpec) -> AgentDefinition {
    AgentDefinition {
        name: spec.name.clone(),
        description: spec.description.clone(),
        model: model::write(&spec.model),
        system: spec.system.clone(),
        tools: tool::write_list(&spec.tools),
        mcp_servers: json!(spec.mcp_servers),
        skills: json!([]),
        multiagent: Value::Null,
        on_unknown_outcome: spec.on_unknown_outcome,
        execution_identity: json!({"type": "service_account"}),
    }
}

pub fn write(agent: &Definition) -> Agent {
    Agent {
        id: agent.id.to_string(),
        kind: "agent",
        version: agent.version,
        definition: write_definition(&agent.spec),
        metadata: json!(agent.spec.metadata),
        created_at: agent.created_at,
        updated_at: agent.updated_at,
        archived_at: agent.archived_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> AgentSpec {
        read_new(json!({"name": "a", "model": "builtin/shell", "system": "s", "description": "d",
            "tools": [{"type": "agent_toolset_20260401"}], "metadata": {"k": "v"}, "betas": []}))
        .expect("valid")
    }

    fn patched(patch: Value) -> AgentSpec {
        read_patch(patch).and_then(|p| p.apply(&spec())).expect("valid")
    }

    #[test]
    fn every_field_that_clients_read_is_there() {
        let at = Timestamp(0);
        let agent = Definition {
            id: loopd_domain::AgentId::parse("id", "agent_1").expect("an id"),
            workspace: loopd_domain::WorkspaceId::default_workspace(),
            version: 1,
            spec: read_new(json!({"name": "a", "model": "builtin/shell"})).expect("valid"),
            created_at: at,
            updated_at: at,
            archived_at: None,
        };
        let wire = serde_json::to_value(write(&agent)).expect("serialises");
        let expected = json!({"id": "agent_1", "type": "agent", "version": 1, "name": "a", "description": null,
            "model": {"id": "builtin/shell", "effort": null, "speed": "standard", "inference_geo": null}, "system": null,
            "tools": [], "mcp_servers": [], "skills": [], "multiagent": null, "on_unknown_outcome": "continue",
            "execution_identity": {"type": "service_account"},
            "metadata": {}, "created_at": "1970-01-01T00:00:00.000000Z", "updated_at": "1970-01-01T00:00:00.000000Z", "archived_at": null});
        assert_eq!(wire, expected);
    }

    #[test]
    fn a_patch_keeps_clears_and_sets() {
        assert_eq!(patched(json!({})), spec());
        assert_eq!(patched(json!({"name": "a", "system": "s"})), spec());
        let cleared = patched(json!({"system": null, "description": null, "tools": [], "metadata": {"k": null}}));
        assert_eq!(
            (cleared.system, cleared.description, cleared.tools.len(), cleared.metadata.len()),
            (None, None, 0, 0)
        );
        assert_eq!(patched(json!({"name": "b"})).name, "b");
        for bad in [
            json!({"name": null}),
            json!({"model": null}),
            json!({"version": 0}),
            json!({"nmae": "x"}),
            json!({"skills": [1]}),
        ] {
            assert!(read_patch(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn overrides_have_three_states() {
        let over =
            |value: Value| Fields::open("agent", value, &OVERRIDES).and_then(|mut f| read_overrides(&mut f, &spec()));
        assert_eq!(over(json!({})).expect("valid"), spec());
        let cleared = over(json!({"system": null, "tools": null})).expect("valid");
        assert_eq!((cleared.system, cleared.tools), (None, vec![]));
        assert_eq!(over(json!({"model": "x/y"})).expect("valid").model.id, "x/y");
        assert_eq!(over(json!({"model": null})).expect_err("refused").field, "agent.model");
        assert_eq!(over(json!({"mcp_servers": [{}]})).expect_err("refused").field, "agent.mcp_servers[0].type");
    }
}
