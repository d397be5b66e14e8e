//! Rules of journals that were sealed before (copies, archives), and of entries whose content is taken out.

use super::Backend;
use super::sample::{Ids, Pen, at, idle, message, owner, record, rescheduled, running, session};
use crate::chain::{Broken, Verified, verify_session};
use crate::{
    AppendError, ClaimOutcome, Head, Import, ImportError, RedactError, Redacted, Redaction, SealedEntry, Store,
};
use loopd_domain::chain::{Entry, GENESIS};
use loopd_domain::event::{Event, EventBody};
use loopd_domain::fold::SessionFold;
use loopd_domain::session::{Session, Status};
use loopd_domain::{Epoch, EventId};
use std::sync::Arc;

/// The whole journal of `pen`, to be put under another session.
async fn import_of(pen: &Pen) -> Import {
    let entries = pen.store.journal().sealed(&pen.session.id, 0, usize::MAX).await.expect("readable");
    Import { session: session(at(0)), entries, lease: None, once: None }
}

async fn verified(store: &Arc<dyn Store>, session: &Session) -> Verified {
    verify_session(store.journal(), &session.id).await.expect("readable").expect("there").expect("whole")
}

fn redaction(pen: &Pen, seq: u64, tombstone: EventBody) -> Redaction {
    Redaction { session: pen.session.id.clone(), epoch: pen.session.epoch, seq, tombstone }
}

/// Bodies that need not be legal, sealed properly one after the other.
fn sealed(bodies: Vec<EventBody>) -> Vec<SealedEntry> {
    let mut hash = GENESIS;
    let seal = |(n, body)| {
        let event = Event { seq: n as u64 + 1, id: EventId::generate(&Ids), at: at(0), body };
        let Entry { seq, id, kind, payload, at, hash: own, .. } = Entry::seal(&hash, &event).expect("serialises");
        hash = own;
        SealedEntry { seq, id, kind: kind.to_owned(), payload, at, redacted: None, hash }
    };
    bodies.into_iter().enumerate().map(seal).collect()
}

pub async fn a_whole_journal_is_imported(backend: &dyn Backend) {
    let store = backend.open().await;
    let bodies = (0..5_000).map(|n| message(&n.to_string())).chain([running(1), idle(), message("last")]).collect();
    let mut source = Pen::create(&store, session(at(0)), bodies).await;
    let import = import_of(&source).await;
    let mut watch = store.journal().watch(&import.session.id);
    let made = store.journal().import(import).await.expect("imported");
    assert_eq!(*watch.borrow_and_update(), 5_003);
    assert_eq!((&made.fold, made.epoch), (&source.session.fold, Epoch(1)));
    let mut copy = Pen { store: store.clone(), session: made, hash: source.hash };
    assert_eq!(copy.stored().await.as_ref(), Some(&copy.session));
    assert_eq!(copy.events().await, source.events().await);
    let head = Head { seq: 5_003, hash: source.hash };
    assert_eq!(verified(&store, &copy.session).await, Verified { head, redacted: vec![] });
    // Two journals from here on.
    copy.append(vec![message("of the copy")]).await.expect("appended");
    source.append(vec![message("of the source"), message("and another")]).await.expect("appended");
    assert_eq!((copy.events().await.len(), source.events().await.len()), (5_004, 5_005));
}

pub async fn an_import_is_proved(backend: &dyn Backend) {
    let store = backend.open().await;
    let source = Pen::create(&store, session(at(0)), vec![message("a"), running(1), idle()]).await;
    let good = import_of(&source).await;
    let refused = async |change: &dyn Fn(&mut Vec<SealedEntry>)| {
        let mut import = Import { session: session(at(0)), once: Some(record("import", at(0))), ..good.clone() };
        change(&mut import.entries);
        let (id, workspace) = (import.session.id.clone(), import.session.workspace.clone());
        let fault = store.journal().import(import).await.expect_err("refused");
        assert_eq!(store.sessions().get(&workspace, &id).await.expect("readable"), None);
        assert_eq!(store.once().find(&workspace, "import", at(0)).await.expect("readable"), None);
        fault
    };
    let fault = refused(&|e| e[0].payload = e[0].payload.replace('a', "b")).await;
    assert!(matches!(fault, ImportError::Broken(Broken::Changed { seq: 1 })), "{fault:?}");
    let fault = refused(&|e| drop(e.remove(1))).await;
    assert!(matches!(fault, ImportError::Broken(Broken::Gap { expected: 2, found: 3 })), "{fault:?}");
    let fault = refused(&|e| *e = sealed(vec![message("a"), idle()])).await;
    assert!(matches!(&fault, ImportError::Illegal(illegal) if illegal.seq == 2), "{fault:?}");
    let fault = refused(&|e| {
        e[0].redacted = Some(<sha2::Sha256 as sha2::Digest>::digest(e[0].payload.as_bytes()).into());
        e[0].payload = serde_json::to_string(&idle()).expect("serialises");
    });
    let fault = fault.await;
    assert!(matches!(&fault, ImportError::Unreadable { seq: 1, .. }), "{fault:?}");
}

pub async fn an_import_takes_no_id_that_exists(backend: &dyn Backend) {
    let store = backend.open().await;
    let source = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let import = Import { session: source.session.clone(), ..import_of(&source).await };
    let fault = store.journal().import(import).await.expect_err("taken");
    assert!(matches!(fault, ImportError::Append(AppendError::Conflict { actual: 1 })), "{fault:?}");
    let import = Import { once: Some(record("k", at(0))), ..import_of(&source).await };
    store.journal().import(import.clone()).await.expect("imported");
    let again = Import { session: session(at(0)), ..import };
    let fault = store.journal().import(again).await.expect_err("done before");
    assert!(matches!(fault, ImportError::Append(AppendError::Repeated(_))), "{fault:?}");
}

pub async fn an_import_in_the_middle_of_a_turn_is_taken_up(backend: &dyn Backend) {
    let store = backend.open().await;
    let source = Pen::create(&store, session(at(0)), vec![message("a"), running(1)]).await;
    let made = store.journal().import(import_of(&source).await).await.expect("imported");
    assert_eq!(store.journal().claimable(at(1), 10).await.expect("answered"), std::slice::from_ref(&made.id));
    match store.journal().claim(&made.id, &owner("o"), at(1), at(9)).await.expect("answered") {
        ClaimOutcome::Claimed(claim) => assert_eq!((claim.handed_over, claim.last_hash), (true, source.hash)),
        other => panic!("{other:?}"),
    }
}

pub async fn a_redacted_entry_is_gone_and_the_chain_whole(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a"), message("secret"), message("c")]).await;
    let before = pen.events().await;
    let redact = async |tombstone| store.journal().redact(redaction(&pen, 2, tombstone)).await.expect("redacted");
    assert!(!redact(message("[redacted]")).await.again);
    let events = pen.events().await;
    assert_eq!(events[1], Event { body: message("[redacted]"), ..before[1].clone() });
    assert_eq!((&events[0], &events[2]), (&before[0], &before[2]));
    let proof = Verified { head: Head { seq: 3, hash: pen.hash }, redacted: vec![2] };
    assert_eq!(verified(&store, &pen.session).await, proof);

    assert_eq!(redact(message("[gone]")).await, Redacted { again: true, purged: true });
    assert_eq!(pen.events().await[1].body, message("[gone]"));
    assert_eq!(verified(&store, &pen.session).await, proof);
    assert_eq!(pen.stored().await.as_ref(), Some(&pen.session));
    pen.append(vec![message("d")]).await.expect("it goes on");

    let copy = store.journal().import(import_of(&pen).await).await.expect("imported");
    assert_eq!(verified(&store, &copy).await.redacted, [2]);
}

/// What the fold knows of an entry goes with it.
pub async fn a_redaction_makes_the_fold_anew(backend: &dyn Backend) {
    let store = backend.open().await;
    let queued = |text: &str| {
        let (id, body) = (EventId::parse("id", "sevt_waits").expect("an id"), Box::new(message(text)));
        EventBody::InputQueued { input: loopd_domain::event::QueuedInput { id, body, settings: Default::default() } }
    };
    let pen = Pen::create(&store, session(at(0)), vec![message("a"), running(1), queued("a long secret")]).await;
    assert!(pen.session.fold.queued[0].weight >= 13);
    store.journal().redact(redaction(&pen, 3, queued("-"))).await.expect("redacted");
    let mut fold = SessionFold::default();
    pen.events().await.iter().for_each(|e| fold.apply(e).expect("a legal history"));
    assert_ne!(fold, pen.session.fold);
    assert_eq!(pen.stored().await.expect("there").fold, fold);
}

pub async fn a_redaction_that_does_not_fit_changes_nothing(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![message("a"), running(1), rescheduled(at(9))]).await;
    let before = (pen.stored().await, pen.events().await);
    let redact = async |redaction| store.journal().redact(redaction).await.expect_err("refused");
    let fault = redact(redaction(&pen, 4, message("x"))).await;
    assert!(matches!(fault, RedactError::NoEntry { seq: 4, last: 3 }), "{fault:?}");
    let fault = redact(redaction(&pen, 1, idle())).await;
    assert!(matches!(fault, RedactError::OtherKind { seq: 1, given: "session.status_idle", .. }), "{fault:?}");
    let fault = redact(redaction(&pen, 2, running(7))).await;
    assert!(matches!(&fault, RedactError::Illegal(illegal) if illegal.seq == 2), "{fault:?}");
    let fault = redact(Redaction { epoch: Epoch(0), ..redaction(&pen, 1, message("x")) }).await;
    assert!(matches!(fault, RedactError::Append(AppendError::Fenced { current: Epoch(1) })), "{fault:?}");
    let elsewhere = Pen { session: session(at(0)), ..pen.clone() };
    let fault = redact(redaction(&elsewhere, 1, message("x"))).await;
    assert!(matches!(fault, RedactError::Append(AppendError::Absent)), "{fault:?}");
    assert_eq!((pen.stored().await, pen.events().await), before);
    assert_eq!(before.0.expect("there").fold.status, Status::Rescheduling);
}
