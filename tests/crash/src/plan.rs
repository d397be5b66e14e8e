//! What one session is to do: turns of steps of calls, drawn from a seed, and the script that makes the model ask for them.
//!
//! Each call that has an effect carries a nonce, so that the outside world can be asked about this very call.

use crate::rng::Rng;
use serde_json::{Value, json};

pub const TURNS: usize = 3;
const STEPS_MAX: u64 = 3;
const CALLS_MAX: u64 = 4;
/// What a step costs beside its model and its calls.
const STEP_MS: u64 = 25;
/// Where room calls leave their nonces.
pub const EFFECTS_FILE: &str = "effects";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A built-in that only reads.
    Pure,
    /// An HTTP tool that only reads.
    PureHttp,
    Room,
    Keyed,
    Once,
    Client,
}

impl Class {
    pub const ALL: [Class; 6] = [Class::Pure, Class::PureHttp, Class::Room, Class::Keyed, Class::Once, Class::Client];

    pub fn name(self) -> &'static str {
        match self {
            Class::Pure => "pure",
            Class::PureHttp => "http_pure",
            Class::Room => "room",
            Class::Keyed => "keyed",
            Class::Once => "once",
            Class::Client => "client",
        }
    }

    pub fn parse(name: &str) -> Result<Self, String> {
        let names: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
        let found = Class::ALL.into_iter().find(|class| class.name() == name);
        found.ok_or_else(|| format!("`{name}` is no effect class; accepted: {}", names.join(", ")))
    }

    /// The tool of the effect counter that has this class.
    pub fn http_tool(self) -> Option<&'static str> {
        match self {
            Class::PureHttp => Some("http_pure"),
            Class::Keyed => Some("http_keyed"),
            Class::Once => Some("http_once"),
            Class::Pure | Class::Room | Class::Client => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub class: Class,
    pub nonce: String,
    pub tool: &'static str,
    pub input: Value,
    /// About how long it takes.
    pub lasts_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub calls: Vec<Call>,
    /// How long the model thinks.
    pub delay_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub turns: Vec<Vec<Step>>,
    /// What the agent wants done about calls that may have happened.
    pub on_unknown_outcome: &'static str,
}

impl Plan {
    /// With calls of these classes. `tag` makes nonces unique over the whole run.
    pub fn draw(rng: &mut Rng, tag: &str, classes: &[Class]) -> Self {
        let turns = (0..TURNS).map(|t| {
            let steps = 1 + rng.below(STEPS_MAX);
            (0..steps).map(|s| step(rng, &format!("{tag}-{t}-{s}"), classes)).collect()
        });
        let turns = turns.collect();
        Plan { turns, on_unknown_outcome: if rng.percent(30) { "ask" } else { "continue" } }
    }

    /// The system prompt for `builtin/script`: each turn's steps, and a text that ends it.
    pub fn script(&self) -> String {
        let mut steps = Vec::new();
        for (number, turn) in self.turns.iter().enumerate() {
            steps.extend(turn.iter().map(|step| {
                let tools: Vec<Value> = step.calls.iter().map(|c| json!({"name": c.tool, "input": c.input})).collect();
                json!({"tools": tools, "delay_ms": step.delay_ms})
            }));
            steps.push(json!({"text": final_text(number)}));
        }
        json!({"steps": steps}).to_string()
    }

    /// About how long a turn takes when nothing happens to it.
    pub fn lasts_ms(&self, turn: usize) -> u64 {
        let step = |step: &Step| step.delay_ms + step.calls.iter().map(|c| c.lasts_ms).max().unwrap_or(0) + STEP_MS;
        self.turns.get(turn).map_or(0, |steps| steps.iter().map(step).sum())
    }

    /// Calls of the first `turns` turns, in the order in which the model asks for them.
    pub fn calls(&self, turns: usize) -> impl Iterator<Item = &Call> {
        self.turns.iter().take(turns).flatten().flat_map(|step| &step.calls)
    }
}

/// What the model says at the end of a turn: one word, which is said whole or not at all.
pub fn final_text(turn: usize) -> String {
    format!("turn-{turn}-is-done")
}

fn step(rng: &mut Rng, tag: &str, classes: &[Class]) -> Step {
    let count = match rng.percent(50) {
        true => 1,
        false => rng.between(2, CALLS_MAX),
    };
    let calls = (0..count).map(|c| call(rng, format!("{tag}-{c}"), classes)).collect();
    Step { calls, delay_ms: rng.below(60) }
}

/// How often each class is drawn.
const WEIGHTS: [(Class, u64); 6] = [
    (Class::Room, 30),
    (Class::Keyed, 20),
    (Class::Once, 16),
    (Class::Pure, 12),
    (Class::Client, 12),
    (Class::PureHttp, 10),
];

fn class(rng: &mut Rng, from: &[Class]) -> Class {
    let weights = || WEIGHTS.iter().filter(|(class, _)| from.contains(class));
    let mut left = rng.below(weights().map(|(_, weight)| weight).sum());
    for (class, weight) in weights() {
        if left < *weight {
            return *class;
        }
        left -= weight;
    }
    Class::Pure
}

fn call(rng: &mut Rng, nonce: String, classes: &[Class]) -> Call {
    let class = class(rng, classes);
    let (before, after) = (rng.below(90), rng.below(60));
    let (tool, input, lasts_ms) = match class {
        Class::Pure if rng.percent(50) => ("glob", json!({"pattern": "/usr/bin/env"}), 0),
        Class::Pure => ("grep", json!({"pattern": nonce, "path": "/workspace"}), 0),
        Class::Room => ("bash", json!({"command": room_command(before, after, &nonce)}), before + after),
        Class::Client => ("ask_client", json!({"nonce": nonce}), 0),
        Class::PureHttp | Class::Keyed | Class::Once => {
            let input = json!({"nonce": nonce, "delay_ms": before, "fault": http_fault(rng)});
            (class.http_tool().unwrap_or("http_once"), input, before)
        }
    };
    Call { class, nonce, tool, input, lasts_ms }
}

fn room_command(before: u64, after: u64, nonce: &str) -> String {
    format!("sleep 0.{before:03}; echo {nonce} >> /workspace/{EFFECTS_FILE}; sleep 0.{after:03}; echo did {nonce}")
}

/// How the effect counter misbehaves at the first send of a call.
fn http_fault(rng: &mut Rng) -> &'static str {
    match rng.below(100) {
        0..76 => "none",
        76..84 => "drop_before",
        84..92 => "drop_after",
        _ => "error_after",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_asks_for_what_the_plan_says() {
        let plan = Plan::draw(&mut Rng::of(&[3]), "t", &Class::ALL);
        let script: Value = serde_json::from_str(&plan.script()).expect("JSON");
        let steps = script["steps"].as_array().expect("steps");
        let asked: usize = steps.iter().filter_map(|s| s["tools"].as_array()).map(Vec::len).sum();
        assert_eq!(asked, plan.calls(TURNS).count());
        assert_eq!(steps.last().expect("a last step")["text"], final_text(TURNS - 1));
    }

    #[test]
    fn every_class_is_drawn_and_nonces_are_unique() {
        let mut rng = Rng::of(&[5]);
        let plans: Vec<Plan> = (0..60).map(|n| Plan::draw(&mut rng, &format!("p{n}"), &Class::ALL)).collect();
        let calls: Vec<&Call> = plans.iter().flat_map(|p| p.calls(TURNS)).collect();
        for class in Class::ALL {
            assert!(calls.iter().any(|c| c.class == class), "{}", class.name());
        }
        let nonces: std::collections::HashSet<&str> = calls.iter().map(|c| c.nonce.as_str()).collect();
        assert_eq!(nonces.len(), calls.len());
        let some = Plan::draw(&mut rng, "s", &[Class::Room]);
        assert!(some.calls(TURNS).all(|c| c.class == Class::Room));
        assert!(Class::parse("romm").expect_err("no class").contains("room"));
    }
}
