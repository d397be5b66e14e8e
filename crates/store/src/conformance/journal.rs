//! Rules of the journal: dense, atomic, fenced, durable.

use super::Backend;
use super::sample::{Pen, at, idle, message, running, session};
use crate::chain::{Broken, Verified, verify, verify_session};
use crate::{AppendError, Head, SealedEntry};
use loopd_domain::Epoch;
use loopd_domain::chain::GENESIS;
use loopd_domain::event::Event;
use loopd_domain::fold::SessionFold;
use std::sync::Arc;
use std::time::Duration;

pub async fn entries_are_dense_and_in_order(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a"), running(1)]).await;
    pen.append(vec![idle(), message("b")]).await.expect("appended");
    pen.append(vec![message("c")]).await.expect("appended");
    let events = pen.events().await;
    assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(events[3].body, message("b"));
    assert_eq!(events[4].at, at(0));
    let mut fold = SessionFold::default();
    events.iter().for_each(|e| fold.apply(e).expect("a legal history"));
    assert_eq!(pen.stored().await.expect("there").fold, fold);
    let some = store.journal().read(&pen.session.id, 2, 2).await.expect("readable");
    assert_eq!(some, events[2..4]);
    assert_eq!(store.journal().read(&pen.session.id, 5, 10).await.expect("readable"), []);
}

/// A bad entry after a good one: neither is there, nor the fold.
pub async fn a_refused_append_leaves_nothing(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let before = (pen.stored().await, pen.events().await);

    let mut gap = pen.draft(vec![message("b"), message("c"), message("d")]);
    gap.entries.remove(1);
    assert!(matches!(store.journal().append(gap).await, Err(AppendError::Store(_))));
    let mut fold_elsewhere = pen.draft(vec![message("b")]);
    fold_elsewhere.fold.last_seq += 1;
    assert!(matches!(store.journal().append(fold_elsewhere).await, Err(AppendError::Store(_))));
    let mut id_twice = pen.draft(vec![message("b"), message("c")]);
    id_twice.entries[1].id = id_twice.entries[0].id.clone();
    assert!(matches!(store.journal().append(id_twice).await, Err(AppendError::Conflict { actual: 1 })));

    assert_eq!((pen.stored().await, pen.events().await), before);
    pen.append(vec![message("e")]).await.expect("appended");
    assert_eq!(pen.events().await.len(), 2);
}

pub async fn an_entry_id_stands_once_in_a_journal(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let first = pen.events().await.remove(0);
    let body = message("again");
    let event = Event { seq: 2, id: first.id, at: at(0), body };
    let mut again = pen.draft(vec![message("again")]);
    again.entries = vec![loopd_domain::chain::Entry::seal(&pen.hash, &event).expect("serialises")];
    assert!(matches!(store.journal().append(again).await, Err(AppendError::Conflict { actual: 1 })));
    assert_eq!(pen.events().await.len(), 1);
}

pub async fn an_old_epoch_is_fenced(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    for epoch in [0, 2, 99] {
        pen.session.epoch = Epoch(epoch);
        let told = pen.append(vec![message("b")]).await.expect_err("fenced");
        assert!(matches!(told, AppendError::Fenced { current: Epoch(1) }), "{told:?}");
    }
    assert_eq!(pen.events().await.len(), 1);
}

pub async fn a_moved_journal_is_a_conflict(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let mut behind = pen.clone();
    pen.append(vec![message("b"), message("c")]).await.expect("appended");
    let told = behind.append(vec![message("late")]).await.expect_err("moved");
    assert!(matches!(told, AppendError::Conflict { actual: 3 }), "{told:?}");
    let ahead = pen.draft(vec![message("d")]);
    let mut ahead = crate::Append { expected_seq: 7, ..ahead };
    ahead.entries[0].seq = 8;
    ahead.fold.last_seq = 8;
    let told = store.journal().append(ahead).await.expect_err("not there yet");
    assert!(matches!(told, AppendError::Conflict { actual: 3 }), "{told:?}");
    assert_eq!(pen.events().await.len(), 3);
}

pub async fn the_chain_must_continue(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let right = pen.hash;
    pen.hash = GENESIS;
    let told = pen.append(vec![message("b")]).await.expect_err("another predecessor");
    assert!(matches!(told, AppendError::Conflict { actual: 1 }), "{told:?}");
    pen.hash = right;
    pen.append(vec![message("b")]).await.expect("appended");
}

pub async fn only_the_fold_can_be_written(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let mut append = pen.draft(vec![]);
    append.fold.recoveries = 3;
    pen.write(append).await.expect("written");
    assert_eq!(pen.stored().await.expect("there").fold.recoveries, 3);
    pen.append(vec![message("b")]).await.expect("the chain goes on where it was");
}

pub async fn one_of_many_writers_at_a_place_wins(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..32 {
        let mut pen = pen.clone();
        writers.spawn(async move { pen.append(vec![message(&n.to_string())]).await });
    }
    let outcomes = writers.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert_eq!(outcomes.iter().filter(|o| matches!(o, Err(AppendError::Conflict { actual: 2 }))).count(), 31);
    assert_eq!(pen.events().await.len(), 2);
}

pub async fn absent_sessions_are_absent(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen { store: store.clone(), session: session(at(0)), hash: GENESIS };
    let told = store.journal().append(pen.draft(vec![message("a")])).await.expect_err("absent");
    assert!(matches!(told, AppendError::Absent), "{told:?}");
    assert_eq!(pen.events().await, []);
    assert_eq!(pen.stored().await, None);
    assert_eq!(store.journal().head(&pen.session.id).await.expect("readable"), None);
    assert_eq!(verify_session(store.journal(), &pen.session.id).await.expect("readable"), None);
}

pub async fn watchers_are_woken(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let other = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let mut here = [store.journal().watch(&pen.session.id), store.journal().watch(&pen.session.id)];
    let elsewhere = store.journal().watch(&other.session.id);
    pen.append(vec![message("b"), message("c")]).await.expect("appended");
    for watch in &mut here {
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.expect("woken").expect("open");
        assert_eq!(*watch.borrow_and_update(), 3);
    }
    assert!(!elsewhere.has_changed().expect("open"));

    let made = session(at(0));
    let mut before_it_was_made = store.journal().watch(&made.id);
    Pen::create(&store, made, vec![message("a")]).await;
    tokio::time::timeout(Duration::from_secs(5), before_it_was_made.changed()).await.expect("woken").expect("open");

    store.sessions().delete(&pen.session.workspace, &pen.session.id).await.expect("deleted");
    tokio::time::timeout(Duration::from_secs(5), here[0].changed()).await.expect("woken").expect_err("over");
}

pub async fn any_text_and_size_is_kept(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![]).await;
    let odd = "nul \u{0} quote \" ' backslash \\ newline \r\n ☂ 漢字 \u{10FFFF} \u{202E} e\u{301}".to_owned();
    let large = "0123456789abcde☂".repeat(5 << 16);
    assert!(large.len() > 5 << 20);
    for text in [odd, large, String::new()] {
        pen.append(vec![message(&text)]).await.expect("appended");
        let last = pen.store.journal().read(&pen.session.id, pen.session.fold.last_seq - 1, 1).await.expect("readable");
        assert!(last[0].body == message(&text), "a text of {} bytes did not come back", text.len());
    }
}

pub async fn long_journals_are_read_in_pages(backend: &dyn Backend) {
    const EVENTS: u64 = 10_000;
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![]).await;
    let neighbour = Pen::create(&store, session(at(0)), vec![message("not this")]).await;
    for first in (0..EVENTS).step_by(500) {
        let bodies = (first..first + 500).map(|n| message(&n.to_string())).collect();
        pen.append(bodies).await.expect("appended");
    }
    let mut seen = 0;
    loop {
        let page = store.journal().read(&pen.session.id, seen, 777).await.expect("readable");
        if page.is_empty() {
            break;
        }
        for event in page {
            assert_eq!((event.seq, event.body), (seen + 1, message(&seen.to_string())));
            seen += 1;
        }
    }
    assert_eq!(seen, EVENTS);
    assert_eq!(neighbour.events().await.len(), 1);
}

pub async fn the_chain_is_provable(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a"), message("b")]).await;
    pen.append(vec![message("c"), message("d")]).await.expect("appended");
    let proved = verify_session(store.journal(), &pen.session.id).await.expect("readable").expect("there");
    assert_eq!(proved, Ok(Verified { head: Head { seq: 4, hash: pen.hash }, redacted: vec![] }));

    let entries = store.journal().sealed(&pen.session.id, 0, 10).await.expect("readable");
    let start = Head { seq: 0, hash: GENESIS };
    let broken = |change: &dyn Fn(&mut Vec<SealedEntry>)| {
        let mut entries = entries.clone();
        change(&mut entries);
        verify(start, &entries).expect_err("broken")
    };
    assert_eq!(broken(&|e| e[1].payload.push(' ')), Broken::Changed { seq: 2 });
    assert_eq!(broken(&|e| e[2].at = at(1)), Broken::Changed { seq: 3 });
    assert_eq!(broken(&|e| e[2].kind.push('x')), Broken::Changed { seq: 3 });
    assert_eq!(broken(&|e| drop(e.remove(1))), Broken::Gap { expected: 2, found: 3 });
    let mut redacted = entries.clone();
    redacted[1].redacted = Some(<sha2::Sha256 as sha2::Digest>::digest(entries[1].payload.as_bytes()).into());
    redacted[1].payload = "{}".to_owned();
    assert_eq!(verify(start, &redacted), Ok(Head { seq: 4, hash: pen.hash }));
}

pub async fn what_was_acknowledged_is_there_after_reopening(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a"), running(1)]).await;
    pen.append(vec![idle()]).await.expect("appended");
    let before = (pen.stored().await, pen.events().await);
    let Pen { session, hash, store: last } = pen;
    drop((store, last));

    let store = backend.open().await;
    let mut pen = Pen { store, session, hash };
    assert_eq!((pen.stored().await, pen.events().await), before);
    pen.append(vec![message("b")]).await.expect("the same owner goes on");
}

pub async fn many_sessions_write_at_once(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..64 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut pen = Pen::create(&store, session(at(n)), vec![]).await;
            for k in 0..10 {
                pen.append(vec![message(&format!("{n}/{k}")), message("☂")]).await.expect("appended");
            }
            pen
        });
    }
    for pen in writers.join_all().await {
        let proved = verify_session(store.journal(), &pen.session.id).await.expect("readable").expect("there");
        assert_eq!(proved, Ok(Verified { head: Head { seq: 20, hash: pen.hash }, redacted: vec![] }));
        let n = pen.session.created_at.since_ms(at(0)) / 1_000;
        assert_eq!(pen.events().await[18].body, message(&format!("{n}/9")));
    }
}
