//! Questions that leave while their start is being written (ADR 10): nothing of it shows before it is on disk.

mod support;

use loopd_domain::agent::ToolConfig;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{Event, EventBody, Outcome};
use loopd_domain::session::StopReason;
use loopd_domain::{EventId, SessionId};
use loopd_session::{FollowFrom, Followed, OnceKey};
use loopd_store::sqlite::Faults;
use loopd_store::{Store, StoreError};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use support::*;

/// How long each commit takes: far longer than the model, and than a room's tool.
const COMMIT: Duration = Duration::from_millis(40);
const STEPS: usize = 4;

type At = Arc<OnceLock<(Arc<dyn Store>, SessionId)>>;

fn script(tool: &str) -> Value {
    let step =
        json!({"text": "looking around", "tools": [{"name": tool, "input": {"file_path": "a", "command": "true"}}]});
    json!({"steps": [step], "repeat": STEPS, "then": "that is all"})
}

/// A store whose commits are slow, and are refused while they are told to. Counts those that are over.
fn slow() -> (Faults, Arc<AtomicUsize>, Arc<AtomicBool>) {
    let (commits, refuses): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
    let (count, refused) = (commits.clone(), refuses.clone());
    let before_commit = move |_: &_| {
        std::thread::sleep(COMMIT);
        match refused.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("the test wants it so".to_owned())),
            false => {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        }
    };
    (Faults { before_commit: Some(Arc::new(before_commit)) }, commits, refuses)
}

/// The journal as any other process would read it now.
fn on_disk(store: &Arc<dyn Store>, session: &SessionId) -> Vec<Event> {
    let (store, session) = (store.clone(), session.clone());
    let look = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(store.journal().read(&session, 0, 1_000)).expect("a journal")
    });
    look.join().expect("looked")
}

fn questions(events: &[Event]) -> usize {
    events.iter().filter(|e| matches!(e.body, EventBody::ModelRequestStart { .. })).count()
}

/// A house in which every call notes how many events of a kind were on disk when it ran.
async fn noting(
    faults: Faults,
    count: impl Fn(&[Event]) -> usize + Send + Sync + 'static,
) -> (House, At, Arc<parking_lot::Mutex<Vec<usize>>>) {
    let (at, noted): (At, Arc<parking_lot::Mutex<Vec<usize>>>) = Default::default();
    let tools: Tools = {
        let (at, noted) = (at.clone(), noted.clone());
        Arc::new(move |_| {
            let (store, session) = at.get().expect("known");
            noted.lock().push(count(&on_disk(store, session)));
            Act::Say("seen".to_owned())
        })
    };
    (House::open_with(tools, faults, 60_000).await, at, noted)
}

/// For each call of a turn, how many questions were on disk.
async fn questions_at_calls(tool: &str) -> Vec<usize> {
    let (house, at, noted) = noting(slow().0, questions).await;
    let made = house.create(script(tool), toolset(ToolConfig::default()), "").await;
    at.set((house.store.clone(), made.session.id.clone())).ok().expect("once");
    house.send(&made.session.id, vec![message("go")]).await.expect("taken");
    house.until_idle(&made.session.id, 0).await;
    house.assert_legal(&made.session.id).await;
    noted.lock().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_wait_for_the_disk_and_a_command_does() {
    assert_eq!(
        questions_at_calls("read").await,
        [0, 1, 2, 3],
        "the model had answered before its question was written"
    );
    assert_eq!(questions_at_calls("bash").await, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_keeps_the_result_of_a_command_until_it_is_on_disk() {
    let is_result = |e: &&Event| matches!(e.body, EventBody::AgentToolResult { .. });
    let (house, at, found) = noting(slow().0, move |events| events.iter().filter(is_result).count()).await;
    let call = |name| json!({"tools": [{"name": name, "input": {"file_path": "a", "command": "true"}}]});
    let steps = json!({"steps": [call("bash"), call("read"), call("read"), call("bash"), {"text": "done"}]});
    let made = house.create(steps, toolset(ToolConfig::default()), "").await;
    at.set((house.store.clone(), made.session.id.clone())).ok().expect("once");
    house.send(&made.session.id, vec![message("go")]).await.expect("taken");
    house.until_idle(&made.session.id, 0).await;
    // A cell that hears of the next answer has let go of the results before it.
    assert_eq!(*found.lock(), [0, 1, 1, 3], "the second read alone may run before the result of the first is on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_told_of_nothing_that_is_not_on_disk() {
    for tool in ["read", "bash"] {
        let house = House::open_with(echo(), slow().0, 60_000).await;
        let made = house.create(script(tool), toolset(ToolConfig::default()), "").await;
        let id = &made.session.id;
        let mut live = house.service.follow(&workspace(), id, FollowFrom::Live).await.expect("a follower");
        house.send(id, vec![message("go")]).await.expect("taken");
        let (mut seqs, mut started, mut previewed) =
            (Vec::new(), 0, std::collections::HashMap::<EventId, String>::new());
        loop {
            let item = live.next().await.expect("more").expect("an item");
            let written = on_disk(&house.store, id);
            match item {
                Followed::Event(event) => {
                    assert!(written.iter().any(|e| e.id == event.id), "{} is not on disk", event.body.kind());
                    seqs.push(event.seq);
                    if let EventBody::AgentMessage { content, .. } = &event.body {
                        let ContentBlock::Text { text } = &content[0] else { panic!("text") };
                        assert_eq!(previewed.remove(&event.id).as_ref(), Some(text), "previews add up to the message");
                    }
                    if matches!(event.body, EventBody::StatusIdle { .. }) {
                        break;
                    }
                }
                Followed::MessageStart { id } => {
                    started += 1;
                    assert!(questions(&written) >= started, "an answer is shown whose question is not on disk");
                    previewed.insert(id, String::new());
                }
                Followed::MessageText { id, text, .. } => previewed.get_mut(&id).expect("started").push_str(&text),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(started, STEPS + 1);
        assert!(previewed.is_empty());
        let all: Vec<u64> = house.assert_legal(id).await.iter().map(|e| e.seq).collect();
        assert_eq!(seqs, all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_is_asked_about_at_once_unless_it_may_exist_already() {
    for (once, commits_before) in
        [(None, 0), (Some(OnceKey { key: "k".to_owned(), request_digest: "d".to_owned() }), 1)]
    {
        let (faults, commits, _) = slow();
        let first = Arc::new(OnceLock::new());
        let tools: Tools = {
            let (commits, first) = (commits.clone(), first.clone());
            Arc::new(move |_| {
                first.get_or_init(|| commits.load(Ordering::SeqCst));
                Act::Say("seen".to_owned())
            })
        };
        let house = House::open_with(tools, faults, 60_000).await;
        let spec = agent(script("read"), toolset(ToolConfig::default()));
        let new = house.new_session(Default::default(), spec, "go", Default::default());
        let made = house.service.create(new, once).await.expect("created");
        assert_eq!(questions(&on_disk(&house.store, &made.session.id)), 1, "whoever made it hears of it from the disk");
        house.until_idle(&made.session.id, 0).await;
        house.assert_legal(&made.session.id).await;
        assert_eq!(first.get(), Some(&commits_before));
    }
}

/// A session whose first read turns the store off.
async fn refused_at_the_second_question() -> (House, SessionId, Arc<AtomicBool>) {
    let (faults, _, refuses) = slow();
    let tools: Tools = {
        let (refuses, first) = (refuses.clone(), AtomicBool::new(true));
        Arc::new(move |_| {
            if first.swap(false, Ordering::SeqCst) {
                std::thread::sleep(2 * COMMIT);
                refuses.store(true, Ordering::SeqCst);
            }
            Act::Say("seen".to_owned())
        })
    };
    let house = House::open_with(tools, faults, 60_000).await;
    let made = house.create(script("read"), toolset(ToolConfig::default()), "").await;
    let id = made.session.id;
    house.send(&id, vec![message("go")]).await.expect("taken");
    while !refuses.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (house, id, refuses)
}

async fn ends_well(house: &House, id: &SessionId) {
    let events = house.until_idle(id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!(results(&events), vec![("seen".to_owned(), Outcome::Completed); STEPS]);
    house.assert_legal(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_a_moment_is_waited_for() {
    let (house, id, refuses) = refused_at_the_second_question().await;
    tokio::time::sleep(5 * COMMIT).await;
    assert_eq!(questions(&on_disk(&house.store, &id)), 1, "the second one waits");
    refuses.store(false, Ordering::SeqCst);
    ends_well(&house, &id).await;
    assert_eq!(house.rooms_started.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_to_a_question_that_is_never_written_is_forgotten() {
    let (house, id, refuses) = refused_at_the_second_question().await;
    let mut live = house.service.follow(&workspace(), &id, FollowFrom::After(0)).await.expect("a follower");
    // Longer than the driver is patient.
    let shown = async {
        while let Some(item) = live.next().await {
            let item = item.expect("an item");
            assert!(!matches!(item, Followed::MessageStart { .. }), "the second answer is shown");
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), shown).await.is_err(), "it waits for what comes");
    refuses.store(false, Ordering::SeqCst);
    ends_well(&house, &id).await;
}
