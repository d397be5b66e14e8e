//! The ground that counts: rooms of a loopd, attacked as a model would, by the `bash` tool of a session.

use super::planted::{Planted, neighbour_command};
use super::{Attack, Verdict};
use crate::http::{fenced, text};
use crate::server::Options;
use crate::{Http, Server};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// Longest that an attack may take, whatever it does.
const PATIENCE: Duration = Duration::from_secs(150);
/// How often the neighbour is asked while an attack runs.
const PULSE: Duration = Duration::from_millis(500);
/// Longest that a neighbour's small call may take beside an attack, on two cores that the attack has as well.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(20);
const DISK_MIB: u64 = 512;

/// A server with a neighbour in it, and things lying around.
pub struct Ground {
    server: Server,
    http: Http,
    planted: Planted,
    neighbour: String,
    environment: String,
    /// How much longer things may take than in a room of namespaces.
    slowness: u32,
}

impl Ground {
    /// A loopd that this user started: `None`, the one who runs the suite.
    pub async fn new(user: Option<u32>) -> Self {
        let planted = Planted::new();
        Self::of(Server::with(Self::options(user)), planted, "namespaces", 1).await
    }

    /// One whose rooms have a kernel of their own, in a directory with what machines are made of.
    pub async fn of_machines(root: TempDir) -> Self {
        let planted = Planted::new();
        Self::of(Server::on(root, Self::options(None)), planted, "microvm", 5).await
    }

    fn options(user: Option<u32>) -> Options {
        Options { user, ..Options::default() }.env("CANARY", "CANARY-HOST-environment")
    }

    async fn of(server: Server, planted: Planted, isolation: &str, slowness: u32) -> Self {
        let http = server.http();
        let limits = json!({
            "memory_bytes": 512u64 << 20, "pids": 128, "open_files": 1024, "disk_bytes": DISK_MIB << 20
        });
        let config = json!({"type": "cloud", "isolation": isolation, "limits": limits});
        let environment = http.post("/v1/environments", json!({"name": "attacked", "config": config}));
        let environment = environment.await.ok()["id"].as_str().expect("an id").to_owned();
        let neighbour =
            json!({"model": "builtin/shell", "environment": environment, "input": fenced(&neighbour_command())});
        let neighbour = http.invoke(neighbour).await;
        let neighbour = neighbour["session_id"].as_str().expect("a session").to_owned();
        let ground = Ground { server, http, planted, neighbour, environment, slowness };
        let said = last_result(&ground.http, &ground.neighbour).await;
        assert!(said.contains("neighbour ready"), "{said}");
        ground
    }

    /// Tries one attack in a session of its own, and looks at what it has done to others.
    pub async fn attack(&self, attack: &Attack) -> Verdict {
        let session = self
            .http
            .invoke(json!({"model": "builtin/shell", "environment": self.environment, "input": fenced("echo ready")}));
        let session = session.await["session_id"].as_str().expect("a session").to_owned();
        let (verdict, harmed) = tokio::join!(self.try_it(attack, &session), self.watch_neighbour(&session));
        let verdict = match (verdict, harmed) {
            (Verdict::Through(how), _) => Verdict::Through(how),
            (_, Some(harm)) => Verdict::Through(harm),
            (verdict, None) => verdict,
        };
        let verdict = match (verdict, self.goes_on(attack, &session).await) {
            (Verdict::Held(_), Err(harm)) => Verdict::Through(harm),
            (verdict, _) => verdict,
        };
        self.http.delete(&format!("/v1/sessions/{session}")).await.ok();
        match (verdict, self.left_behind(&attack.directory(&session), &session).await) {
            (Verdict::Held(_), Some(pid)) => Verdict::Through(format!("process {pid} outlives its session")),
            (verdict, _) => verdict,
        }
    }

    async fn try_it(&self, attack: &Attack, session: &str) -> Verdict {
        let data = self.server.data().display().to_string();
        let more = [("ATTACK_DATA", data), ("ATTACK_DISK_MIB", DISK_MIB.to_string())];
        let mut variables = self.planted.variables();
        variables.extend(more.map(|(name, value)| (name.to_owned(), value)));
        let body =
            json!({"session": session, "input": fenced(&attack.command(&variables, session)), "background": true});
        self.http.post("/v1/invoke", body).await.ok();
        let stubborn = attack.name == "ignore-sigterm";
        if stubborn {
            sleep(Duration::from_secs(2) * self.slowness).await;
            let stop = json!({"events": [{"type": "user.interrupt"}]});
            self.http.post(&format!("/v1/sessions/{session}/events"), stop).await.ok();
        }
        let patience = PATIENCE * self.slowness;
        if timeout(patience, rests(&self.http, session)).await.is_err() {
            return Verdict::Through(format!("its call still runs after {patience:?}"));
        }
        let said = last_result(&self.http, session).await;
        match attack.verdict(&said) {
            Some(verdict) => verdict,
            None if attack.ends.is_some() && attack.is_told(&said) => Verdict::Held(brief(&said)),
            None if attack.ends.is_some() => Verdict::Through(format!("the model is told: {}", brief(&said))),
            None => Verdict::Through(format!("no verdict: {}", brief(&said))),
        }
    }

    /// A session that has been attacked takes the next call. After a fork bomb the next may find no process left for itself, is
    /// told so, and clears the shell away with its jobs: then it is the one after.
    async fn goes_on(&self, attack: &Attack, session: &str) -> Result<(), String> {
        let check = match attack.name.as_str() {
            "ignore-sigterm" => {
                "kill -0 $(cat /tmp/attack-stubborn) 2>/dev/null && echo it lives; echo still-$((40+2))"
            }
            _ => "rm -rf attack-*; echo still-$((40+2))",
        };
        let mut tries = if attack.name == "fork-bomb" { 3 } else { 1 };
        loop {
            tries -= 1;
            let asked = self.http.post("/v1/invoke", json!({"session": session, "input": fenced(check)}));
            let answer = timeout(PATIENCE * self.slowness, asked)
                .await
                .map_err(|_| "the next call was never answered".to_owned())?;
            if !(200..300).contains(&answer.status) {
                return Err(format!("the next call was refused: {}", answer.text));
            }
            let said = last_result(&self.http, session).await;
            match said.contains("still-42") && !said.contains("it lives") {
                true => return Ok(()),
                false if tries == 0 => return Err(format!("after it: {}", brief(&said))),
                false => {}
            }
        }
    }

    /// Asks the neighbour for small things until the attacked session rests. `Some`: what was wrong.
    async fn watch_neighbour(&self, attacked: &str) -> Option<String> {
        sleep(PULSE).await;
        while self.http.status(attacked).await != "idle" {
            let begun = Instant::now();
            let asked = self
                .http
                .post("/v1/invoke", json!({"session": self.neighbour, "input": fenced("cat neighbours-secret")}));
            match timeout(NEIGHBOUR_PATIENCE * self.slowness, asked).await {
                Ok(answer) if (200..300).contains(&answer.status) => {}
                Ok(answer) => return Some(format!("the neighbour was refused: {}", answer.text)),
                Err(_) => return Some(format!("the neighbour waited for {:?}", begun.elapsed())),
            }
            let said = last_result(&self.http, &self.neighbour).await;
            if !said.contains("CANARY-NEIGHBOUR") {
                return Some(format!("the neighbour was answered: {}", brief(&said)));
            }
            sleep(PULSE).await;
        }
        None
    }

    /// A process of the attack that lives although its session was deleted.
    async fn left_behind(&self, mark: &str, session: &str) -> Option<u32> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = processes_of(mark, session, &self.server);
            if found.is_none() || Instant::now() > deadline {
                return found;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the room of a new session prints when it looks at itself.
    pub async fn introspect(&self, input: &str) -> String {
        let answer =
            self.http.invoke(json!({"model": "builtin/shell", "environment": self.environment, "input": input})).await;
        last_result(&self.http, answer["session_id"].as_str().expect("a session")).await
    }
}

/// Programs of rooms work in `/workspace`; only this suite's have the attack's directory there. Those of a machine are not seen
/// from here: it is the machine that holds its session's disk.
fn processes_of(mark: &str, session: &str, server: &Server) -> Option<u32> {
    let names = |link: &Path, what: &str| std::fs::read_link(link).unwrap_or_default().to_string_lossy().contains(what);
    let entries = std::fs::read_dir("/proc").expect("it can be listed");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let process = Path::new("/proc").join(pid.to_string());
        let open = || std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let is_its = || names(&process.join("cwd"), mark) || open().any(|open| names(&open.path(), session));
        *pid != server.pid() && is_its()
    })
}

async fn rests(http: &Http, session: &str) {
    while http.status(session).await != "idle" {
        sleep(Duration::from_millis(50)).await;
    }
}

async fn last_result(http: &Http, session: &str) -> String {
    // The newest first: an attack may have made many events.
    let answer = http.get(&format!("/v1/sessions/{session}/events?limit=50&order=desc")).await.ok();
    let events: &Vec<Value> = answer["data"].as_array().expect("a list");
    events.iter().find(|e| e["type"] == "agent.tool_result").map(|e| text(&e["content"])).unwrap_or_default()
}

/// The end of a long text, on one line.
fn brief(said: &str) -> String {
    let line = said.trim().replace('\n', " | ");
    let skipped = line.chars().count().saturating_sub(300);
    line.chars().skip(skipped).collect()
}
