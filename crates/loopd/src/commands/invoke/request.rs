//! The body of `POST /v1/invoke`, from the command line. Nothing is checked here that the server checks.

use crate::args::InvokeArgs;
use crate::settings::process_env;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;

/// Tools of a new session when the command line names none.
const ALL_TOOLS: [&str; 6] = ["bash", "read", "write", "edit", "glob", "grep"];

/// Reads what the arguments point to, and puts the body together.
pub fn read(args: &InvokeArgs) -> Result<Value> {
    let mut input = args.message.join(" ");
    if args.stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read as UTF-8 text")?;
        input = [input.as_str(), text.trim_end()]
            .iter()
            .filter(|t| !t.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("\n\n");
    }
    let system = match &args.system_file {
        Some(path) => Some(file(path, "system prompt")?),
        None => args.system.clone(),
    };
    let schema = args.output_schema.as_deref().map(|path| {
        let text = file(path, "output schema")?;
        serde_json::from_str(&text).with_context(|| format!("output schema `{}` is not JSON", path.display()))
    });
    let model = args.model.clone().or_else(|| process_env("LOOPD_MODEL"));
    body(args, model, input, system, schema.transpose()?)
}

fn file(path: &Path, what: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{what} `{}` cannot be read", path.display()))
}

fn body(
    args: &InvokeArgs,
    model: Option<String>,
    input: String,
    system: Option<String>,
    schema: Option<Value>,
) -> Result<Value> {
    ensure!(!input.trim().is_empty(), "no message; give one as an argument, or with --stdin");
    let is_new = args.session.is_none();
    if is_new && model.is_none() {
        bail!(
            "no model; choose one with --model: builtin/shell needs no key, anthropic/… needs ANTHROPIC_API_KEY, openai/… \
             needs OPENAI_API_KEY, ollama/… a running Ollama"
        );
    }
    let mut body = Map::new();
    body.insert("stream".to_owned(), json!(true));
    let previews: &[&str] = match args.json {
        true => &["loopd.room_progress"],
        false => &["agent.message", "loopd.tool_output", "loopd.room_progress"],
    };
    body.insert("event_deltas".to_owned(), json!(previews));
    body.insert("input".to_owned(), json!(input));
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    put("session", args.session.as_ref().map(|id| json!(id)));
    put("model", model.filter(|_| is_new).map(|id| json!(id)));
    put("system", system.map(|text| json!(text)));
    put("tools", tools(&args.tools, is_new)?);
    put("environment", args.isolation.as_ref().map(|kind| json!({"isolation": kind})));
    put("limits", args.max_steps.map(|steps| json!({"steps": steps})));
    put("output_schema", schema);
    Ok(Value::Object(body))
}

fn tools(named: &[String], is_new: bool) -> Result<Option<Value>> {
    match named {
        [] => Ok(is_new.then(|| json!(ALL_TOOLS))),
        [one] if one == "none" => Ok(Some(json!([]))),
        some if some.iter().any(|name| name == "none") => {
            bail!("--tool none stands alone; accepted: it, or names of tools")
        }
        some => Ok(Some(json!(some))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn of(line: &[&str]) -> Result<Value> {
        let cli = Cli::try_parse_from([&["loopd", "invoke"], line].concat()).expect("understood");
        let Command::Invoke(args) = cli.command else { panic!("not invoke") };
        let input = args.message.join(" ");
        body(&args, args.model.clone(), input, args.system.clone(), None)
    }

    #[test]
    fn a_new_session_has_all_tools_unless_told_otherwise() {
        let body = of(&["--model", "builtin/shell", "say", "hi"]).expect("fine");
        assert_eq!(body["input"], "say hi");
        assert_eq!(body["tools"], json!(ALL_TOOLS));
        assert_eq!(body["stream"], true);
        assert_eq!(
            of(&["--model", "m", "--tool", "bash", "--tool", "read", "x"]).expect("fine")["tools"],
            json!(["bash", "read"])
        );
        assert_eq!(of(&["--model", "m", "--tool", "none", "x"]).expect("fine")["tools"], json!([]));
        assert!(of(&["--model", "m", "--tool", "none", "--tool", "bash", "x"]).is_err());
    }

    #[test]
    fn a_session_that_goes_on_keeps_what_it_has() {
        let body = of(&["--session", "sesn_1", "--max-steps", "3", "more"]).expect("fine");
        let previews = ["agent.message", "loopd.tool_output", "loopd.room_progress"];
        assert_eq!(
            body,
            json!({"stream": true, "event_deltas": previews, "input": "more", "session": "sesn_1", "limits": {"steps": 3}})
        );
    }

    #[test]
    fn walls_are_asked_for_with_a_new_session() {
        let body = of(&["--model", "m", "--isolation", "microvm", "x"]).expect("fine");
        assert_eq!(body["environment"], json!({"isolation": "microvm"}));
        assert!(of(&["--model", "m", "x"]).expect("fine").get("environment").is_none(), "the server's default");
        for line in [["--session", "s", "--isolation", "microvm", "x"], ["--model", "m", "--isolation", "jail", "x"]] {
            assert!(Cli::try_parse_from([&["loopd", "invoke"], line.as_slice()].concat()).is_err(), "{line:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_the_next_thing_to_do() {
        assert!(of(&["--model", "m"]).expect_err("no message").to_string().contains("--stdin"));
        assert!(of(&["hi"]).expect_err("no model").to_string().contains("builtin/shell"));
    }

    #[test]
    fn every_built_in_tool_is_offered() {
        let names: Vec<&str> = loopd_domain::agent::Builtin::ALL.iter().map(|b| b.name()).collect();
        assert_eq!(ALL_TOOLS.as_slice(), names.as_slice());
    }
}
