//! Brings the evidence of a session together and puts it before the judge; what is left when all is deleted.

use crate::check::{chain, effects, history, told};
use crate::client::Session;
use crate::counter::{Counter, Send};
use crate::plan::{Class, EFFECTS_FILE, TURNS};
use crate::report::Report;
use crate::room::{self, Isolation};
use crate::server::Server;
use crate::{journal, processes};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long what is no longer wanted may take to go.
const GOING: Duration = Duration::from_secs(10);
/// Tries of an export.
const EXPORT_TRIES: u32 = 3;

pub fn http() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(1)).tls_certs_only([]);
    client.build().expect("a client without TLS roots needs nothing of the machine")
}

/// Tools of these effect classes.
pub fn tools(counter: &Counter, classes: &[Class]) -> Value {
    let schema = json!({"type": "object", "properties": {"nonce": {"type": "string"}}});
    let http = |class: &Class| {
        let name = class.http_tool()?;
        Some(json!({"type": "http", "name": name, "description": "Counts.", "input_schema": schema,
                    "url": counter.url(name), "effect": name.trim_start_matches("http_"), "timeout_ms": 5_000}))
    };
    let custom = json!({"type": "custom", "name": "ask_client", "description": "Asks.", "input_schema": schema});
    let mut tools = vec![json!("bash"), json!("glob"), json!("grep"), custom];
    tools.extend(classes.iter().filter_map(http));
    Value::Array(tools)
}

struct World<'a> {
    counter: &'a Counter,
    room: String,
}

impl effects::World for World<'_> {
    fn sends(&self, nonce: &str) -> Vec<Send> {
        self.counter.sends(nonce)
    }
    fn in_room(&self, nonce: &str) -> usize {
        self.room.lines().filter(|line| line.trim() == nonce).count()
    }
}

/// All faults of one session that rests.
pub async fn session(
    server: &Server,
    counter: &Counter,
    session: &Session,
    report: &mut Report,
) -> Result<Vec<String>> {
    let data = server.data();
    let Some((head, entries)) = journal::read(&data, &session.id)? else {
        return Ok(vec!["the session is not in the store".to_owned()]);
    };
    let mut faults = chain::check(&head, &entries);
    faults.extend(history::check(&entries, true));
    faults.extend(told::check(session, &entries, &list(server, &session.id).await?));
    let room = match server.isolation {
        Isolation::Namespaces => on_host(&data, &session.id)?,
        Isolation::Microvm => in_archive(server, &session.id).await?,
    };
    let world = World { counter, room };
    let least = session.plan.calls(session.turns).count();
    // An interrupt leaves a turn of the plan where it is; the next message goes on with it.
    let most = session.plan.calls(session.turns + usize::from(session.interrupts > 0)).count();
    let calls = session.plan.calls(TURNS);
    let (found, outcomes) = effects::check(&session.id, &entries, calls, least..=most, &world);
    faults.extend(found);
    let object = get(server, &format!("/v1/sessions/{}", session.id)).await?;
    if object["status"] != "idle" {
        faults.push(format!("its status is {}", object["status"]));
    }
    // A session is judged after each of its turns, and counted when its plan is done.
    if session.is_over() {
        report.entries += entries.len() as u64;
        report.recoveries += entries.iter().filter(|e| e.kind == "loopd.session_recovered").count() as u64;
        let kinds = ["loopd.input_queued", "user.interrupt", "user.tool_confirmation", "user.custom_tool_result"];
        for entry in entries.iter().filter(|e| kinds.contains(&e.kind.as_str())) {
            *report.inputs.entry(entry.kind.clone()).or_default() += 1;
        }
        for ((class, outcome), count) in outcomes {
            *report.outcomes.entry(class.name().to_owned()).or_default().entry(outcome).or_default() += count;
        }
    }
    Ok(faults)
}

/// The room's file of effects, where the host can see it.
fn on_host(data: &Path, session: &str) -> Result<String> {
    let workspace = data.join("sessions").join(session).join("workspace");
    match std::fs::read(workspace.join(EFFECTS_FILE)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(fault) => Err(fault).context("the room's file"),
    }
}

/// The same where it is on a disk that only the session's machine reads. A machine that was killed takes a moment to die, and an export
/// that it has begun breaks off then: it is asked for again.
async fn in_archive(server: &Server, session: &str) -> Result<String> {
    let url = format!("{}/v1/sessions/{session}/export", server.url().borrow().clone());
    let mut tries = 1..=EXPORT_TRIES;
    loop {
        let answer = http().get(&url).send().await.context("an export was not answered")?;
        if !answer.status().is_success() {
            bail!("the export of {session} answered {}: {}", answer.status(), answer.text().await?);
        }
        match answer.bytes().await {
            Ok(archive) => return room::effects_of(&archive),
            Err(fault) if tries.next() == Some(EXPORT_TRIES) => return Err(fault).context("an export broke off"),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Sessions that do not rest.
pub async fn unfinished(server: &Server) -> Result<Vec<String>> {
    let page = get(server, "/v1/sessions?limit=1000").await?;
    let sessions = page["data"].as_array().context("a list")?;
    let running = sessions.iter().filter(|s| s["status"] != "idle" || s["stop_reason"]["type"] == "requires_action");
    Ok(running.filter_map(|s| s["id"].as_str().map(str::to_owned)).collect())
}

pub async fn delete(server: &Server, session: &str) -> Result<()> {
    let url = format!("{}/v1/sessions/{session}", server.url().borrow().clone());
    let answer = http().delete(url).send().await.context("a delete was not answered")?;
    match answer.status().is_success() {
        true => Ok(()),
        false => bail!("the delete of {session} answered {}: {}", answer.status(), answer.text().await?),
    }
}

pub async fn exists(server: &Server, session: &str) -> Result<bool> {
    let url = format!("{}/v1/sessions/{session}", server.url().borrow().clone());
    match http().get(url).send().await.context("a session was asked for and nobody answered")?.status().as_u16() {
        200 => Ok(true),
        404 => Ok(false),
        other => bail!("session {session} was asked for, and the answer was {other}"),
    }
}

/// Processes and directories of sessions that are there after a grace time.
pub async fn left_over(data: &Path) -> Result<Vec<String>> {
    let deadline = Instant::now() + GOING;
    loop {
        let mut left: Vec<String> =
            processes::living(&[])?.iter().map(|p| format!("process {} `{}`", p.pid, p.name)).collect();
        for name in ["sessions", "rooms"] {
            left.extend(names(&data.join(name))?.into_iter().map(|entry| format!("`{name}/{entry}`")));
        }
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(fault) => return Err(fault).with_context(|| format!("`{}`", directory.display())),
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Every event that the interface lists.
async fn list(server: &Server, session: &str) -> Result<Vec<Value>> {
    let page = get(server, &format!("/v1/sessions/{session}/events?limit=1000")).await?;
    if !page["next_page"].is_null() {
        bail!("session {session} has more events than one page");
    }
    page["data"].as_array().cloned().context("a list of events")
}

async fn get(server: &Server, path: &str) -> Result<Value> {
    let url = format!("{}{path}", server.url().borrow().clone());
    let answer = http().get(url).send().await.with_context(|| format!("`{path}` was not answered"))?;
    let status = answer.status();
    let text = answer.text().await?;
    match status.is_success() {
        true => serde_json::from_str(&text).with_context(|| format!("`{path}` answered what is not JSON")),
        false => bail!("`{path}` answered {status}: {text}"),
    }
}
