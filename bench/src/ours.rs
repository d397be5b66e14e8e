//! loopd as a subject: a new session with a room of its own for every turn.

use crate::fake::{BASH_COMMAND, READ_PATH};
use crate::loopd::{Event, Loopd, check_turn, step_times};
use crate::stats::Samples;
use crate::subject::{Subject, Turn};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use loopd_domain::Timestamp;
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

/// What the histories of long turns say about their steps, in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Inside {
    /// The first and the last ten steps of each turn.
    pub first: Samples,
    pub last: Samples,
    /// From the model request to its answer: the last result and the request on disk, the provider.
    pub answer: Samples,
    /// From the answer to the next request: the answer and its call on disk, the tool in the room, the loop.
    pub result: Samples,
}

/// Turns of this many steps are long.
const LONG: usize = 50;
const ENDS: usize = 10;

impl Inside {
    fn learn(&mut self, events: &[Event], steps: usize) {
        let times = &step_times(events)[..steps];
        times.iter().take(ENDS).for_each(|ms| self.first.push(*ms));
        times.iter().rev().take(ENDS).for_each(|ms| self.last.push(*ms));
        let [starts, ends] = ["span.model_request_start", "span.model_request_end"].map(|kind| times_of(events, kind));
        let gaps =
            |from: &[i64], to: &[i64]| from.iter().zip(to).map(|(a, b)| (b - a) as f64 / 1e3).collect::<Vec<_>>();
        gaps(&starts, &ends).into_iter().take(steps).for_each(|ms| self.answer.push(ms));
        gaps(&ends, &starts[1..]).into_iter().for_each(|ms| self.result.push(ms));
    }
}

fn times_of(events: &[Event], kind: &str) -> Vec<i64> {
    events.iter().filter(|e| e.kind == kind).filter_map(|e| e.at).map(Timestamp::micros).collect()
}

pub struct LoopdSubject {
    loopd: Arc<Loopd>,
    via: Via,
    /// The session of the last turn and what it has to look like.
    ran: Option<(String, Turn)>,
    inside: Arc<Mutex<Inside>>,
}

impl LoopdSubject {
    pub fn new(loopd: Arc<Loopd>, via: Via) -> (LoopdSubject, Arc<Mutex<Inside>>) {
        let inside = Arc::new(Mutex::new(Inside::default()));
        (LoopdSubject { loopd, via, ran: None, inside: inside.clone() }, inside)
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
        if turn.steps >= LONG {
            self.inside.lock().expect("no holder of this lock panics").learn(&events, turn.steps);
        }
        self.loopd.delete(&id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_cut_at_its_answer() {
        let mut rows = Vec::new();
        for step in 0..3 {
            rows.push(("span.model_request_start", step * 1_000));
            rows.push(("span.model_request_end", step * 1_000 + 100));
        }
        rows.push(("session.status_idle", 2_200));
        let events = rows.iter().map(|(kind, at)| json!({"type": kind, "processed_at": Timestamp(*at).to_string()}));
        let events: Vec<Event> = serde_json::from_value(events.collect()).unwrap();
        let mut inside = Inside::default();
        inside.learn(&events, 2);
        let parts = [&inside.answer, &inside.result, &inside.first, &inside.last];
        assert_eq!(parts.map(Samples::spread), [(0.1, 0.1), (0.9, 0.9), (1.0, 1.0), (1.0, 1.0)]);
    }
}
