//! Tools: what a caller declares, and how they are echoed (resolved: every built-in with its setting).

use crate::fields::{Fields, describe, items, text, unavailable, word};
use crate::wire::mcp;
use loopd_domain::Invalid;
use loopd_domain::agent::{Builtin, HttpTool, NamedToolConfig, PermissionPolicy, Tool, ToolConfig};
use loopd_domain::event::EffectClass;
use loopd_domain::limits::{
    HTTP_TOOL_TIMEOUT_MS_DEFAULT, HTTP_TOOL_TIMEOUT_MS_MAX, TOOL_DESCRIPTION_CHARS_MAX, TOOL_NAME_CHARS_MAX,
    TOOL_SCHEMA_BYTES_MAX, TOOL_URL_CHARS_MAX, TOOLS_MAX,
};
use serde_json::{Value, json};

pub const TOOLSET: &str = "agent_toolset_20260401";
/// Built-ins of the wire format that this version does not have; they may be named, not enabled.
const WEB_TOOLS: [&str; 2] = ["web_fetch", "web_search"];
const KINDS: &str = "`agent_toolset_20260401`, `mcp_toolset`, `custom` or `http`";

/// `tools` of an agent.
pub fn read_list(at: &str, value: Value) -> Result<Vec<Tool>, Invalid> {
    let list = items(at, value, TOOLS_MAX)?;
    let tools: Result<Vec<Tool>, Invalid> =
        list.into_iter().enumerate().map(|(i, value)| read(&format!("{at}[{i}]"), value)).collect();
    check_names(at, tools?)
}

/// `tools` of `/v1/invoke`: short names of built-ins as well, which together make one toolset.
pub fn read_short_list(at: &str, value: Value) -> Result<Vec<Tool>, Invalid> {
    let mut named = Vec::new();
    let mut tools = Vec::new();
    for (i, value) in items(at, value, TOOLS_MAX)?.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        match value {
            Value::String(name) => named.push(builtin(&at, &name)?),
            object => tools.push(read(&at, object)?),
        }
    }
    if !named.is_empty() {
        tools.insert(0, only(&named));
    }
    check_names(at, tools)
}

/// A toolset in which only these are enabled.
fn only(named: &[Builtin]) -> Tool {
    let off = ToolConfig { enabled: false, ..ToolConfig::default() };
    let on = Builtin::ALL.into_iter().filter(|b| named.contains(b));
    let configs = on.map(|name| NamedToolConfig { name, config: ToolConfig::default() }).collect();
    Tool::Toolset { default_config: off, configs }
}

/// All built-ins, as an agent has them that names no tools to `/v1/invoke`.
pub fn all_builtins() -> Vec<Tool> {
    vec![Tool::Toolset { default_config: ToolConfig::default(), configs: Vec::new() }]
}

fn builtin(at: &str, name: &str) -> Result<Builtin, Invalid> {
    if WEB_TOOLS.contains(&name) {
        return Err(unavailable(at, &json!(name)));
    }
    let names = Builtin::ALL.map(Builtin::name);
    Builtin::parse(name).ok_or_else(|| {
        let meant = crate::nearest::nearest(name, names).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        Invalid::new(at, name, format!("one of `{}`, or a tool object{meant}", names.join("`, `")))
    })
}

fn read(at: &str, value: Value) -> Result<Tool, Invalid> {
    let kind = value.get("type").cloned().unwrap_or(Value::Null);
    match kind.as_str() {
        Some(TOOLSET) => read_toolset(at, value),
        Some("custom") => read_custom(at, value),
        Some("http") => read_http(at, value).map(Tool::Http),
        Some(mcp::TOOLSET) => mcp::read_toolset(at, value).map(Tool::Mcp),
        Some(other) => Err(Invalid::new(format!("{at}.type"), other, KINDS)),
        None if value.is_object() => Err(Invalid::missing(format!("{at}.type"), KINDS)),
        None => Err(Invalid::new(at, describe(&value), "a tool object")),
    }
}

fn read_toolset(at: &str, value: Value) -> Result<Tool, Invalid> {
    let mut fields = Fields::open(at, value, &["type", "default_config", "configs"])?;
    let default_config = match fields.given("default_config") {
        None => ToolConfig::default(),
        Some(value) => {
            let at = fields.path("default_config");
            let mut config = Fields::open(&at, value, &["enabled", "permission_policy"])?;
            read_config(&mut config, ToolConfig::default())?
        }
    };
    let at = fields.path("configs");
    let mut configs: Vec<NamedToolConfig> = Vec::new();
    for (i, value) in fields.list("configs", TOOLS_MAX)?.unwrap_or_default().into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        let Some(config) = read_named(&at, value, default_config)? else { continue };
        if configs.iter().any(|c| c.name == config.name) {
            return Err(Invalid::new(format!("{at}.name"), config.name.name(), "each tool once"));
        }
        configs.push(config);
    }
    Ok(Tool::Toolset { default_config, configs })
}

/// `None` for a tool that this version does not have and that is not asked for.
fn read_named(at: &str, value: Value, default: ToolConfig) -> Result<Option<NamedToolConfig>, Invalid> {
    let name = value.get("name").and_then(Value::as_str).unwrap_or("").to_owned();
    if WEB_TOOLS.contains(&name.as_str()) {
        return match value.get("enabled") {
            Some(Value::Bool(true)) => Err(unavailable(&format!("{at}.enabled"), &json!(format!("true for {name}")))),
            _ => Ok(None),
        };
    }
    let mut fields = Fields::open(at, value, &["name", "type", "enabled", "permission_policy"])?;
    let name = fields.need_text("name", 1..=TOOL_NAME_CHARS_MAX)?;
    let builtin = builtin(&fields.path("name"), &name)?;
    fields.word("type", &[builtin.name()])?;
    Ok(Some(NamedToolConfig { name: builtin, config: read_config(&mut fields, default)? }))
}

fn read_config(fields: &mut Fields, default: ToolConfig) -> Result<ToolConfig, Invalid> {
    let enabled = fields.boolean("enabled")?.unwrap_or(default.enabled);
    let permission_policy = match fields.given("permission_policy") {
        None => default.permission_policy,
        Some(value) => read_policy(&fields.path("permission_policy"), value)?,
    };
    Ok(ToolConfig { enabled, permission_policy })
}

pub fn read_policy(at: &str, value: Value) -> Result<PermissionPolicy, Invalid> {
    let mut fields = Fields::open(at, value, &["type"])?;
    let kind = fields.need("type", "`always_allow` or `always_ask`")?;
    let at = fields.path("type");
    match word(&at, &kind, &["always_allow", "always_ask", "auto"])? {
        "always_allow" => Ok(PermissionPolicy::AlwaysAllow),
        "always_ask" => Ok(PermissionPolicy::AlwaysAsk),
        _ => Err(unavailable(&at, &kind)),
    }
}

fn read_custom(at: &str, value: Value) -> Result<Tool, Invalid> {
    let mut fields = Fields::open(at, value, &["type", "name", "description", "input_schema", "effect"])?;
    // Whoever declares it also runs it, so this can be nothing else.
    fields.word("effect", &[EffectClass::Client.as_str()])?;
    let (name, description, input_schema) = read_spec(&mut fields)?;
    Ok(Tool::Custom { name, description, input_schema })
}

/// Ours: a service that the host calls.
fn read_http(at: &str, value: Value) -> Result<HttpTool, Invalid> {
    const NAMES: [&str; 8] =
        ["type", "name", "description", "input_schema", "url", "effect", "timeout_ms", "permission_policy"];
    let mut fields = Fields::open(at, value, &NAMES)?;
    let (name, description, input_schema) = read_spec(&mut fields)?;
    let url = read_url(&mut fields)?;
    let timeout_ms = fields.integer("timeout_ms", 1..=HTTP_TOOL_TIMEOUT_MS_MAX)?;
    Ok(HttpTool {
        name,
        description,
        input_schema,
        url,
        effect: read_effect(&mut fields)?.unwrap_or(EffectClass::Once),
        timeout_ms: timeout_ms.unwrap_or(HTTP_TOOL_TIMEOUT_MS_DEFAULT),
        permission_policy: match fields.given("permission_policy") {
            None => PermissionPolicy::AlwaysAllow,
            Some(value) => read_policy(&fields.path("permission_policy"), value)?,
        },
    })
}

/// What may be done about a call whose result is lost, as the caller declares it.
pub fn read_effect(fields: &mut Fields) -> Result<Option<EffectClass>, Invalid> {
    let words = EffectClass::DECLARED.map(EffectClass::as_str);
    let word = fields.word("effect", &words)?;
    Ok(word.and_then(|word| EffectClass::DECLARED.into_iter().find(|class| class.as_str() == word)))
}

/// `url`: an address that the host may be sent to. Where it may go is checked at every call.
pub fn read_url(fields: &mut Fields) -> Result<String, Invalid> {
    const ACCEPTED: &str = "an `http` or `https` address without user name, password and fragment";
    let text = fields.need_text("url", 1..=TOOL_URL_CHARS_MAX)?;
    let plain = |url: &url::Url| {
        let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && bare
    };
    match url::Url::parse(&text).is_ok_and(|url| plain(&url)) {
        true => Ok(text),
        false => Err(Invalid::new(fields.path("url"), shown(&text), ACCEPTED)),
    }
}

/// A refused address without what stands before its `@`, which may be a password.
fn shown(address: &str) -> String {
    let tail = address.rsplit_once('@').map_or(address, |(_, tail)| tail);
    tail.chars().take(100).collect()
}

/// Name, description and schema of a tool that is not a built-in.
fn read_spec(fields: &mut Fields) -> Result<(String, String, Value), Invalid> {
    let name = fields.need_text("name", 1..=TOOL_NAME_CHARS_MAX)?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let reserved = name.starts_with("mcp__") || Builtin::parse(&name).is_some() || WEB_TOOLS.contains(&name.as_str());
    if !plain || reserved {
        let accepted = "letters, digits, `_` and `-`; not a built-in's name, and not starting with `mcp__`";
        return Err(Invalid::new(fields.path("name"), name, accepted));
    }
    let description = fields.need("description", "a text that tells the model what the tool does")?;
    let description = text(&fields.path("description"), description, 1..=TOOL_DESCRIPTION_CHARS_MAX)?;
    let at = fields.path("input_schema");
    let input_schema = fields.need("input_schema", "a JSON Schema of type `object`")?;
    check_schema(&at, &input_schema)?;
    Ok((name, description, input_schema))
}

fn check_schema(at: &str, schema: &Value) -> Result<(), Invalid> {
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(Invalid::new(at, describe(schema), "a JSON Schema of type `object`"));
    }
    let bytes = schema.to_string().len();
    if bytes > TOOL_SCHEMA_BYTES_MAX {
        return Err(Invalid::new(at, format!("{bytes} bytes"), format!("up to {TOOL_SCHEMA_BYTES_MAX} bytes")));
    }
    let accepted = |fault: String| Invalid::new(at, fault, "a valid JSON Schema that refers to nothing outside itself");
    loopd_session::output::check_schema(schema).map_err(accepted)
}

fn check_names(at: &str, tools: Vec<Tool>) -> Result<Vec<Tool>, Invalid> {
    let mut seen: Vec<&str> = Vec::new();
    for (i, tool) in tools.iter().enumerate() {
        let name = match tool {
            Tool::Toolset { .. } => TOOLSET,
            Tool::Custom { name, .. } => name,
            Tool::Http(http) => &http.name,
            // No other tool can have the name of its toolset's.
            Tool::Mcp(_) => continue,
        };
        if seen.contains(&name) {
            return Err(Invalid::new(format!("{at}[{i}]"), name, "each tool once"));
        }
        seen.push(name);
    }
    Ok(tools)
}

pub fn write_list(tools: &[Tool]) -> Value {
    tools.iter().map(write).collect()
}

fn write(tool: &Tool) -> Value {
    match tool {
        Tool::Custom { name, description, input_schema } => {
            json!({"type": "custom", "name": name, "description": description, "input_schema": input_schema})
        }
        Tool::Http(_) => json!(tool),
        Tool::Mcp(toolset) => mcp::write_toolset(toolset),
        Tool::Toolset { default_config, configs } => {
            let own = Builtin::ALL.map(|builtin| {
                let named = configs.iter().find(|c| c.name == builtin).map(|c| c.config);
                write_config(builtin.name(), named.unwrap_or(*default_config))
            });
            let web = WEB_TOOLS.map(|name| write_config(name, ToolConfig { enabled: false, ..*default_config }));
            let configs: Vec<Value> = own.into_iter().chain(web).collect();
            json!({"type": TOOLSET, "default_config": default_config, "configs": configs})
        }
    }
}

fn write_config(name: &str, config: ToolConfig) -> Value {
    json!({"name": name, "type": name, "enabled": config.enabled, "permission_policy": config.permission_policy})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolset_is_echoed_resolved() {
        let tools = read_list(
            "tools",
            json!([{"type": TOOLSET, "default_config": {"enabled": false},
            "configs": [{"name": "bash", "enabled": true, "permission_policy": {"type": "always_ask"}}, {"name": "web_search", "enabled": false}]}]),
        );
        let echo = write_list(&tools.expect("valid"));
        let configs = echo[0]["configs"].as_array().expect("a list");
        assert_eq!(configs.len(), 8);
        assert_eq!(
            configs[0],
            json!({"name": "bash", "type": "bash", "enabled": true, "permission_policy": {"type": "always_ask"}})
        );
        assert_eq!(configs[1]["enabled"], false);
        assert!(configs.iter().all(|c| c["permission_policy"]["type"].is_string()));
        assert_eq!(echo[0]["default_config"], json!({"enabled": false, "permission_policy": {"type": "always_allow"}}));
    }

    #[test]
    fn the_echo_of_all_tools_disables_the_web() {
        let echo = write_list(&read_list("tools", json!([{"type": TOOLSET}])).expect("valid"));
        let enabled = |name: &str| {
            let configs = echo[0]["configs"].as_array().expect("a list");
            configs.iter().find(|c| c["name"] == name).expect("named")["enabled"].clone()
        };
        assert_eq!((enabled("grep"), enabled("web_fetch")), (json!(true), json!(false)));
        // What was echoed can be sent back.
        assert_eq!(write_list(&read_list("tools", echo.clone()).expect("valid")), echo);
    }

    #[test]
    fn short_names_make_one_toolset() {
        let tools = read_short_list("tools", json!(["read", "bash"])).expect("valid");
        let [Tool::Toolset { default_config, configs }] = tools.as_slice() else { panic!("{tools:?}") };
        assert!(!default_config.enabled);
        assert_eq!(configs.iter().map(|c| c.name).collect::<Vec<_>>(), [Builtin::Bash, Builtin::Read]);
        assert!(read_short_list("tools", json!([])).expect("valid").is_empty());
        let fault = read_short_list("tools", json!(["bsh"])).expect_err("unknown").to_string();
        assert!(fault.contains("`tools[0]` is `bsh`") && fault.contains("did you mean `bash`"), "{fault}");
    }

    fn http(extra: Value) -> Value {
        let mut tool = json!({"type": "http", "name": "book", "description": "d", "input_schema": {"type": "object"},
            "url": "https://api.example.com/book"});
        tool.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        tool
    }

    #[test]
    fn an_http_tool_is_echoed_with_its_defaults() {
        let echo = write_list(&read_list("tools", json!([http(json!({}))])).expect("valid"));
        assert_eq!(
            echo[0],
            http(json!({"effect": "once", "timeout_ms": 60_000, "permission_policy": {"type": "always_allow"}}))
        );
        // What was echoed can be sent back.
        assert_eq!(write_list(&read_list("tools", echo.clone()).expect("valid")), echo);
        let given =
            json!([http(json!({"effect": "keyed", "timeout_ms": 5, "permission_policy": {"type": "always_ask"}}))]);
        assert_eq!(write_list(&read_list("tools", given.clone()).expect("valid")), given);
        // Wherever tools can be named.
        assert_eq!(read_short_list("tools", json!(["bash", http(json!({}))])).expect("valid").len(), 2);
    }

    #[test]
    fn an_http_tool_is_checked() {
        for (extra, field) in [
            (json!({"url": "ftp://example.com/"}), "tools[0].url"),
            (json!({"url": "https://user@example.com/"}), "tools[0].url"),
            (json!({"url": "/book"}), "tools[0].url"),
            (json!({"effect": "room"}), "tools[0].effect"),
            (json!({"timeout_ms": 600_001}), "tools[0].timeout_ms"),
            (json!({"timeout_ms": 0}), "tools[0].timeout_ms"),
            (json!({"name": "bash"}), "tools[0].name"),
            (json!({"method": "GET"}), "tools[0].method"),
        ] {
            assert_eq!(read_list("tools", json!([http(extra.clone())])).expect_err("refused").field, field, "{extra}");
        }
        let told =
            read_list("tools", json!([http(json!({"url": "https://me:secret@example.com/"}))])).expect_err("refused");
        assert!(!told.to_string().contains("secret"), "{told}");
    }

    #[test]
    fn a_custom_tool_is_the_clients_and_nobody_elses() {
        let tool = |effect: &str| json!([{"type": "custom", "name": "a", "description": "d", "input_schema": {"type": "object"}, "effect": effect}]);
        assert!(read_list("tools", tool("client")).is_ok());
        assert_eq!(read_list("tools", tool("pure")).expect_err("refused").field, "tools[0].effect");
    }

    #[test]
    fn refusals_name_the_place() {
        let custom = |name: &str| json!({"type": "custom", "name": name, "description": "d", "input_schema": {"type": "object"}});
        let cases = [
            (json!([{"type": "mcp_toolset"}]), "tools[0].mcp_server_name"),
            (
                json!([{"type": TOOLSET, "configs": [{"name": "web_fetch", "enabled": true}]}]),
                "tools[0].configs[0].enabled",
            ),
            (json!([{"type": TOOLSET, "configs": [{"name": "bash"}, {"name": "bash"}]}]), "tools[0].configs[1].name"),
            (
                json!([{"type": TOOLSET, "default_config": {"permission_policy": {"type": "auto"}}}]),
                "tools[0].default_config.permission_policy.type",
            ),
            (json!([{"type": TOOLSET}, {"type": TOOLSET}]), "tools[1]"),
            (json!([custom("bash")]), "tools[0].name"),
            (json!([custom("mcp__x")]), "tools[0].name"),
            (json!([custom("a b")]), "tools[0].name"),
            (json!([custom("a"), custom("a")]), "tools[1]"),
            (
                json!([{"type": "custom", "name": "a", "description": "", "input_schema": {"type": "object"}}]),
                "tools[0].description",
            ),
            (
                json!([{"type": "custom", "name": "a", "description": "d", "input_schema": {"type": "array"}}]),
                "tools[0].input_schema",
            ),
            (json!([{"type": "costum"}]), "tools[0].type"),
            (json!([{}]), "tools[0].type"),
            (json!("bash"), "tools"),
        ];
        for (value, field) in cases {
            assert_eq!(read_list("tools", value.clone()).expect_err("refused").field, field, "{value}");
        }
    }
}
