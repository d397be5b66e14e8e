//! Who drives a session: drivers that fail, requests that come at once, and sessions that go away.

mod support;

use loopd_domain::chain::Entry;
use loopd_domain::event::{Event, EventBody};
use loopd_domain::session::{Session, StopReason, TurnSettings};
use loopd_domain::{EventId, ThreadId};
use loopd_session::{OnceKey, ServiceError};
use loopd_store::{Append, SessionChange};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::*;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_key_used_twice_at_once_with_other_words_is_refused() {
    let house = House::open(echo()).await;
    let made = house.create(json!({"steps": [{"text": "a"}], "repeat": 9}), Vec::new(), "").await;
    let id = &made.session.id;
    let send = async |digest: &str| {
        let once = OnceKey { key: "events:k1".to_owned(), request_digest: digest.to_owned() };
        house.service.send(&workspace(), id, vec![message(digest)], TurnSettings::default(), Some(once)).await
    };
    let (one, other) = tokio::join!(send("one"), send("other"));
    let reused = [&one, &other].into_iter().filter(|r| matches!(r, Err(ServiceError::KeyReused { .. })));
    assert_eq!(reused.count(), 1, "{one:?} {other:?}");
}

#[tokio::test]
async fn a_session_whose_driver_panicked_is_taken_up() {
    let house = House::open(echo()).await;
    let made = house.create(json!({"steps": [{"text": "a"}], "repeat": 9}), Vec::new(), "").await;
    let id = &made.session.id;
    house.mishaps.panicking_starts.store(1, Ordering::Relaxed);
    let sent = house.send(id, vec![message("go")]).await.unwrap();
    let events = house.until_idle(id, sent.seq).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    house.assert_legal(id).await;
}

#[tokio::test]
async fn a_session_that_ended_otherwise_can_be_archived() {
    let house = House::open(echo()).await;
    let made = house.create(json!({"steps": []}), Vec::new(), "").await;
    let id = &made.session.id;
    let archived = house.service.archive(&workspace(), id).await.unwrap();
    let change = SessionChange {
        title: None,
        metadata: archived.metadata,
        agent: archived.agent,
        archived_at: None,
        updated_at: made.session.updated_at,
    };
    house.service.stop(loopd_session::StopMode::End).await;
    let Session { fold, epoch, .. } = house.session(id).await;
    let (session, expected_seq) = (id.clone(), fold.last_seq);
    let append = Append { session, epoch, expected_seq, entries: vec![], fold, change: Some(change), once: None };
    house.store.journal().append(append).await.unwrap();
    let heir = house.reopen(echo()).await;
    assert!(heir.session(id).await.archived_at.is_none());
    heir.service.archive(&workspace(), id).await.unwrap();
    assert!(heir.session(id).await.archived_at.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deleting_never_waits_for_itself() {
    let house = Arc::new(House::open(echo()).await);
    let mut deletions = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let house = house.clone();
        deletions.spawn(async move {
            let made = house.create(json!({"steps": [{"text": "a"}]}), Vec::new(), "").await;
            house.service.delete(&workspace(), &made.session.id).await
        });
    }
    let all = tokio::time::timeout(SOON, deletions.join_all()).await.expect("every deletion comes to an end");
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}

#[tokio::test]
async fn a_journal_that_moved_on_without_its_driver_is_read_again() {
    let house = House::open(echo()).await;
    let made = house.create(json!({"steps": [{"delay_ms": 500, "text": "a"}], "repeat": 9}), Vec::new(), "go").await;
    let id = &made.session.id;
    house.until(id, 0, |b| matches!(b, EventBody::ModelRequestStart { .. })).await;
    // As after a write that was reported lost and was not: same epoch, one entry more.
    let mut fold = house.session(id).await.fold;
    let session_thread_id = ThreadId::primary(id);
    let body = EventBody::ThreadStatusRunning { session_thread_id, agent_name: "tester".to_owned() };
    let event_id = EventId::parse("id", "sevt_beside").unwrap();
    let event = Event { seq: fold.last_seq + 1, id: event_id, at: fold.last_at, body };
    fold.apply(&event).unwrap();
    let head = house.store.journal().head(id).await.unwrap().unwrap();
    let append = Append {
        session: id.clone(),
        epoch: made.session.epoch,
        expected_seq: head.seq,
        entries: vec![Entry::seal(&head.hash, &event).unwrap()],
        fold,
        change: None,
        once: None,
    };
    house.store.journal().append(append).await.unwrap();
    let events = house.until_idle(id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    house.assert_legal(id).await;
}
