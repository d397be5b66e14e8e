//! What a caller may say in one invocation.

use super::input;
use crate::fields::{Field, Fields, Kind, describe, may, must, request_body};
use crate::sse::Previews;
use crate::v1::vaults;
use crate::wire::{agent, mcp, metadata, model, tool};
use loopd_domain::agent::{Metadata, ModelRef, OnUnknownOutcome, Tool};
use loopd_domain::event::EventBody;
use loopd_domain::limits::{NAME_CHARS_MAX, SYSTEM_CHARS_MAX, TURN_SECONDS_MAX, TURN_STEPS_MAX};
use loopd_domain::mcp::McpServer;
use loopd_domain::session::TurnLimits;
use loopd_domain::{Invalid, SessionId, VaultId};
use serde_json::Value;

/// Most output tokens of one turn.
const OUTPUT_TOKENS_MAX: u64 = 1_000_000_000;
/// Most dollars of one turn.
const COST_USD_MAX: f64 = 1_000_000.0;
const MICROS: f64 = 1_000_000.0;
/// Bytes of an output schema.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
const DELTAS_MAX: usize = 100;

pub const FIELDS: &[Field] = &[
    must(
        "input",
        Kind::Any,
        "a text, or a list of content blocks (`text`, `image`, `document`) and answers to waiting calls \
        ({type: \"tool_result\", tool_use_id, content?, is_error?}, {type: \"tool_confirmation\", tool_use_id, result, deny_message?})",
    ),
    may(
        "model",
        Kind::Any,
        "`provider/name`, or {id, effort?, base_url?, max_tokens?, temperature?, extra?}; needed without `agent` or `session`",
    ),
    may("system", Kind::Text, "the system prompt; null beside an agent clears the agent's"),
    may("tools", Kind::List, "short names of built-ins and tool objects; absent without an agent: all built-ins"),
    may("mcp_servers", Kind::List, "{type: \"url\", name, url}, each with an `mcp_toolset` in `tools`"),
    may(
        "agent",
        Kind::Any,
        "an agent id, or {id, version?}; `model`, `system`, `tools` and `mcp_servers` beside it override it for this session",
    ),
    may("session", Kind::Text, "go on in this session; otherwise a new one is made"),
    may(
        "environment",
        Kind::Any,
        "an environment id, or {root?, networking?, isolation?, hibernation?, limits?}; for a new session",
    ),
    may(
        "on_unknown_outcome",
        Kind::Text,
        "what follows a call of which nobody knows whether it happened: `continue`, `ask` or `fail`; for a new session",
    ),
    may("title", Kind::Text, "title of a new session"),
    may("metadata", Kind::Object, "metadata of a new session"),
    may("user", Kind::Text, "your id of the end user; kept as metadata `user` of a new session"),
    may("limits", Kind::Object, "{steps?, output_tokens?, seconds?, cost_usd?} of this turn"),
    may("output_schema", Kind::Object, "a JSON Schema that the final answer must satisfy"),
    may("stream", Kind::Boolean, "the session's events as server-sent events, then `loopd.invoke_result`"),
    may("background", Kind::Boolean, "answer 202 with the ids at once"),
    may(
        "event_deltas",
        Kind::List,
        "previews in a stream: `agent.message` and `loopd.room_progress` (by default), `agent.thinking`, `loopd.tool_output`",
    ),
    may(
        "if_running",
        Kind::Text,
        "when a turn of the session runs: `queue` (default: taken up at its next step) or `reject` (409)",
    ),
    may("policy", Kind::Any, "not available in this version: null or absent"),
    may("vaults", Kind::List, "up to 50 vaults whose credentials a new session may use; the first with a match wins"),
    may("memory", Kind::Object, "not available in this version: null or absent"),
];
request_body!(
    /// Body of `POST /v1/invoke`.
    InvokeRequest, FIELDS
);

/// An agent by name.
#[derive(Debug, PartialEq)]
pub struct AgentName {
    pub id: String,
    pub version: Option<u64>,
}

/// The room of a new session.
#[derive(Debug, PartialEq)]
pub enum Room {
    Default,
    Named(String),
    /// The object of an inline definition.
    Inline(Value),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    Wait,
    Stream(Previews),
    Background,
}

/// An invocation as it was sent.
#[derive(Debug)]
pub struct Invocation {
    pub inputs: Vec<EventBody>,
    pub model: Option<(ModelRef, bool)>,
    /// Inner `None`: `null`, which clears an agent's.
    pub system: Option<Option<String>>,
    pub tools: Option<Vec<Tool>>,
    pub mcp_servers: Option<Vec<McpServer>>,
    pub agent: Option<AgentName>,
    pub on_unknown_outcome: Option<OnUnknownOutcome>,
    pub session: Option<SessionId>,
    pub room: Room,
    pub vaults: Vec<VaultId>,
    pub title: Option<String>,
    pub metadata: Metadata,
    pub limits: TurnLimits,
    pub output_schema: Option<Value>,
    pub mode: Mode,
    pub reject_if_running: bool,
}

pub fn read(body: Value) -> Result<Invocation, Invalid> {
    let mut fields = Fields::body(body, FIELDS)?;
    for name in ["policy", "memory"] {
        fields.unavailable(name)?;
    }
    let session = fields.text("session", 1..=NAME_CHARS_MAX)?.map(|id| SessionId::parse("session", &id)).transpose()?;
    if session.is_some() {
        refuse_beside_session(&mut fields)?;
    }
    let value = fields.need("input", "a text, or a list of content blocks and tool answers")?;
    let mut metadata = metadata::read_new("metadata", fields.given("metadata"))?;
    if let Some(user) = fields.text("user", 1..=loopd_domain::limits::METADATA_VALUE_CHARS_MAX)? {
        metadata = metadata::apply("metadata", metadata, &vec![("user".to_owned(), Some(user))])?;
    }
    Ok(Invocation {
        inputs: input::read("input", value)?,
        model: fields.given("model").map(|v| model::read("model", v)).transpose()?,
        system: read_system(&mut fields)?,
        tools: match fields.take("tools") {
            None => None,
            Some(Value::Null) => Some(Vec::new()),
            Some(value) => Some(tool::read_short_list("tools", value)?),
        },
        mcp_servers: fields.take("mcp_servers").map(|v| mcp::read_servers("mcp_servers", v)).transpose()?,
        agent: fields.given("agent").map(read_agent).transpose()?,
        on_unknown_outcome: agent::read_on_unknown_outcome(&mut fields)?,
        session,
        room: match fields.given("environment") {
            None => Room::Default,
            Some(Value::String(id)) => Room::Named(id),
            Some(object @ Value::Object(_)) => Room::Inline(object),
            Some(other) => return Err(Invalid::new("environment", describe(&other), "an environment id or an object")),
        },
        vaults: vaults::read_ids(&mut fields, "vaults")?,
        title: fields.text("title", 0..=500)?,
        metadata,
        limits: read_limits(fields.given("limits"))?,
        output_schema: fields.given("output_schema").map(read_schema).transpose()?,
        mode: read_mode(&mut fields)?,
        reject_if_running: fields.word("if_running", &["queue", "reject"])? == Some("reject"),
    })
}

/// A session has its agent and its room already.
fn refuse_beside_session(fields: &mut Fields) -> Result<(), Invalid> {
    let own = ["model", "system", "tools", "mcp_servers", "agent", "on_unknown_outcome"];
    for name in own.into_iter().chain(["environment", "vaults", "title", "metadata", "user"]) {
        if let Some(value) = fields.given(name) {
            return Err(Invalid::new(name, describe(&value), "nothing beside `session`, which has its own already"));
        }
    }
    Ok(())
}

fn read_system(fields: &mut Fields) -> Result<Option<Option<String>>, Invalid> {
    use crate::fields::Patch;
    Ok(match fields.patch_text("system", 0..=SYSTEM_CHARS_MAX)? {
        Patch::Keep => None,
        Patch::Clear => Some(None),
        Patch::Set(text) => Some(Some(text)),
    })
}

fn read_agent(value: Value) -> Result<AgentName, Invalid> {
    if let Value::String(id) = value {
        return Ok(AgentName { id, version: None });
    }
    let mut fields = Fields::open("agent", value, &["type", "id", "version"])?;
    fields.word("type", &["agent"])?;
    let id = fields.need_text("id", 1..=NAME_CHARS_MAX)?;
    Ok(AgentName { id, version: fields.integer("version", 1..=i64::MAX as u64)? })
}

fn read_limits(value: Option<Value>) -> Result<TurnLimits, Invalid> {
    let default = TurnLimits::default();
    let Some(value) = value else { return Ok(default) };
    let mut fields = Fields::open("limits", value, &["steps", "output_tokens", "seconds", "cost_usd"])?;
    let cost = fields.number("cost_usd", 0.000_001..=COST_USD_MAX)?;
    Ok(TurnLimits {
        steps: fields.integer("steps", 1..=u64::from(TURN_STEPS_MAX))?.map_or(default.steps, |n| n as u32),
        output_tokens: fields.integer("output_tokens", 1..=OUTPUT_TOKENS_MAX)?.unwrap_or(default.output_tokens),
        seconds: fields.integer("seconds", 1..=TURN_SECONDS_MAX)?.unwrap_or(default.seconds),
        cost_micro_usd: cost.map(|usd| (usd * MICROS).round() as u64),
    })
}

fn read_schema(value: Value) -> Result<Value, Invalid> {
    let bytes = value.to_string().len();
    if bytes > SCHEMA_BYTES_MAX {
        return Err(Invalid::new("output_schema", format!("{bytes} bytes"), format!("up to {SCHEMA_BYTES_MAX} bytes")));
    }
    let accepted = "a valid JSON Schema that refers to nothing outside itself";
    match loopd_session::output::check_schema(&value) {
        Ok(()) => Ok(value),
        Err(fault) => Err(Invalid::new("output_schema", fault, accepted)),
    }
}

fn read_mode(fields: &mut Fields) -> Result<Mode, Invalid> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let background = fields.boolean("background")?.unwrap_or(false);
    let previews = match fields.list("event_deltas", DELTAS_MAX)? {
        None => Previews::read("event_deltas", ["agent.message", "loopd.room_progress"])?,
        Some(list) => {
            let names = list.iter().map(|v| v.as_str().unwrap_or("not a string"));
            Previews::read("event_deltas", names)?
        }
    };
    match (stream, background) {
        (true, true) => Err(Invalid::new("background", true, "`false` beside `stream`: choose one")),
        (true, false) => Ok(Mode::Stream(previews)),
        (false, true) => Ok(Mode::Background),
        (false, false) => Ok(Mode::Wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_least_and_the_most() {
        let least = read(json!({"input": "hi", "model": "builtin/shell"})).expect("valid");
        assert_eq!((least.mode, least.room, least.tools), (Mode::Wait, Room::Default, None));
        assert_eq!(least.limits, TurnLimits::default());
        let most = read(json!({
            "input": [{"type": "text", "text": "hi"}], "model": {"id": "a/b"}, "system": "s", "tools": ["bash"],
            "environment": {"limits": {"pids": 64}}, "title": "t", "metadata": {"k": "v"}, "user": "u", "stream": true,
            "limits": {"steps": 3, "output_tokens": 100, "seconds": 60, "cost_usd": 0.25}, "output_schema": {"type": "object"},
            "event_deltas": [], "if_running": "reject", "policy": null, "vaults": [], "memory": null,
        }))
        .expect("valid");
        assert_eq!(most.limits.cost_micro_usd, Some(250_000));
        assert_eq!(most.metadata.get("user").map(String::as_str), Some("u"));
        assert_eq!(most.mode, Mode::Stream(Previews::default()));
    }

    #[test]
    fn refusals_name_the_field() {
        let with = |extra: Value| {
            let mut body = json!({"input": "hi", "model": "a/b"});
            body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
            body
        };
        let cases = [
            (json!({"model": "a/b"}), "input"),
            (with(json!({"polcy": 1})), "polcy"),
            (with(json!({"policy": "permit(...)"})), "policy"),
            (with(json!({"vaults": ["vlt_1", "vlt_1"]})), "vaults[1]"),
            (with(json!({"vaults": ["env_1"]})), "vaults[0]"),
            (json!({"input": "hi", "session": "sesn_1", "vaults": ["vlt_1"]}), "vaults"),
            (with(json!({"memory": {"store": "m"}})), "memory"),
            (with(json!({"session": "sesn_1"})), "model"),
            (json!({"input": "hi", "session": "nonsense"}), "session"),
            (with(json!({"limits": {"steps": 0}})), "limits.steps"),
            (with(json!({"limits": {"cost_usd": -1}})), "limits.cost_usd"),
            (with(json!({"limits": {"step": 1}})), "limits.step"),
            (with(json!({"output_schema": {"type": "objekt"}})), "output_schema"),
            (with(json!({"output_schema": "x"})), "output_schema"),
            (with(json!({"stream": true, "background": true})), "background"),
            (with(json!({"stream": "yes"})), "stream"),
            (with(json!({"event_deltas": ["x"]})), "event_deltas"),
            (with(json!({"if_running": "wait"})), "if_running"),
            (with(json!({"environment": 7})), "environment"),
        ];
        for (value, field) in cases {
            assert_eq!(read(value.clone()).expect_err("refused").field, field, "{value}");
        }
    }
}
