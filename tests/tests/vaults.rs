//! Vaults on a real server: what a room has of a secret, what an MCP server is shown, and that the secret is nowhere else. And the
//! master key: lost, mistaken, and replaced.

#[path = "../../crates/host-tools/tests/service/mcp.rs"]
mod service;

use loopd_tests::Server;
use loopd_tests::cli::{loopd, run, run_with};
use loopd_tests::http::{Http, text, tool_results};
use loopd_tests::script::{runs, says, script};
use loopd_tests::server::Options;
use loopd_tests::vault::{holders, variable, vault};
use serde_json::{Value, json};
use service::{Deed, McpService, tool};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

const VARIABLE: &str = "variable-secret-0123456789";
const ROTATED: &str = "rotated-secret-9876543210";
const BEARER: &str = "bearer-secret-5555555555";

/// A server whose log goes into a file.
struct Logged(Child);

impl Logged {
    fn start(directory: &Path) -> (Self, Http) {
        let log = File::create(directory.join("log")).expect("a file");
        let mut command = loopd(directory, &["serve", "--listen", "127.0.0.1:0", "--data", "data"]);
        command.env("LOOPD_LOG", "trace").stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().expect("loopd starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        let url = line.trim().strip_prefix("loopd serves ").expect("it serves").to_owned();
        (Logged(process), Http::new(&url, None))
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn api_token() -> Value {
    variable("API_TOKEN", VARIABLE, &["api.example.com"])
}

#[tokio::test]
async fn a_secret_is_nowhere_but_where_it_must_go() {
    let service = McpService::start(vec![tool("find", json!({"readOnlyHint": true}))]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let (server, http) = Logged::start(directory.path());
    let bearer = json!({"type": "static_bearer", "mcp_server_url": service.url, "token": BEARER});
    let (vault, made) = vault(&http, &[api_token(), bearer]).await;

    let echo = json!({"content": [{"type": "text", "text": format!("they said {BEARER} and {VARIABLE}")}]});
    service.then([Deed::Answer(echo)]);
    let call = json!({"tools": [{"name": "mcp__shop__find", "input": {}}]});
    let steps =
        vec![call, runs("echo token=$API_TOKEN; env"), says("done"), runs("echo token=$API_TOKEN"), says("again")];
    let agent = json!({"name": "a", "model": "builtin/script", "system": script(steps),
        "tools": [{"type": "agent_toolset_20260401"}, {"type": "mcp_toolset", "mcp_server_name": "shop",
                   "default_config": {"permission_policy": {"type": "always_allow"}}}],
        "mcp_servers": [{"type": "url", "name": "shop", "url": service.url}]});
    let agent = http.post("/v1/agents", agent).await.ok();
    let answer = http.invoke(json!({"agent": agent["id"], "input": "go", "vaults": [vault]})).await;
    assert_eq!(answer["status"], "completed", "{answer}");
    assert!(
        service.shown().iter().all(|shown| shown.as_deref() == Some(&format!("Bearer {BEARER}"))),
        "{:?}",
        service.shown()
    );

    let session = answer["session_id"].as_str().expect("a session").to_owned();
    let events = http.events(&session).await;
    let listed = events.iter().find(|e| e["type"] == "agent.mcp_tool_result").expect("a result");
    let said = text(&listed["content"]);
    assert!(said.starts_with("they said ") && !said.contains(BEARER) && !said.contains(VARIABLE), "{said}");
    let token = |events: &[Value], n: usize| {
        let shown = text(&tool_results(events)[n]["content"]);
        shown.lines().find_map(|line| line.strip_prefix("token=")).expect("shown").to_owned()
    };
    let placeholder = token(&events, 0);
    assert_eq!(placeholder.len(), VARIABLE.len(), "{placeholder}");
    assert!(placeholder.bytes().all(|b| b.is_ascii_alphanumeric()) && said.contains(&placeholder), "{said}");

    // Each use of the token is in the audit log: for the list of tools, and for the call.
    let uses = http.get("/v1/audit?action=credentials.use").await.ok();
    let uses = uses["data"].as_array().expect("a page").clone();
    let call = events.iter().find(|e| e["type"] == "agent.mcp_tool_use").expect("a call")["id"].clone();
    assert_eq!(uses[0]["credential_use"]["calls"], json!([call]), "{uses:?}");
    assert_eq!(uses[1]["credential_use"]["calls"], json!([]), "{uses:?}");
    for used in &uses {
        assert_eq!((&used["actor"]["id"], &used["resource"]), (&json!(session), &made[1]["id"]), "{used}");
        assert_eq!((&used["result"]["type"], &used["credential_use"]["host"]), (&json!("done"), &json!("127.0.0.1")));
    }

    // Rotated while the session lives: the room goes on with what it has.
    let path =
        format!("/v1/vaults/{}/credentials/{}", vault.as_str().expect("an id"), made[0]["id"].as_str().expect("an id"));
    http.post(&path, json!({"auth": {"type": "environment_variable", "secret_value": ROTATED}})).await.ok();
    http.invoke(json!({"session": session, "input": "again"})).await;
    let events = http.events(&session).await;
    assert_eq!(token(&events, 1), placeholder);
    let trace = http.get(&format!("/v1/sessions/{session}/trace")).await.ok();
    for seen in [json!(events), trace, json!(uses), http.get(&path).await.ok()] {
        for secret in [VARIABLE, ROTATED, BEARER] {
            assert!(!seen.to_string().contains(secret));
        }
    }
    drop(server);
    // What is not secret is there, so what is searched is what was written.
    assert!(!holders(&directory.path().join("data"), "api.example.com").is_empty());
    assert!(!holders(directory.path(), "POST").is_empty(), "a log was written");
    for secret in [VARIABLE, ROTATED, BEARER] {
        assert_eq!(holders(directory.path(), secret), Vec::<PathBuf>::new(), "{secret}");
    }
}

async fn shown(http: &Http, session: &str) -> String {
    let before = http.events(session).await.len();
    http.invoke(json!({"session": session, "input": "```sh\necho token=$API_TOKEN\n```"})).await;
    let events = http.events(session).await.split_off(before);
    text(&tool_results(&events)[0]["content"]).trim().to_owned()
}

#[tokio::test]
async fn a_master_key_that_is_lost_or_mistaken_is_a_refusal_and_one_that_is_replaced_changes_nothing() {
    let mut server = Server::with(Options::default());
    let http = server.http();
    let (vault, _) = vault(&http, &[api_token()]).await;
    let first = json!({"model": "builtin/shell", "input": "```sh\necho token=$API_TOKEN\n```", "vaults": [vault]});
    let session = http.invoke(first).await["session_id"].as_str().expect("a session").to_owned();
    let before = shown(&http, &session).await;
    assert_eq!(before.len(), "token=".len() + VARIABLE.len(), "{before}");
    let data = server.data();
    let (root, key) = (data.parent().expect("below a root").to_owned(), data.join("master.key"));
    assert_eq!(key.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    let rotate = ["keys", "rotate-master", "--data", "data"];
    let refused = run(&root, &rotate);
    assert!(refused.code == Some(1) && refused.err.contains("in use"), "{refused:?}");
    server.terminate();

    let text = std::fs::read_to_string(&key).expect("there");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", "data"];
    std::fs::rename(&key, root.join("kept")).expect("moved");
    let missing = run(&root, &serve);
    assert!(
        missing.code == Some(1) && missing.err.contains("there is no master key") && missing.err.contains("`mk_"),
        "{missing:?}"
    );
    assert!(!key.exists(), "none is made in its place");
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let wrong =
        [("LOOPD_MASTER_KEY", other), ("LOOPD_MASTER_KEY_NEXT", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")];
    for (env, command) in [(&wrong[..1], &serve[..]), (&wrong, &rotate)] {
        let refused = run_with(&root, env, command);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.matches("`mk_").count() >= 2 && !refused.err.contains(text.trim()), "{refused:?}");
    }
    let refused = run_with(&root, &wrong[..1], &rotate);
    assert!(refused.code == Some(1) && refused.err.contains("LOOPD_MASTER_KEY_NEXT"), "{refused:?}");
    // The same key by another way.
    assert_eq!(
        run_with(&root, &[("LOOPD_MASTER_KEY", text.trim())], &["sessions", "list", "--data", "data"]).code,
        Some(0)
    );
    std::fs::rename(root.join("kept"), &key).expect("moved back");

    let said = run(&root, &rotate).ok();
    assert!(said.starts_with("2 data keys") && said.contains("master.key.previous"), "{said}");
    assert_ne!(std::fs::read_to_string(&key).expect("there"), text);
    assert_eq!(std::fs::read_to_string(data.join("master.key.previous")).expect("there"), text);
    server.start_again();
    assert_eq!(shown(&server.http(), &session).await, before, "the same placeholder");
}
