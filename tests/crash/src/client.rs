//! One session's client: it sends inputs until they are acknowledged, follows the stream across every fault, and answers
//! what it is asked. It remembers what it was told, for the judge.
//!
//! ```text
//!  send (same key until 2xx) ──► follow (Last-Event-ID) ──► requires_action: answer, decide ──► … ──► end_turn
//!                                   ▲── connection lost, other server: again ──┘      inputs left: next turn
//! ```

use crate::desk::{Answer, Desk};
use crate::plan::{Plan, TURNS, final_text};
use crate::rng::Rng;
use crate::stream::{Frame, Stream};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::time::Instant;

/// An event that the stream showed.
#[derive(Debug, Clone)]
pub struct Seen {
    pub seq: u64,
    pub id: String,
    pub at: Instant,
}

#[derive(Debug, Clone)]
pub struct Session {
    pub id: String,
    pub tag: String,
    pub plan: Plan,
    /// Its room is to keep what runs in it while the session rests.
    pub sleeps: bool,
    /// Turns of the plan that were played to their last word. An input that comes late makes two of them one turn of the session.
    pub turns: usize,
    pub seen: Vec<Seen>,
    /// Texts of messages that were acknowledged.
    pub messages: Vec<String>,
    /// Calls whose answer was acknowledged.
    pub answers: Vec<String>,
    /// Calls of which nobody knew whether they had happened: how often that was said, and how often it was decided.
    pub doubts: HashMap<String, Doubt>,
    /// Interrupts that were acknowledged.
    pub interrupts: usize,
    /// Acknowledged messages and interrupts that no event has shown yet.
    unseen: Vec<String>,
    requests: u64,
    is_given_up: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Doubt {
    pub said: usize,
    pub decided: usize,
}

/// How a client behaves in one turn.
#[derive(Debug, Clone)]
pub struct Manner {
    /// Answers a custom tool's call as soon as it sees it, and not only when the session waits.
    answers_early: bool,
    /// Says something more after so many events.
    more_after: Option<u64>,
    /// Interrupts the turn after so many events.
    interrupt_after: Option<u64>,
    rng: Rng,
}

impl Manner {
    pub fn draw(rng: &mut Rng) -> Self {
        let answers_early = rng.percent(50);
        let more_after = rng.percent(30).then(|| 1 + rng.below(14));
        let interrupt_after = rng.percent(10).then(|| 1 + rng.below(14));
        Manner { answers_early, more_after, interrupt_after, rng: Rng::of(&[rng.next()]) }
    }
}

impl Session {
    pub fn new(tag: String, plan: Plan, sleeps: bool) -> Self {
        Session {
            id: String::new(),
            tag,
            plan,
            sleeps,
            turns: 0,
            seen: Vec::new(),
            messages: Vec::new(),
            answers: Vec::new(),
            doubts: HashMap::new(),
            interrupts: 0,
            unseen: Vec::new(),
            requests: 0,
            is_given_up: false,
        }
    }

    pub fn is_over(&self) -> bool {
        self.turns == TURNS || self.is_given_up
    }

    /// Its place is needed by a new one.
    pub fn give_up(&mut self) {
        self.is_given_up = true;
    }

    /// Runs the next turn to its end, and the one after it if an input was left for that, whatever happens to the server.
    pub async fn run_turn(&mut self, desk: &mut Desk, mut manner: Manner) -> Result<()> {
        self.begin(desk).await?;
        // Whatever is left of the plan must be enough for a turn of its own.
        let mut more_after = manner.more_after.filter(|_| self.turns + 2 <= TURNS);
        let mut stream = None;
        let mut events = 0;
        let mut rests = false;
        while !(rests && self.unseen.is_empty()) {
            let Some(frame) = self.next_frame(desk, &mut stream).await? else { continue };
            events += 1;
            if more_after.is_some_and(|after| events >= after) {
                more_after = None;
                self.say(desk).await?;
            }
            if manner.interrupt_after.take_if(|after| events >= *after).is_some() {
                self.interrupt(desk).await?;
            }
            let id = frame.data["id"].as_str().context("an event has an id")?;
            match frame.data["type"].as_str() {
                Some("agent.message") if frame.data["content"][0]["text"] == final_text(self.turns) => self.turns += 1,
                Some("user.message") => {
                    // Taken up after an idle, it begins the next turn.
                    rests = false;
                    self.unseen.retain(|unseen| unseen != id);
                }
                // One that came too late is noted while the session rests.
                Some("user.interrupt") => self.unseen.retain(|unseen| unseen != id),
                Some("agent.custom_tool_use") if manner.answers_early => self.answer(desk, id).await?,
                Some("loopd.outcome_unknown") => {
                    let call = frame.data["tool_use_id"].as_str().context("a doubt names its call")?;
                    self.doubts.entry(call.to_owned()).or_default().said += 1;
                }
                Some("session.status_idle") => match frame.data["stop_reason"]["type"].as_str() {
                    Some("requires_action") => self.act(desk, &frame.data["stop_reason"], &mut manner.rng).await?,
                    Some("end_turn") => rests = true,
                    other => bail!("the turn ended with {other:?}: {}", frame.data),
                },
                _ => {}
            }
        }
        Ok(())
    }

    /// The message that starts a turn, and a new session before the first one.
    async fn begin(&mut self, desk: &mut Desk) -> Result<()> {
        let text = self.next_text();
        let body = match self.id.is_empty() {
            true => json!({"model": "builtin/script", "system": self.plan.script(), "tools": desk.tools, "input": text,
                           "on_unknown_outcome": self.plan.on_unknown_outcome, "background": true, "title": self.tag,
                           "environment": desk.isolation.environment(self.sleeps)}),
            false => json!({"session": self.id, "input": text, "background": true}),
        };
        let answer = self.post(desk, "/v1/invoke", &body).await?.acknowledged()?;
        let id = answer["session_id"].as_str().context("an acknowledgement names the session")?;
        if !self.id.is_empty() && self.id != id {
            bail!("session `{}` was asked and `{id}` answered", self.id);
        }
        self.id = id.to_owned();
        self.messages.push(text);
        self.acknowledged(&answer["id"])
    }

    /// A message to whatever the session does.
    async fn say(&mut self, desk: &mut Desk) -> Result<()> {
        let text = self.next_text();
        let event = json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
        let answer = self.send(desk, event).await?.acknowledged()?;
        self.messages.push(text);
        self.acknowledged(&answer["data"][0]["id"])
    }

    fn next_text(&self) -> String {
        format!("{} message {}", self.tag, self.messages.len())
    }

    /// From now on the stream owes the event of this input.
    fn acknowledged(&mut self, id: &Value) -> Result<()> {
        let id = id.as_str().context("an acknowledgement names the input")?.to_owned();
        if !self.seen.iter().any(|seen| seen.id == id) {
            self.unseen.push(id);
        }
        Ok(())
    }

    /// Does what a waiting session asks for. What it names may be done already: then this was said before.
    async fn act(&mut self, desk: &mut Desk, reason: &Value, rng: &mut Rng) -> Result<()> {
        let named = reason["event_ids"].as_array().context("it names what it waits for")?;
        for call in named.iter().filter_map(Value::as_str) {
            match self.doubts.get(call).copied() {
                None => self.answer(desk, call).await?,
                Some(Doubt { said, decided }) if decided < said => self.decide(desk, call, rng.percent(50)).await?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn answer(&mut self, desk: &mut Desk, call: &str) -> Result<()> {
        if self.answers.iter().any(|answered| answered == call) {
            return Ok(());
        }
        let content = json!([{"type": "text", "text": format!("answer to {call}")}]);
        let event = json!({"type": "user.custom_tool_result", "custom_tool_use_id": call, "content": content});
        let answer = self.send(desk, event).await?;
        if self.is_taken(answer)? {
            self.answers.push(call.to_owned());
        }
        Ok(())
    }

    /// Whether a call that may have happened is to be run again.
    async fn decide(&mut self, desk: &mut Desk, call: &str, again: bool) -> Result<()> {
        let result = if again { "allow" } else { "deny" };
        let event = json!({"type": "user.tool_confirmation", "tool_use_id": call, "result": result});
        let answer = self.send(desk, event).await?;
        if self.is_taken(answer)? {
            self.doubts.entry(call.to_owned()).or_default().decided += 1;
        }
        Ok(())
    }

    async fn interrupt(&mut self, desk: &mut Desk) -> Result<()> {
        let answer = self.send(desk, json!({"type": "user.interrupt"})).await?.acknowledged()?;
        self.interrupts += 1;
        self.acknowledged(&answer["data"][0]["id"])
    }

    /// False: the call was settled by an interrupt before.
    fn is_taken(&self, answer: Answer) -> Result<bool> {
        match answer {
            Answer::Acknowledged(_) => Ok(true),
            Answer::Refused(_) if self.interrupts > 0 => Ok(false),
            Answer::Refused(why) => bail!("{why}"),
        }
    }

    async fn send(&mut self, desk: &mut Desk, event: Value) -> Result<Answer> {
        let path = format!("/v1/sessions/{}/events", self.id);
        self.post(desk, &path, &json!({"events": [event]})).await
    }

    async fn post(&mut self, desk: &mut Desk, path: &str, body: &Value) -> Result<Answer> {
        self.requests += 1;
        desk.post(path, &format!("{}-{}", self.tag, self.requests), body).await
    }

    /// The next entry of the journal, `None` when the stream was lost and is to be opened again.
    async fn next_frame(&mut self, desk: &mut Desk, stream: &mut Option<Stream>) -> Result<Option<Frame>> {
        let Some(open) = stream.as_mut() else {
            *stream = desk.open(&self.id, self.seen.last().map_or(0, |last| last.seq)).await?;
            return Ok(None);
        };
        let frame = tokio::select! {
            frame = open.next() => frame?,
            _ = desk.url.changed() => None,
        };
        let Some(frame) = frame else {
            *stream = None;
            return Ok(None);
        };
        let Some(seq) = frame.seq else { return Ok(None) };
        if self.seen.last().is_some_and(|last| last.seq >= seq) {
            bail!("the stream of `{}` showed {seq} after {:?}", self.id, self.seen.last());
        }
        let id = frame.data["id"].as_str().context("an event has an id")?.to_owned();
        self.seen.push(Seen { seq, id, at: Instant::now() });
        Ok(Some(frame))
    }
}
