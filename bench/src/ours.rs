//! loopd as a subject: a new session with a room of its own for every turn.

use crate::fake::{BASH_COMMAND, READ_PATH};
use crate::loopd::{Loopd, check_turn, step_times};
use crate::stats::Samples;
use crate::subject::{Subject, Turn};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// Where the model's answers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// `builtin/script`, inside the server.
    Script,
    /// The HTTP provider that the peers use as well.
    Http,
}

/// How the first and the last ten steps of long turns compare, in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Flatness {
    pub first: Samples,
    pub last: Samples,
}

const FLATNESS_STEPS: usize = 10;

pub struct LoopdSubject {
    loopd: Arc<Loopd>,
    via: Via,
    /// The session of the last turn and what it has to look like.
    ran: Option<(String, Turn)>,
    flatness: Arc<Mutex<Flatness>>,
}

impl LoopdSubject {
    pub fn new(loopd: Arc<Loopd>, via: Via) -> (LoopdSubject, Arc<Mutex<Flatness>>) {
        let flatness = Arc::new(Mutex::new(Flatness::default()));
        (LoopdSubject { loopd, via, ran: None, flatness: flatness.clone() }, flatness)
    }
}

/// The body of `POST /v1/invoke` for one turn of the script.
pub fn request(turn: Turn, via: Via) -> Value {
    let mut body = json!({"model": format!("openai/{}", turn.model()), "tools": [turn.tool], "input": "go"});
    body["system"] = json!("You are a benchmark.");
    if via == Via::Script {
        let input = match turn.tool {
            "bash" => json!({"command": BASH_COMMAND}),
            _ => json!({"file_path": READ_PATH}),
        };
        let script =
            json!({"steps": [{"tools": [{"name": turn.tool, "input": input}]}], "repeat": turn.steps, "then": "done"});
        body["model"] = json!("builtin/script");
        body["system"] = json!(script.to_string());
    }
    body
}

/// The `session_id` of an answer to `POST /v1/invoke`.
pub fn session_id(answer: &Value) -> Result<String> {
    answer["session_id"].as_str().map(str::to_owned).with_context(|| format!("no `session_id` in {answer}"))
}

#[async_trait]
impl Subject for LoopdSubject {
    fn name(&self) -> &'static str {
        match self.via {
            Via::Script => "**loopd**, built-in scripted model",
            Via::Http => "**loopd**, same HTTP provider as the peers",
        }
    }

    async fn turn(&mut self, turn: Turn) -> Result<()> {
        let answer = self.loopd.invoke(&request(turn, self.via)).await?;
        ensure!(answer["status"] == "completed", "the turn answered {answer}");
        self.ran = Some((session_id(&answer)?, turn));
        Ok(())
    }

    /// Checks that the turn did what was asked, notes its steps, and ends its room.
    async fn settle(&mut self) -> Result<()> {
        let (id, turn) = self.ran.take().context("no turn ran")?;
        let events = self.loopd.events(&id).await?;
        check_turn(&events, turn.steps)?;
        let times = step_times(&events);
        if turn.steps >= 5 * FLATNESS_STEPS {
            let mut flatness = self.flatness.lock().expect("no holder of this lock panics");
            times.iter().take(FLATNESS_STEPS).for_each(|ms| flatness.first.push(*ms));
            times[..turn.steps].iter().rev().take(FLATNESS_STEPS).for_each(|ms| flatness.last.push(*ms));
        }
        self.loopd.delete(&id).await
    }
}
