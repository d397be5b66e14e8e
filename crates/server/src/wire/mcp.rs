//! MCP servers and their toolsets: read, checked against each other, and echoed resolved.

use crate::fields::{Fields, describe, items};
use crate::wire::tool::{read_effect, read_policy, read_url};
use loopd_domain::Invalid;
use loopd_domain::agent::Tool;
use loopd_domain::limits::{MCP_SERVER_NAME_CHARS_MAX, MCP_SERVERS_MAX, MCP_TOOLS_MAX, TOOL_NAME_CHARS_MAX};
use loopd_domain::mcp::{McpServer, McpToolConfig, McpToolset, NamedMcpToolConfig};
use serde_json::{Value, json};

pub const TOOLSET: &str = "mcp_toolset";

/// `mcp_servers` of an agent; `null` is none.
pub fn read_servers(at: &str, value: Value) -> Result<Vec<McpServer>, Invalid> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let mut servers: Vec<McpServer> = Vec::new();
    for (i, value) in items(at, value, MCP_SERVERS_MAX)?.into_iter().enumerate() {
        let mut fields = Fields::open(&format!("{at}[{i}]"), value, &["type", "name", "url"])?;
        fields.need("type", "`url`").and_then(|kind| crate::fields::word(&fields.path("type"), &kind, &["url"]))?;
        let name = fields.need_text("name", 1..=MCP_SERVER_NAME_CHARS_MAX)?;
        if servers.iter().any(|s| s.name == name) {
            return Err(Invalid::new(fields.path("name"), name, "each server's name once"));
        }
        servers.push(McpServer { name, url: read_url(&mut fields)? });
    }
    Ok(servers)
}

pub fn read_toolset(at: &str, value: Value) -> Result<McpToolset, Invalid> {
    let mut fields = Fields::open(at, value, &["type", "mcp_server_name", "default_config", "configs"])?;
    let mcp_server_name = fields.need_text("mcp_server_name", 1..=MCP_SERVER_NAME_CHARS_MAX)?;
    let default_config = match fields.given("default_config") {
        None => McpToolConfig::default(),
        Some(value) => {
            let at = fields.path("default_config");
            let mut config = Fields::open(&at, value, &["enabled", "permission_policy", "effect"])?;
            read_config(&mut config, McpToolConfig::default())?
        }
    };
    let at = fields.path("configs");
    let mut configs: Vec<NamedMcpToolConfig> = Vec::new();
    for (i, value) in fields.list("configs", MCP_TOOLS_MAX)?.unwrap_or_default().into_iter().enumerate() {
        let names = ["name", "type", "enabled", "permission_policy", "effect"];
        let mut fields = Fields::open(&format!("{at}[{i}]"), value, &names)?;
        // Clients send back what they were shown.
        fields.text("type", 0..=TOOL_NAME_CHARS_MAX)?;
        let name = fields.need_text("name", 1..=TOOL_NAME_CHARS_MAX)?;
        if configs.iter().any(|c| c.name == name) {
            return Err(Invalid::new(fields.path("name"), name, "each tool once"));
        }
        configs.push(NamedMcpToolConfig { name, config: read_config(&mut fields, default_config)? });
    }
    Ok(McpToolset { mcp_server_name, default_config, configs })
}

fn read_config(fields: &mut Fields, default: McpToolConfig) -> Result<McpToolConfig, Invalid> {
    Ok(McpToolConfig {
        enabled: fields.boolean("enabled")?.unwrap_or(default.enabled),
        permission_policy: match fields.given("permission_policy") {
            None => default.permission_policy,
            Some(value) => read_policy(&fields.path("permission_policy"), value)?,
        },
        effect: read_effect(fields)?.or(default.effect),
    })
}

/// Every server has its one toolset, and every toolset its server.
pub fn check(servers: &[McpServer], tools: &[Tool]) -> Result<(), Invalid> {
    let toolsets = || {
        tools.iter().enumerate().filter_map(|(i, tool)| match tool {
            Tool::Mcp(toolset) => Some((i, &toolset.mcp_server_name)),
            _ => None,
        })
    };
    if let Some((i, name)) = toolsets().find(|(_, name)| servers.iter().all(|s| &s.name != *name)) {
        let names: Vec<String> = servers.iter().map(|s| format!("`{}`", s.name)).collect();
        let accepted = match names.is_empty() {
            true => "the name of a server in `mcp_servers`, which has none".to_owned(),
            false => format!("the name of a server in `mcp_servers`: {}", names.join(", ")),
        };
        return Err(Invalid::new(format!("tools[{i}].mcp_server_name"), describe(&json!(name)), accepted));
    }
    if let Some((i, name)) = toolsets().find(|(i, name)| toolsets().any(|(j, other)| j < *i && other == *name)) {
        return Err(Invalid::new(format!("tools[{i}].mcp_server_name"), describe(&json!(name)), "each server once"));
    }
    match servers.iter().position(|s| toolsets().all(|(_, name)| name != &s.name)) {
        None => Ok(()),
        Some(i) => {
            let accepted = "a server that an `mcp_toolset` in `tools` names";
            Err(Invalid::new(format!("mcp_servers[{i}].name"), servers[i].name.clone(), accepted))
        }
    }
}

pub fn write_toolset(toolset: &McpToolset) -> Value {
    let configs: Vec<Value> = toolset.configs.iter().map(|c| json!(c)).collect();
    json!({"type": TOOLSET, "mcp_server_name": toolset.mcp_server_name, "default_config": toolset.default_config, "configs": configs})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tool::{read_list, write_list};

    fn servers(names: &[&str]) -> Vec<McpServer> {
        names.iter().map(|n| McpServer { name: (*n).to_owned(), url: "http://127.0.0.1/mcp".to_owned() }).collect()
    }

    #[test]
    fn a_toolset_is_echoed_resolved_and_asks_by_default() {
        let tools = json!([{"type": TOOLSET, "mcp_server_name": "shop", "default_config": {"effect": "keyed"},
            "configs": [{"name": "find", "permission_policy": {"type": "always_allow"}, "effect": "pure"}, {"name": "wipe", "enabled": false}]}]);
        let echo = write_list(&read_list("tools", tools).expect("valid"));
        let (ask, allow) = (json!({"type": "always_ask"}), json!({"type": "always_allow"}));
        let expected = json!([{"type": TOOLSET, "mcp_server_name": "shop",
            "default_config": {"enabled": true, "permission_policy": ask, "effect": "keyed"},
            "configs": [{"name": "find", "enabled": true, "permission_policy": allow, "effect": "pure"},
                        {"name": "wipe", "enabled": false, "permission_policy": ask, "effect": "keyed"}]}]);
        assert_eq!(echo, expected);
        // What was echoed can be sent back.
        assert_eq!(write_list(&read_list("tools", echo.clone()).expect("valid")), echo);
    }

    #[test]
    fn servers_and_toolsets_belong_together() {
        let tools = read_list("tools", json!([{"type": TOOLSET, "mcp_server_name": "shop"}])).expect("valid");
        assert!(check(&servers(&["shop"]), &tools).is_ok());
        let twice = [tools.clone(), tools.clone()].concat();
        assert_eq!(check(&servers(&["shop"]), &twice).expect_err("twice").field, "tools[1].mcp_server_name");
        let told = check(&servers(&["depot"]), &tools).expect_err("no server");
        assert_eq!((told.field.as_str(), told.accepted.contains("`depot`")), ("tools[0].mcp_server_name", true));
        let told = check(&servers(&["shop", "depot"]), &tools).expect_err("no toolset");
        assert_eq!((told.field.as_str(), told.value.as_str()), ("mcp_servers[1].name", "depot"));
    }

    #[test]
    fn refusals_name_the_place() {
        let server = |name: &str, url: &str| json!({"type": "url", "name": name, "url": url});
        let good = server("shop", "https://shop.example.com/mcp");
        for (value, field) in [
            (json!([good, good]), "mcp_servers[1].name"),
            (json!([server("", "https://a/")]), "mcp_servers[0].name"),
            (json!([server("a", "stdio:x")]), "mcp_servers[0].url"),
            (json!([{"name": "a", "url": "https://a/"}]), "mcp_servers[0].type"),
            (json!([{"type": "stdio", "name": "a", "url": "https://a/"}]), "mcp_servers[0].type"),
            (json!(vec![good.clone(); MCP_SERVERS_MAX + 1]), "mcp_servers"),
        ] {
            assert_eq!(read_servers("mcp_servers", value.clone()).expect_err("refused").field, field, "{value}");
        }
        for (value, field) in [
            (json!({"type": TOOLSET}), "t.mcp_server_name"),
            (
                json!({"type": TOOLSET, "mcp_server_name": "s", "configs": [{"name": "a"}, {"name": "a"}]}),
                "t.configs[1].name",
            ),
            (
                json!({"type": TOOLSET, "mcp_server_name": "s", "default_config": {"effect": "client"}}),
                "t.default_config.effect",
            ),
        ] {
            assert_eq!(read_toolset("t", value.clone()).expect_err("refused").field, field, "{value}");
        }
    }
}
