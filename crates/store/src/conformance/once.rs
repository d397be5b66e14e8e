//! Rules of repeated requests: one effect, and the first one's record for the second.

use super::Backend;
use super::sample::{Pen, agent, at, message, other_workspace, owner, record, session};
use crate::{AppendError, OnceRecord};
use loopd_domain::limits::IDEMPOTENCY_WINDOW_MS;

fn repeated<T>(outcome: Result<T, AppendError>) -> OnceRecord {
    match outcome {
        Err(AppendError::Repeated(record)) => record,
        Err(other) => panic!("not repeated: {other:?}"),
        Ok(_) => panic!("not repeated: done twice"),
    }
}

pub async fn a_repeated_create_has_no_effect(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = record("sessions.create:1", at(0));
    let (a, b) = (session(at(0)), session(at(1)));
    Pen::try_create(&store, a, vec![message("a")], &owner("o"), Some(first.clone())).await.expect("created");
    let again = OnceRecord { request_digest: "another".to_owned(), ..record("sessions.create:1", at(1)) };
    let outcome = Pen::try_create(&store, b.clone(), vec![message("b")], &owner("o"), Some(again)).await;
    assert_eq!(repeated(outcome), first);
    assert_eq!(store.sessions().get(&b.workspace, &b.id).await.expect("readable"), None);
    let found = store.once().find(&first.workspace, &first.key, at(0)).await.expect("readable");
    assert_eq!(found, Some(first));
}

pub async fn a_repeated_append_has_no_effect(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let mut append = pen.draft(vec![message("b")]);
    append.once = Some(record("k", at(0)));
    pen.write(append.clone()).await.expect("appended");
    // The very same again, which is behind by now, and a new one with the same key.
    assert_eq!(repeated(pen.clone().write(append).await), record("k", at(0)));
    let mut next = pen.draft(vec![message("c")]);
    next.once = Some(record("k", at(5)));
    assert_eq!(repeated(pen.clone().write(next).await), record("k", at(0)));
    assert_eq!(pen.events().await.len(), 2);
}

pub async fn a_failed_request_leaves_no_record(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let behind = pen.draft(vec![message("late")]);
    pen.append(vec![message("b")]).await.expect("appended");
    let append = crate::Append { once: Some(record("k", at(0))), ..behind };
    pen.clone().write(append).await.expect_err("a conflict");
    assert_eq!(store.once().find(&pen.session.workspace, "k", at(-9)).await.expect("readable"), None);
    let mut append = pen.draft(vec![message("c")]);
    append.once = Some(record("k", at(0)));
    pen.write(append).await.expect("done now");
}

pub async fn of_many_repetitions_one_is_done(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..32 {
        let store = store.clone();
        requests.spawn(async move {
            let once = Some(record("same", at(n)));
            Pen::try_create(&store, session(at(n)), vec![], &owner("o"), once).await.map(|pen| pen.session.created_at)
        });
    }
    let outcomes = requests.join_all().await;
    let done: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().ok().copied()).collect();
    assert_eq!(done.len(), 1);
    for outcome in outcomes {
        if outcome.is_err() {
            assert_eq!(repeated(outcome).at, done[0]);
        }
    }
}

pub async fn keys_belong_to_a_workspace(backend: &dyn Backend) {
    let store = backend.open().await;
    store.agents().create(agent(at(0)), Some(record("k", at(0)))).await.expect("created");
    let theirs = OnceRecord { workspace: other_workspace(), ..record("k", at(0)) };
    assert_eq!(store.once().find(&other_workspace(), "k", at(0)).await.expect("readable"), None);
    store.agents().create(agent(at(0)), Some(theirs)).await.expect("another workspace's key");
}

pub async fn records_expire(backend: &dyn Backend) {
    let store = backend.open().await;
    let workspace = record("", at(0)).workspace;
    for (key, time) in [("old", at(0)), ("young", at(10))] {
        store.agents().create(agent(time), Some(record(key, time))).await.expect("created");
    }
    let find = async |key, not_before| store.once().find(&workspace, key, not_before).await.expect("readable");
    assert_eq!(find("old", at(1)).await, None);
    assert!(find("old", at(0)).await.is_some());

    // Past its window a record stands in nobody's way, swept or not.
    let later = at(0).plus_ms(IDEMPOTENCY_WINDOW_MS + 1);
    store.agents().create(agent(later), Some(record("old", later))).await.expect("a new request");
    assert_eq!(find("old", at(0)).await.expect("the new one").at, later);

    assert_eq!(store.once().expire(at(11)).await.expect("swept"), 1);
    assert_eq!(find("young", at(0)).await, None);
    assert!(find("old", at(0)).await.is_some());
}

/// A request that comes from before its own first answer is a repetition all the same.
pub async fn a_clock_that_goes_back_opens_no_window(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let mut append = pen.draft(vec![message("b")]);
    append.once = Some(record("k", at(1_000)));
    pen.write(append).await.expect("appended");
    for time in [at(0), at(-1_000_000)] {
        let mut again = pen.draft(vec![message("c")]);
        again.once = Some(record("k", time));
        assert_eq!(repeated(pen.clone().write(again).await).at, at(1_000));
    }
    let found = store.once().find(&pen.session.workspace, "k", at(-1_000_000)).await.expect("readable");
    assert_eq!(found.expect("kept").at, at(1_000));
}
