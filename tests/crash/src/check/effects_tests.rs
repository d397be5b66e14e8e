//! Each way in which an effect can be lost or repeated is found.

use super::{World, check, key};
use crate::check::testing::entries;
use crate::counter::Send;
use crate::plan::{Call, Class};
use serde_json::{Value, json};

struct Told {
    sends: Vec<Send>,
    in_room: usize,
}

impl World for Told {
    fn sends(&self, _: &str) -> Vec<Send> {
        self.sends.clone()
    }
    fn in_room(&self, _: &str) -> usize {
        self.in_room
    }
}

fn call(class: Class) -> Call {
    let tool = class.http_tool().unwrap_or("bash");
    Call { class, nonce: "n".to_owned(), tool, input: json!({"nonce": "n"}), lasts_ms: 0 }
}

/// A send with the right key of the call `e1`.
fn send(counted: bool) -> Send {
    Send { tool: "t".to_owned(), key: Some(key("s", "e1")), counted }
}

fn journal(call: &Call, outcome: &str, is_error: bool) -> Vec<Value> {
    vec![
        json!({"type": "agent.tool_use", "name": call.tool, "input": call.input}),
        json!({"type": "agent.tool_result", "tool_use_id": "e1", "outcome": outcome, "is_error": is_error}),
    ]
}

fn faults(class: Class, outcome: &str, sends: &[Send], in_room: usize) -> Vec<String> {
    let call = call(class);
    let world = Told { sends: sends.to_vec(), in_room };
    check("s", &entries(&journal(&call, outcome, outcome != "completed")), [&call].into_iter(), 1..=1, &world).0
}

#[track_caller]
fn finds(class: Class, outcome: &str, sends: &[Send], in_room: usize, needle: &str) {
    let faults = faults(class, outcome, sends, in_room);
    assert!(faults.iter().any(|f| f.contains(needle)), "`{needle}` is not in {faults:?}");
}

#[test]
fn what_is_as_declared_passes() {
    let none: Vec<String> = Vec::new();
    assert_eq!(faults(Class::Once, "completed", &[send(true)], 0), none);
    assert_eq!(faults(Class::Once, "unknown", &[send(false)], 0), none);
    assert_eq!(faults(Class::Once, "unknown", &[], 0), none);
    assert_eq!(faults(Class::Keyed, "completed", &[send(true), send(false)], 0), none);
    assert_eq!(faults(Class::PureHttp, "completed", &[send(true), send(true)], 0), none);
    assert_eq!(faults(Class::Room, "completed", &[], 1), none);
    assert_eq!(faults(Class::Room, "unknown", &[], 0), none);
    assert_eq!(faults(Class::Room, "unknown", &[], 1), none);
}

#[test]
fn lost_effects() {
    finds(Class::Once, "completed", &[], 0, "its effect is lost");
    finds(Class::Keyed, "completed", &[send(false)], 0, "its effect is lost");
    finds(Class::Room, "completed", &[], 0, "not in the room's file");
}

#[test]
fn repeated_effects() {
    finds(Class::Once, "completed", &[send(true), send(false)], 0, "sent 2 times");
    finds(Class::Keyed, "completed", &[send(true), send(true)], 0, "had 2 effects");
    finds(Class::Room, "completed", &[], 2, "stands 2 times");
    finds(Class::Room, "unknown", &[], 2, "stands 2 times");
}

#[test]
fn what_the_client_allowed_again_may_happen_again() {
    let call = call(Class::Once);
    let mut bodies = journal(&call, "completed", false);
    bodies.insert(1, json!({"type": "user.tool_confirmation", "tool_use_id": "e1", "result": "allow"}));
    let faults = |sends: &[Send]| {
        let world = Told { sends: sends.to_vec(), in_room: 0 };
        check("s", &entries(&bodies), [&call].into_iter(), 1..=1, &world).0
    };
    assert_eq!(faults(&[send(true), send(true)]), Vec::<String>::new());
    assert!(faults(&[send(true), send(true), send(true)])[0].contains("sent 3 times"));
}

#[test]
fn keys_and_calls_that_never_ran() {
    let other = Send { key: Some("other".to_owned()), ..send(true) };
    finds(Class::Keyed, "completed", &[send(true), other], 0, "with the key");
    finds(Class::Once, "completed", &[Send { key: None, ..send(true) }], 0, "with the key");
    finds(Class::Once, "not_run", &[send(true)], 0, "was not run");
    finds(Class::Room, "not_run", &[], 1, "was not run");
}

#[test]
fn the_plan_is_followed() {
    let (planned, world) = (call(Class::Once), Told { sends: vec![send(true)], in_room: 0 });
    let list = entries(&journal(&planned, "completed", false));
    let (faults, _) = check("s", &list, std::iter::empty(), 0..=0, &world);
    assert!(faults[0].contains("0..=0 calls and the journal has 1"), "{faults:?}");
    let other = Call { input: json!({"nonce": "m"}), ..planned.clone() };
    assert!(check("s", &list, [&other].into_iter(), 1..=1, &world).0[0].contains("the script asked"));
    let (faults, _) = check("s", &list[..1], [&planned].into_iter(), 1..=1, &world);
    assert!(faults[0].contains("has no result"), "{faults:?}");
}
