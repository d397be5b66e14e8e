//! Answers that wait to be written together with what follows from them (ADR 9): nobody may notice.

mod support;

use loopd_domain::agent::ToolConfig;
use loopd_domain::event::{EventBody, Outcome};
use loopd_domain::session::StopReason;
use loopd_domain::{CallId, SessionId};
use loopd_session::ServiceError;
use loopd_store::sqlite::Faults;
use loopd_store::{AppendError, SessionFilter, Store, StoreError};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    let dies = AtomicBool::new(true);
    let tools: Tools = Arc::new(move |_| match dies.swap(false, Ordering::Relaxed) {
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
    house.mishaps.lag_ms.store(5, Ordering::Relaxed);
    for _ in 0..20 {
        let made = house.create(calls(&["read", "grep"]), toolset(ToolConfig::default()), "go").await;
        let id = &made.session.id;
        let sent = house.send(id, vec![message("and this")]).await.expect("taken");
        let events = house.until_idle(id, 0).await;
        assert!(events.iter().any(|event| event.id == sent.inputs[0].id), "{:?}", kinds(&events));
        house.assert_legal(id).await;
    }
}

/// A store that counts its commits, and refuses them while it is told to.
fn counted() -> (Faults, Arc<AtomicUsize>, Arc<AtomicBool>) {
    let (commits, refuses): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
    let (count, refused) = (commits.clone(), refuses.clone());
    let before_commit = move |_: &_| {
        count.fetch_add(1, Ordering::Relaxed);
        match refused.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable("the test wants it so".to_owned())),
            false => Ok(()),
        }
    };
    (Faults { before_commit: Some(Arc::new(before_commit)) }, commits, refuses)
}

#[tokio::test]
async fn a_step_of_reads_is_one_commit_and_one_with_a_command_is_two() {
    const STEPS: usize = 40;
    let mut taken = Vec::new();
    for tool in ["read", "bash"] {
        let (faults, commits, _) = counted();
        let house = House::open_with(echo(), faults, 60_000).await;
        let step = json!({"tools": [{"name": tool, "input": {"file_path": "a", "command": "true"}}]});
        let mut steps = vec![step; STEPS];
        steps.push(json!({"text": "done"}));
        let made = house.create(json!({"steps": steps}), toolset(ToolConfig::default()), "go").await;
        house.until_idle(&made.session.id, 0).await;
        taken.push(commits.load(Ordering::Relaxed));
        house.assert_legal(&made.session.id).await;
    }
    // The store has some commits of its own.
    assert!(taken[0] < STEPS + 10, "reads: {} commits for {STEPS} steps", taken[0]);
    assert!(taken[1] >= STEPS * 2, "commands: {} commits for {STEPS} steps", taken[1]);
}

#[tokio::test]
async fn a_new_session_is_written_with_its_first_question_and_its_answer_with_its_end() {
    let (faults, commits, _) = counted();
    let house = House::open_with(echo(), faults, 60_000).await;
    let made = house.create(json!({"steps": [{"text": "hello"}]}), Vec::new(), "go").await;
    let has_asked = |body: &EventBody| matches!(body, EventBody::ModelRequestStart { .. });
    house.until(&made.session.id, 0, has_asked).await;
    house.until_idle(&made.session.id, 0).await;
    assert_eq!(commits.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_session_that_cannot_be_written_is_refused_and_leaves_nothing() {
    let (faults, _, refuses) = counted();
    let house = House::open_with(echo(), faults, 10).await;
    refuses.store(true, Ordering::Relaxed);
    let script = || json!({"steps": [{"text": "hello"}]});
    let refused = house.try_create(script(), Vec::new(), "go", Default::default()).await;
    assert!(
        matches!(refused, Err(ServiceError::Append(AppendError::Store(StoreError::Unavailable(_))))),
        "{refused:?}"
    );
    let all = SessionFilter {
        workspace: workspace(),
        agent: None,
        agent_version: None,
        statuses: Vec::new(),
        include_archived: true,
        created: Default::default(),
        ascending: true,
        after: None,
        limit: 10,
    };
    assert!(house.service.list(all).await.expect("a list").is_empty());
    let gone = async {
        while house.mishaps.alive.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("its room ends");
    refuses.store(false, Ordering::Relaxed);
    let made = house.create(script(), Vec::new(), "go").await;
    house.until_idle(&made.session.id, 0).await;
}

#[tokio::test]
async fn a_session_does_not_wait_long_for_its_room() {
    let house = House::open(echo()).await;
    house.mishaps.start_lag_ms.store(60_000, Ordering::Relaxed);
    let made = house.create(json!({"steps": [{"text": "hello"}]}), Vec::new(), "go").await;
    assert_eq!(house.rooms_started.load(Ordering::Relaxed), 1, "and it is still to come");
    assert_eq!(
        house.assert_legal(&made.session.id).await.last().map(|e| e.body.kind()),
        Some("session.thread_status_running")
    );
}
