//! What the journal says of each call, against what the outside world saw of it.
//!
//! | class | at most | when recorded as done |
//! |---|---|---|
//! | pure | any number of sends | at least one |
//! | keyed | any number of sends, one key, one effect | one effect |
//! | once | one send | one effect |
//! | room | one nonce in the file | one nonce |
//!
//! Where the agent wants its client asked, each `allow` after a doubt lets a call happen once more. `unknown` says nothing but "at most"; `not_run` says that nothing was sent. A call that failed (`is_error`) and completed
//! may or may not have had its effect: the tool itself said so.

use crate::counter::Send;
use crate::journal::Entry;
use crate::plan::{Call, Class};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// What the outside knows.
pub trait World {
    fn sends(&self, nonce: &str) -> Vec<Send>;
    /// How often a room's file holds it.
    fn in_room(&self, nonce: &str) -> usize;
}

/// Calls by class and outcome.
pub type Outcomes = BTreeMap<(Class, String), u64>;

/// Faults, and what became of the calls. The journal must ask for the plan's calls, in its order, and for as many as `expected`.
pub fn check<'a>(
    session: &str,
    entries: &[Entry],
    plan: impl Iterator<Item = &'a Call>,
    expected: RangeInclusive<usize>,
    world: &impl World,
) -> (Vec<String>, Outcomes) {
    let (mut faults, mut outcomes) = (Vec::new(), Outcomes::new());
    let uses: Vec<&Entry> = entries.iter().filter(|e| e.kind.ends_with("tool_use")).collect();
    if !expected.contains(&uses.len()) {
        faults.push(format!("the model was to ask for {expected:?} calls and the journal has {}", uses.len()));
    }
    for (used, call) in uses.iter().zip(plan) {
        if used.text("name") != call.tool || used.body["input"] != call.input {
            faults.push(format!("entry {}: the script asked for `{}` {} here", used.seq, call.tool, call.input));
            continue;
        }
        let Some(result) = entries.iter().find(|e| answers(e, &used.id)) else {
            faults.push(format!("call {} ({}) has no result", used.id, call.nonce));
            continue;
        };
        let outcome = match call.class {
            Class::Client if result.kind == "user.custom_tool_result" => "answered",
            _ => result.text("outcome"),
        };
        *outcomes.entry((call.class, outcome.to_owned())).or_default() += 1;
        let is_error = result.body["is_error"] == Value::Bool(true);
        let allows = |e: &&Entry| e.kind == "user.tool_confirmation" && e.text("result") == "allow";
        let again = entries.iter().filter(allows).filter(|e| e.text("tool_use_id") == used.id).count();
        let told = Told { outcome, is_error, may_happen: 1 + again };
        let verdict = judge(session, used, call, &told, world);
        faults.extend(verdict.err().map(|f| format!("call {} ({}, {outcome}): {f}", used.id, call.nonce)));
    }
    (faults, outcomes)
}

fn answers(entry: &Entry, call: &str) -> bool {
    entry.kind.ends_with("tool_result") && {
        let named = ["tool_use_id", "custom_tool_use_id", "mcp_tool_use_id"];
        named.iter().any(|name| entry.text(name) == call)
    }
}

/// What the journal says became of a call.
struct Told<'a> {
    outcome: &'a str,
    is_error: bool,
    /// How often it may have happened at most.
    may_happen: usize,
}

fn judge(session: &str, used: &Entry, call: &Call, told: &Told<'_>, world: &impl World) -> Result<(), String> {
    let Told { outcome, is_error, may_happen } = *told;
    let is_done = outcome == "completed" && !is_error;
    match call.class {
        Class::Pure | Class::Client => return Ok(()),
        Class::Room => {
            let count = world.in_room(&call.nonce);
            return match (outcome, count) {
                _ if count > may_happen => Err(format!("its nonce stands {count} times in the room's file")),
                ("not_run", 1..) => Err("it was not run, and its nonce stands in the room's file".to_owned()),
                (_, 0) if is_done => Err("it was recorded as done, and its nonce is not in the room's file".to_owned()),
                _ => Ok(()),
            };
        }
        Class::PureHttp | Class::Keyed | Class::Once => {}
    }
    let sends = world.sends(&call.nonce);
    let effects = sends.iter().filter(|s| s.counted).count();
    if outcome == "not_run" && !sends.is_empty() {
        return Err(format!("it was not run, and was sent {} times", sends.len()));
    }
    if is_done && effects == 0 {
        return Err("it was recorded as done, and its effect is lost".to_owned());
    }
    let expected = key(session, &used.id);
    if let Some(send) = sends.iter().find(|s| s.key.as_deref() != Some(expected.as_str())) {
        return Err(format!("it was sent with the key {:?}, not {expected}", send.key));
    }
    match call.class {
        Class::Once if sends.len() > may_happen => Err(format!("it was sent {} times", sends.len())),
        Class::Keyed if effects > 1 => Err(format!("it had {effects} effects")),
        _ => Ok(()),
    }
}

/// The key of a call: known to whoever knows its session and id, and to nobody else's call.
fn key(session: &str, call: &str) -> String {
    let digest = Sha256::digest(format!("{session}:{call}").as_bytes());
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    format!("loopd_{hex}")
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
