//! Bodies of requests as `tests/fuzz` feeds them, read as the endpoints read them, without a server behind.
//!
//! [`check`] panics where a promise of the wire is broken: what an object shows of itself can be sent back and means the same.

use crate::strict;
use crate::v1::invoke::request;
use crate::wire::{agent, credential, environment, input, vault};
use loopd_domain::agent::AgentSpec;
use loopd_domain::environment::EnvironmentConfig;
use loopd_domain::event::EventBody;
use loopd_domain::{Invalid, SessionId};
use serde_json::{Value, json};

/// What is in a body. `Err`: refused, and the sentence that says why.
pub fn json(bytes: &[u8]) -> Result<Value, String> {
    strict::parse(bytes)
}

/// Reads a body as each endpoint would. Gives how many of them took it.
pub fn check(body: &Value, session: &SessionId) -> usize {
    let taken = [
        agents(body.clone()),
        environments(body.clone()),
        events(body, session),
        vault::read_new(body.clone()).map(drop),
        credential::read_new(body.clone()).map(drop),
        credential::read_edit(body.clone()).map(drop),
        request::read(body.clone()).map(|invocation| journaled(&invocation.inputs)),
    ];
    let refusals = taken.iter().filter_map(|taken| taken.as_ref().err());
    refusals.for_each(|fault| assert!(!fault.accepted.is_empty(), "says nothing: {fault}"));
    taken.iter().filter(|taken| taken.is_ok()).count()
}

fn agents(body: Value) -> Result<(), Invalid> {
    let patch = agent::read_patch(body.clone());
    let spec = agent::read_new(body)?;
    if let Ok(patch) = patch {
        // A caller's own words as a change to what they made: it may be refused, and is applied without a panic.
        patch.apply(&spec).map(drop).unwrap_or_default();
    }
    // Defaults are written out, so it is what is shown that stays.
    let (first, read) = (shown(&spec), agent::read_new(shown(&spec)));
    let second = read.map(|spec| shown(&spec)).map_err(|fault| fault.to_string());
    assert_eq!(second, Ok(first), "an agent that was shown is another when it is sent back");
    Ok(())
}

fn shown(spec: &AgentSpec) -> Value {
    let mut shown = json!(agent::write_definition(spec));
    shown["metadata"] = json!(spec.metadata);
    shown
}

fn environments(body: Value) -> Result<(), Invalid> {
    let new = environment::read_new(body)?;
    let shown = environment::write_config(&new.config);
    let read = environment::read_config("config", shown, EnvironmentConfig::default());
    assert_eq!(read, Ok(new.config), "an environment that was shown is another when it is sent back");
    Ok(())
}

fn events(body: &Value, session: &SessionId) -> Result<(), Invalid> {
    let list = body.get("events").cloned().unwrap_or(Value::Null);
    input::read_initial("initial_events", list.clone()).map(|events| journaled(&events)).unwrap_or_default();
    journaled(&input::read_events("events", list, session)?);
    Ok(())
}

/// What was accepted is read from the journal as it was written.
fn journaled(events: &[EventBody]) {
    for event in events {
        let read = serde_json::to_string(event).and_then(|text| serde_json::from_str::<EventBody>(&text));
        assert!(matches!(&read, Ok(read) if read == event), "{event:?} is read back as {read:?}");
    }
}
