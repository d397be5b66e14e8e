//! Who may call and how much, as the operator of the real executable sees to it: keys, workspaces and the audit log, from the
//! command line; limits, from the configuration.

use loopd_tests::cli::{Done, run};
use loopd_tests::http::{Answer, fenced};
use loopd_tests::script::{invocation, runs, says};
use loopd_tests::server::Options;
use loopd_tests::{Http, PATIENCE, Server};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// An operator's command on the data of a test.
fn operate(root: &Path, arguments: &[&str]) -> Done {
    run(root, &[arguments, &["--data", "data"]].concat())
}

fn rows(root: &Path, arguments: &[&str]) -> Vec<Value> {
    let done = operate(root, &[arguments, &["--json"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.err);
    done.lines()
}

fn values<'a>(rows: &'a [Value], field: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[field].as_str().unwrap_or_default()).collect()
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked_while_a_server_runs_and_it_is_written_down() {
    let server = Server::start();
    let data = server.data();
    let root = data.parent().expect("below a root");
    let made =
        operate(root, &["keys", "create", "--name", "ci", "--scope", "agents:read", "--expires", "30d", "--json"]);
    let made = made.lines().remove(0);
    let (id, key) = (made["id"].as_str().expect("an id"), made["key"].as_str().expect("a key").to_owned());
    let ci = Http::new(server.url(), Some(key.clone()));
    ci.get("/v1/agents").await.ok();
    let agent = json!({"name": "a", "model": "builtin/shell"});
    let told = ci.post("/v1/agents", agent.clone()).await.refused(403, "permission_error");
    assert!(told.contains("agents:write"), "{told}");
    // From the first key on, callers need one.
    server.http().get("/v1/agents").await.refused(401, "authentication_error");
    // Standard output is the key and nothing else.
    let said = operate(root, &["keys", "create", "--name", "deploy"]);
    let deploy = said.out.trim().to_owned();
    assert!(!deploy.contains(char::is_whitespace) && said.err.contains("shown this once"), "{said:?}");
    let deployer = Http::new(server.url(), Some(deploy.clone()));
    deployer.post("/v1/agents", agent).await.ok();

    let listed = rows(root, &["keys", "list"]);
    assert_eq!(values(&listed, "name"), ["deploy", "ci"]);
    assert_eq!(listed[1]["scopes"], json!(["agents:read"]));
    assert!(listed[1]["expires_at"].is_string() && listed[0]["expires_at"].is_null(), "{listed:?}");
    let table = operate(root, &["keys", "list"]).ok();
    for secret in [&key, &deploy] {
        assert!(!json!(listed).to_string().contains(secret) && !table.contains(secret), "{table}");
    }
    let said = operate(root, &["keys", "revoke", id]).ok();
    assert_eq!(said.trim(), format!("revoked {id} (ci)"));
    let told = ci.get("/v1/agents").await.refused(401, "authentication_error");
    assert!(told.contains("was revoked") && !told.contains(&key), "{told}");
    deployer.get("/v1/agents").await.ok();
    assert_eq!(values(&rows(root, &["keys", "list"]), "name"), ["deploy"]);
    assert_eq!(values(&rows(root, &["keys", "list", "--revoked"]), "name"), ["deploy", "ci"]);
    assert_eq!(operate(root, &["keys", "revoke", "key_absent"]).code, Some(1));
    let bad = operate(root, &["keys", "create", "--name", "x", "--scope", "everything"]);
    assert!(bad.code == Some(1) && bad.err.contains("everything") && bad.err.contains("accepted"), "{bad:?}");

    // Newest first: what was done, by whom, to what, and how it went.
    let log = rows(root, &["audit"]);
    let mut of_ci = log.iter().filter(|row| row["resource"] == id);
    assert_eq!(of_ci.next().expect("revoked")["action"], "keys.revoke");
    assert_eq!(of_ci.next().expect("made")["action"], "keys.create");
    let denied = rows(root, &["audit", "--actor", id]);
    assert!(
        denied.iter().any(|row| row["action"] == "agents.create" && row["result"]["type"] == "refused"),
        "{denied:?}"
    );
    let of_deploy =
        rows(root, &["audit", "--action", "agents.create", "--actor", listed[0]["id"].as_str().expect("an id")]);
    assert_eq!(of_deploy.len(), 1, "{of_deploy:?}");
    assert_eq!(rows(root, &["audit", "--resource", id]).len(), 2);
    assert_eq!(rows(root, &["audit", "--limit", "1"]).len(), 1);
    let text = operate(root, &["audit"]).ok();
    assert!(text.contains("keys.revoke") && text.contains(id), "{text}");
    for secret in [&key, &deploy] {
        assert!(!json!(log).to_string().contains(secret) && !text.contains(secret));
    }
}

#[test]
fn without_a_server_the_data_directory_is_reached_itself() {
    let place = TempDir::with_prefix("loopd-identity-").expect("a directory");
    let root = place.path();
    assert!(operate(root, &["workspaces", "create", "blue"]).ok().contains("blue"));
    let key = operate(root, &["keys", "create", "--name", "theirs", "--workspace", "blue"]).ok();
    assert!(operate(root, &["workspaces", "list"]).ok().contains("blue"));
    assert!(rows(root, &["keys", "list"]).is_empty(), "it is another workspace's");
    let listed = rows(root, &["keys", "list", "--workspace", "blue"]);
    assert_eq!(values(&listed, "name"), ["theirs"]);
    let id = listed[0]["id"].as_str().expect("an id");
    assert_eq!(operate(root, &["keys", "revoke", id]).code, Some(1), "it is another workspace's");
    operate(root, &["keys", "revoke", id, "--workspace", "blue"]).ok();
    assert!(rows(root, &["keys", "list", "--workspace", "blue"]).is_empty());
    let log = rows(root, &["audit"]);
    assert_eq!(log.iter().filter(|row| row["action"] == "keys.create").count(), 1, "{log:?}");
    assert!(!json!(log).to_string().contains(key.trim()));
}

/// A refusal that says when to come back.
#[track_caller]
fn too_many(answer: &Answer, needle: &str) {
    let told = answer.refused(429, "rate_limit_error");
    assert!(told.contains(needle), "{told}");
    assert_eq!(answer.headers["retry-after"], "1");
}

/// The answer once there is a place: what ends frees its place a moment after others see that it has ended.
async fn let_in(http: &Http, body: &Value) -> Answer {
    let asked = async {
        loop {
            let answer = http.post("/v1/invoke", body.clone()).await;
            if answer.status != 429 {
                return answer;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, asked).await.expect("a place is free again")
}

#[tokio::test]
async fn a_turn_too_many_is_told_when_to_come_back() {
    let server = Server::with(Options::default().config("[limits]\nturns = 1\n"));
    let http = server.http();
    let mut body = invocation(vec![runs("sleep 300"), says("never")]);
    body["background"] = json!(true);
    let running = http.invoke(body).await;
    let session = running["session_id"].as_str().expect("a session");
    let second = json!({"model": "builtin/shell", "input": fenced("echo in")});
    too_many(&http.post("/v1/invoke", second.clone()).await, "try again when one has ended");
    let listed = http.get("/v1/sessions").await.ok();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "who was refused left nothing: {listed}");
    // What ends a turn is never one too many.
    let interrupt = json!({"events": [{"type": "user.interrupt"}]});
    http.post(&format!("/v1/sessions/{session}/events"), interrupt).await.ok();
    http.until_idle(session).await;
    assert_eq!(let_in(&http, &second).await.ok()["status"], "completed");
}

#[tokio::test]
async fn a_stream_too_many_is_told_when_to_come_back() {
    let server = Server::with(Options::default().config("[limits]\nstreams = 1\n"));
    let http = server.http();
    let made = http.shell("true").await;
    let session = made["session_id"].as_str().expect("a session");
    let open = http.follow(session, 0).await;
    too_many(&http.get(&format!("/v1/sessions/{session}/events/stream")).await, "streams of this workspace are open");
    let second = json!({"model": "builtin/shell", "input": fenced("echo in"), "stream": true});
    too_many(&http.post("/v1/invoke", second.clone()).await, "streams of this workspace are open");
    http.shell("echo without a stream").await;
    drop(open);
    let answer = let_in(&http, &second).await;
    assert!(answer.status == 200 && answer.text.contains("loopd.invoke_result"), "{}", answer.text);
}
