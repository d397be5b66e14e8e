//! Answers that wait to be written together with what follows from them (ADR 9): nobody may notice.

mod support;

use loopd_domain::agent::ToolConfig;
use loopd_domain::event::{EventBody, Outcome};
use loopd_domain::session::StopReason;
use loopd_domain::{CallId, SessionId};
use loopd_store::Store;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use support::*;

fn calls(names: &[&str]) -> Value {
    let inputs = json!({"file_path": "a", "command": "true"});
    let tools: Vec<Value> = names.iter().map(|name| json!({"name": name, "input": inputs})).collect();
    json!({"steps": [{"text": "looking", "tools": tools}, {"text": "done"}]})
}

/// The call's intent is on disk, as any other process would see it.
fn is_written(store: &Arc<dyn Store>, session: &SessionId, call: &CallId) -> bool {
    let (store, session, call) = (store.clone(), session.clone(), call.clone());
    let look = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let events = runtime.block_on(store.journal().read(&session, 0, 100)).expect("a journal");
        events.iter().any(|event| event.id == call)
    });
    look.join().expect("looked")
}

/// What each call of a turn found of itself in the journal when it ran.
async fn found_by_calls(names: &[&str]) -> Vec<bool> {
    let found = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let at: Arc<OnceLock<(Arc<dyn Store>, SessionId)>> = Arc::default();
    let tools: Tools = {
        let (found, at) = (found.clone(), at.clone());
        Arc::new(move |call| {
            let (store, session) = at.get().expect("known");
            found.lock().push(is_written(store, session, &call.id));
            Act::Say("done".to_owned())
        })
    };
    let house = House::open(tools).await;
    let made = house.create(calls(names), toolset(ToolConfig::default()), "").await;
    at.set((house.store.clone(), made.session.id.clone())).ok().expect("once");
    house.send(&made.session.id, vec![message("go")]).await.expect("taken");
    house.until_idle(&made.session.id, 0).await;
    house.assert_legal(&made.session.id).await;
    found.lock().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_change_something_is_on_disk_before_it_runs() {
    assert_eq!(found_by_calls(&["bash"]).await, [true]);
    assert_eq!(found_by_calls(&["read", "write"]).await, [true, true], "the answer is one");
}

#[tokio::test]
async fn a_read_that_takes_long_is_seen_while_it_runs() {
    let house = House::open(Arc::new(|_| Act::Hang)).await;
    let made = house.create(calls(&["read"]), toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    let events = house.until(id, 0, |body| matches!(body, EventBody::ModelRequestEnd { .. })).await;
    assert!(kinds(&events).contains(&"agent.tool_use"));
    let sent = house.send(id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.expect("taken");
    let events = house.until_idle(id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events)[0].1, Outcome::Completed, "as the room said of a call that it stopped");
    house.assert_legal(id).await;
}

#[tokio::test]
async fn a_room_that_dies_of_a_read_leaves_a_legal_journal() {
    let dies = std::sync::atomic::AtomicBool::new(true);
    let tools: Tools = Arc::new(move |_| match dies.swap(false, std::sync::atomic::Ordering::Relaxed) {
        true => Act::Die,
        false => Act::Say("read".to_owned()),
    });
    let house = House::open(tools).await;
    let made = house.create(calls(&["read"]), toolset(ToolConfig::default()), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events), [("read".to_owned(), Outcome::Completed)]);
    let asked = kinds(&events).iter().filter(|kind| **kind == "span.model_request_start").count();
    assert_eq!(asked, 2, "the answer was kept and is not asked for again");
    house.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn what_a_client_sends_meanwhile_comes_after_the_answer() {
    let house = House::open(echo()).await;
    house.mishaps.lag_ms.store(5, std::sync::atomic::Ordering::Relaxed);
    for _ in 0..20 {
        let made = house.create(calls(&["read", "grep"]), toolset(ToolConfig::default()), "go").await;
        let id = &made.session.id;
        let sent = house.send(id, vec![message("and this")]).await.expect("taken");
        let events = house.until_idle(id, 0).await;
        assert!(events.iter().any(|event| event.id == sent.inputs[0].id), "{:?}", kinds(&events));
        house.assert_legal(id).await;
    }
}
