//! The command line: what a person types, what a script reads, what signals do.

use loopd_tests::cli::{Done, Live, loopd, run, run_fed, run_with};
use loopd_tests::http::{fenced, text, tool_results};
use loopd_tests::provider::{Provider, Reply};
use loopd_tests::script::{runs, says, script};
use loopd_tests::server::{Options, Signal};
use loopd_tests::{Http, Server};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

fn place() -> TempDir {
    TempDir::with_prefix("loopd-cli-").expect("a directory")
}

fn last(lines: &[Value]) -> &Value {
    lines.last().expect("at least one line")
}

#[test]
fn the_first_command_of_the_readme() {
    let dir = place();
    let out = run(dir.path(), &["invoke", "--model", "builtin/shell", &fenced("echo it-$((40 + 2))")]).ok();
    for needle in
        ["▸ bash echo it-$((40 + 2))", "│ it-42", "✓", "end_turn · 2 steps", "out tokens", "trace   loopd trace sesn_"]
    {
        assert!(out.contains(needle), "`{needle}` is not in:\n{out}");
    }
    assert!(!out.contains('\u{1b}'), "no colour where nobody watches");
    assert!(dir.path().join(".loopd").is_dir());

    let id = out.split_whitespace().find(|word| word.starts_with("sesn_")).expect("a session id");
    let tree = run(dir.path(), &["trace", id]).ok();
    assert!(tree.contains("bash") && tree.contains("builtin/shell"), "{tree}");
    let trace = run(dir.path(), &["trace", id, "--json"]).lines();
    assert_eq!(trace[0]["session_id"], id);
    let shown = run(dir.path(), &["sessions", "show", id]).ok();
    assert!(shown.contains("it-42") && shown.contains("status    idle"), "{shown}");
    let tail = run(dir.path(), &["sessions", "tail", id, "--json"]).lines();
    assert_eq!(last(&tail)["type"], "session.status_idle");
    assert!(run(dir.path(), &["sessions", "list"]).ok().contains(id));
    assert!(run(dir.path(), &["sessions", "delete", id]).ok().contains("deleted"));
    let gone = run(dir.path(), &["sessions", "show", id]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.contains(id), "{}", gone.err);
}

#[test]
fn json_is_one_event_a_line_and_then_the_result() {
    let dir = place();
    let done = run(dir.path(), &["invoke", "--json", "--model", "builtin/shell", &fenced("echo hi")]);
    let lines = done.lines();
    assert_eq!(done.code, Some(0));
    assert_eq!(last(&lines)["status"], "completed");
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    for kind in ["user.message", "agent.tool_use", "agent.tool_result", "agent.message", "session.status_idle"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    assert!(!kinds.contains(&"event_delta"));

    let refused = run(dir.path(), &["invoke", "--json", "--model", "nobody/x", "hi"]);
    assert_eq!(refused.code, Some(1));
    assert_eq!(last(&refused.lines())["error"]["type"], "invalid_request_error");
}

#[test]
fn a_session_is_continued_and_standard_input_is_read() {
    let dir = place();
    let first = run(dir.path(), &["invoke", "--json", "--model", "builtin/shell", &fenced("echo kept > note")]);
    let id = last(&first.lines())["session_id"].as_str().expect("an id").to_owned();
    let second = run_fed(dir.path(), &["invoke", "--session", &id, "--stdin"], &fenced("cat note")).ok();
    assert!(second.contains("│ kept"), "{second}");
    let both = run(dir.path(), &["invoke", "--session", &id, "--model", "x/y", "hi"]);
    assert_eq!(both.code, Some(2), "{}", both.err);
}

#[test]
fn a_system_prompt_reaches_the_model() {
    let dir = place();
    let system = script(vec![says("the script was played")]);
    let played = run(dir.path(), &["invoke", "--model", "builtin/script", "--system", &system, "go"]).ok();
    assert!(played.contains("the script was played"), "{played}");
    let none = run(dir.path(), &["invoke", "--model", "builtin/script", "go"]);
    assert_eq!(none.code, Some(5), "{none:?}");
    assert!(none.out.contains("not a script"), "{none:?}");
}

#[test]
fn a_tool_that_is_not_allowed_is_refused_to_the_model_and_the_turn_goes_on() {
    let dir = place();
    let looks = json!({"text": "told: {{last_result}}",
                       "tools": [{"name": "read", "input": {"file_path": "/workspace/ran"}}]});
    let system = script(vec![runs("touch /workspace/ran"), looks, says("went on")]);
    let arguments = ["invoke", "--json", "--model", "builtin/script", "--tool", "read", "--system", &system, "go"];
    let done = run(dir.path(), &arguments);
    assert_eq!(done.code, Some(0), "{done:?}");
    let lines = done.lines();
    let results = tool_results(&lines);
    assert_eq!(results.len(), 2, "{results:?}");
    assert_eq!((&results[0]["is_error"], &results[0]["outcome"]), (&json!(true), &json!("not_run")));
    assert_eq!(results[1]["is_error"], true, "the command left no file: {}", results[1]);
    assert_ne!(results[1]["outcome"], "not_run", "what is allowed runs: {}", results[1]);
    let mut said = lines.iter().filter(|line| line["type"] == "agent.message").map(|line| text(&line["content"]));
    let told = said.find(|said| said.starts_with("told: ")).expect("the model was told");
    assert!(told.contains("there is no tool `bash`") && told.contains("`read`"), "{told}");
    assert_eq!((last(&lines)["steps"].as_u64(), text(&last(&lines)["output"])), (Some(3), "went on".to_owned()));
}

/// A turn over the wire: the model asks for a command, is told what it printed, and ends.
fn over_the_wire(n: usize) -> Reply {
    if n == 0 { Reply::runs("echo from-$((40 + 2))") } else { Reply::answer("said over the wire") }
}

#[track_caller]
fn went_over_the_wire(done: Done, provider: &Provider) {
    let out = done.ok();
    for needle in ["│ from-42", "said over the wire", "end_turn · 2 steps"] {
        assert!(out.contains(needle), "`{needle}` is not in:\n{out}");
    }
    let heard = provider.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    for request in &heard {
        assert!(request.starts_with("POST /v1/chat/completions "), "{request}");
        assert!(request.to_lowercase().contains("authorization: bearer sk-fake\r\n"), "{request}");
        assert!(request.contains("\"model\":\"m\""), "{request}");
    }
    assert!(!heard[0].contains("from-42") && heard[1].contains("from-42"), "the second has the result");
    assert!(!out.contains("sk-fake"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_reached_where_the_environment_or_the_configuration_says() {
    let dir = place();
    let provider = Provider::start(over_the_wire).await;
    let env = [("OPENAI_BASE_URL", provider.url()), ("OPENAI_API_KEY", "sk-fake")];
    went_over_the_wire(run_with(dir.path(), &env, &["invoke", "--model", "openai/m", "go"]), &provider);

    let provider = Provider::start(over_the_wire).await;
    let base_url = provider.url();
    let config = format!(
        "[[models.providers]]\nname = \"near\"\nkind = \"openai\"\nbase_url = \"{base_url}\"\napi_key_env = \"NEAR_KEY\"\n"
    );
    fs::write(dir.path().join("loopd.toml"), config).expect("written");
    let done = run_with(dir.path(), &[("NEAR_KEY", "sk-fake")], &["invoke", "--model", "near/m", "go"]);
    went_over_the_wire(done, &provider);
    let keyless = run(dir.path(), &["invoke", "--model", "near/m", "go"]);
    assert!(keyless.code == Some(1) && keyless.err.contains("NEAR_KEY"), "{keyless:?}");
}

#[test]
fn the_exit_code_tells_how_the_turn_ended() {
    let dir = place();
    let scripted = |steps: Vec<Value>, more: &[&str]| {
        fs::write(dir.path().join("script.json"), script(steps)).expect("written");
        let base = ["invoke", "--model", "builtin/script", "--system-file", "script.json", "go"];
        run(dir.path(), &[base.as_slice(), more].concat()).code
    };
    let refusal = json!({"text": "I would rather not.", "stop": "refusal"});
    let fault = json!({"fault": {"class": "authentication", "message": "no such key"}});
    assert_eq!(scripted(vec![says("hi")], &[]), Some(0));
    assert_eq!(scripted(vec![runs("true"), runs("true"), says("hi")], &["--max-steps", "1"]), Some(4));
    assert_eq!(scripted(vec![fault], &[]), Some(5));
    assert_eq!(scripted(vec![refusal], &[]), Some(6));
    let schema = dir.path().join("schema.json");
    fs::write(&schema, "{\"type\": \"object\"}").expect("written");
    assert_eq!(scripted(vec![says("{}")], &["--output-schema", "schema.json"]), Some(0));
}

#[test]
fn mistakes_are_answered_with_the_next_thing_to_do() {
    let dir = place();
    let told = |arguments: &[&str], code: i32, needles: &[&str]| {
        let done = run(dir.path(), arguments);
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", done.err);
        for needle in needles {
            assert!(done.err.contains(needle), "{arguments:?}: `{needle}` is not in: {}", done.err);
        }
    };
    told(&["invoke", "hi"], 1, &["--model", "builtin/shell"]);
    told(&["invoke", "--model", "builtin/shell"], 1, &["--stdin"]);
    told(&["invoke", "--model", "anthropic/claude-x", "hi"], 1, &["ANTHROPIC_API_KEY"]);
    told(&["invoke", "--modl", "x"], 2, &["--model"]);
    told(&["invoke", "--model", "builtin/shell", "--tool", "bsh", "hi"], 1, &["`bsh`"]);
    told(&["invoke", "--model", "builtin/shell", "--system-file", "nowhere", "hi"], 1, &["`nowhere`"]);
    told(&["serve", "--listen", "0.0.0.0:0"], 1, &["LOOPD_API_KEY", "loopback"]);
    told(&["sessions", "show", "sesn_nothing"], 1, &["sesn_nothing"]);
    fs::write(dir.path().join("loopd.toml"), "lisen = \"127.0.0.1:1\"").expect("written");
    told(&["serve"], 1, &["`lisen`", "`listen`"]);
}

#[test]
fn nobody_answers_at_the_url() {
    let dir = place();
    let done = run_with(dir.path(), &[("LOOPD_URL", "http://127.0.0.1:1")], &["sessions", "list"]);
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("loopd serve") && done.err.contains("LOOPD_URL"), "{}", done.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_is_used_and_its_data_is_left_alone() {
    let server = Server::with(Options::default().env("LOOPD_API_KEY", "sk-right"));
    let dir = place();
    let env = [("LOOPD_URL", server.url()), ("LOOPD_API_KEY", "sk-right")];
    let out = run_with(dir.path(), &env, &["invoke", "--model", "builtin/shell", &fenced("echo remote")]).ok();
    assert!(out.contains("│ remote"), "{out}");
    assert!(!dir.path().join(".loopd").exists(), "no data of its own");
    let id = out.split_whitespace().find(|word| word.starts_with("sesn_")).expect("an id");
    assert_eq!(server.http().status(id).await, "idle");

    let wrong = run_with(dir.path(), &[("LOOPD_URL", server.url()), ("LOOPD_API_KEY", "no")], &["sessions", "list"]);
    assert!(wrong.code == Some(1) && wrong.err.contains("LOOPD_API_KEY"), "{}", wrong.err);

    let data = server.data();
    let beside = run(dir.path(), &["sessions", "list", "--data", data.to_str().expect("UTF-8")]);
    assert_eq!(beside.code, Some(1));
    assert!(
        beside.err.contains("in use") && beside.err.contains(&format!("LOOPD_URL={}", server.url())),
        "{}",
        beside.err
    );
}

#[test]
fn serve_says_where_and_ends_on_a_signal() {
    let mut server = Server::start();
    assert!(server.url().starts_with("http://127.0.0.1:") && !server.url().ends_with(":0"));
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_interrupts_the_turn_and_keeps_the_session() {
    let server = Server::start();
    let dir = place();
    let mut command = loopd(dir.path(), &["invoke", "--json", "--model", "builtin/shell", &fenced("sleep 300")]);
    command.env("LOOPD_URL", server.url());
    let mut live = Live::start(command);
    let seen = live.until("agent.tool_use");
    live.interrupt();
    live.until("\"status\":\"interrupted\"");
    assert_eq!(live.code(), Some(130));
    let started: Value = serde_json::from_str(seen.lines().next().expect("a line")).expect("JSON");
    assert_eq!(server.http().status(started["session_id"].as_str().expect("an id")).await, "idle");
}

#[test]
fn ctrl_c_without_a_server_interrupts_the_turn_and_keeps_the_session() {
    let dir = place();
    let mut live = Live::start(loopd(dir.path(), &["invoke", "--model", "builtin/shell", &fenced("sleep 300")]));
    live.until("▸ bash sleep 300");
    live.interrupt();
    let shown = live.until("trace   loopd trace sesn_");
    assert_eq!(live.code(), Some(130));
    assert!(shown.lines().any(|line| line == "interrupted"), "what ended the turn: {shown}");
    assert!(shown.contains("✗ interrupted"), "what became of the call: {shown}");
    let id = shown.split_whitespace().rfind(|word| word.starts_with("sesn_")).expect("a session id");
    assert!(run(dir.path(), &["sessions", "show", id]).ok().contains("status    idle"));
    let next = run(dir.path(), &["invoke", "--session", id, &fenced("echo going on")]).ok();
    assert!(next.contains("│ going on"), "{next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_twice_leaves_the_turn_to_the_server() {
    let server = Server::start();
    let dir = place();
    let mut command = loopd(dir.path(), &["invoke", "--json", "--model", "builtin/shell", &fenced("sleep 300")]);
    command.env("LOOPD_URL", server.url());
    let mut live = Live::start(command);
    let seen = live.until("agent.tool_use");
    // A server that does not move cannot end the turn before the second Ctrl-C.
    server.signal(Signal::STOP);
    live.interrupt();
    tokio::time::sleep(Duration::from_secs(1)).await;
    live.interrupt();
    let code = live.code();
    server.signal(Signal::CONT);
    assert_eq!(code, Some(8));
    let started: Value = serde_json::from_str(seen.lines().next().expect("a line")).expect("JSON");
    // The interrupt that was asked for first still reaches it.
    server.http().until_idle(started["session_id"].as_str().expect("an id")).await;
}

#[test]
fn doctor_tries_and_judges() {
    let dir = place();
    let done = run(dir.path(), &["doctor"]);
    for heading in ["machine", "data directory", "rooms", "models", "network", "loopd "] {
        assert!(done.out.contains(heading), "`{heading}` is not in:\n{}", done.out);
    }
    assert!(!dir.path().join(".loopd").exists(), "it leaves nothing behind");
    let json = run(dir.path(), &["doctor", "--json"]);
    let verdict = json.lines()[0]["verdict"].as_str().expect("a verdict").to_owned();
    assert_eq!(json.code == Some(0), verdict != "broken", "{}", json.out);
    // Every other test here has rooms, so a doctor who finds none is mistaken.
    assert_ne!(verdict, "broken", "{}", json.out);

    fs::write(dir.path().join("file"), "").expect("written");
    let broken = run(dir.path(), &["doctor", "--data", "file"]);
    assert_eq!(broken.code, Some(1));
    assert!(broken.out.contains("→"), "a remedy: {}", broken.out);
}

#[test]
fn version_and_help() {
    let dir = place();
    assert!(run(dir.path(), &["version"]).ok().starts_with("loopd 0."));
    assert!(run(dir.path(), &["invoke", "--help"]).ok().contains("130  interrupted"));
    assert!(run(dir.path(), &["serve", "--help"]).ok().contains("127.0.0.1:7007"));
}

#[tokio::test]
async fn a_key_in_the_list_is_as_good() {
    let server = Server::with(Options::default().env("LOOPD_API_KEYS", "sk-one, sk-two"));
    for key in ["sk-one", "sk-two"] {
        assert_eq!(Http::new(server.url(), Some(key.to_owned())).get("/v1/agents").await.status, 200);
    }
}
