//! Rules of ownership: one owner, one epoch, leases that end.

use super::Backend;
use super::sample::{Pen, at, idle, message, owner, rescheduled, running, session};
use crate::{AppendError, Claim, ClaimOutcome, OwnerId, Store};
use loopd_domain::event::EventBody;
use loopd_domain::{Epoch, SessionId, Timestamp};
use std::sync::Arc;

async fn claim(store: &Arc<dyn Store>, id: &SessionId, owner: &OwnerId, now: Timestamp) -> ClaimOutcome {
    store.journal().claim(id, owner, now, now.plus_ms(10_000)).await.expect("answered")
}

async fn claimed(store: &Arc<dyn Store>, id: &SessionId, owner: &OwnerId, now: Timestamp) -> Claim {
    match claim(store, id, owner, now).await {
        ClaimOutcome::Claimed(claim) => *claim,
        other => panic!("not claimed: {other:?}"),
    }
}

pub async fn a_session_is_held_by_who_made_it(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let id = &pen.session.id;
    assert_eq!(claim(&store, id, &owner("second"), at(1)).await, ClaimOutcome::Held { until: at(60) });
    let claim_of_nothing = claim(&store, &session(at(0)).id, &owner("second"), at(1)).await;
    assert_eq!(claim_of_nothing, ClaimOutcome::Absent);
    assert_eq!(pen.stored().await.expect("there").epoch, Epoch(1));
}

pub async fn of_many_claimers_one_wins(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![running(1)]).await;
    let mut claimers = tokio::task::JoinSet::new();
    for n in 0..32 {
        let (store, id) = (store.clone(), pen.session.id.clone());
        claimers.spawn(async move { claim(&store, &id, &owner(&n.to_string()), at(100)).await });
    }
    let outcomes = claimers.join_all().await;
    let winners: Vec<_> = outcomes.iter().filter(|o| matches!(o, ClaimOutcome::Claimed(_))).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(outcomes.iter().filter(|o| **o == ClaimOutcome::Held { until: at(110) }).count(), 31);
    assert_eq!(pen.stored().await.expect("there").epoch, Epoch(2));
}

pub async fn a_lease_ends(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut zombie = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let id = zombie.session.id.clone();
    // Until somebody else claims, the end of a lease alone changes nothing.
    zombie.append(vec![message("b")]).await.expect("still the owner");
    let almost = at(60).micros() - 1;
    assert!(matches!(claim(&store, &id, &owner("second"), Timestamp(almost)).await, ClaimOutcome::Held { .. }));
    let claim = claimed(&store, &id, &owner("second"), at(60)).await;
    assert_eq!((claim.session.epoch, claim.last_hash), (Epoch(2), zombie.hash));
    assert_eq!(claim.session.fold, zombie.session.fold);
    let told = zombie.append(vec![message("c")]).await.expect_err("a zombie");
    assert!(matches!(told, AppendError::Fenced { current: Epoch(2) }), "{told:?}");
    let mut pen = Pen { store, session: claim.session, hash: claim.last_hash };
    pen.append(vec![message("c")]).await.expect("the owner");
}

pub async fn an_owner_may_claim_again(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let claim = claimed(&store, &pen.session.id, &owner("first"), at(1)).await;
    assert_eq!(claim.session.epoch, Epoch(2));
    pen.append(vec![message("b")]).await.expect_err("its own older self is fenced");
}

pub async fn renewing_extends_and_never_shortens(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = Pen::create(&store, session(at(0)), vec![running(1)]).await;
    let second = Pen::create(&store, session(at(1)), vec![running(1)]).await;
    let other =
        Pen::try_create(&store, session(at(2)), vec![running(1)], &owner("other"), None).await.expect("created");
    assert_eq!(store.journal().renew(&owner("first"), at(90)).await.expect("renewed"), 2);
    assert_eq!(store.journal().renew(&owner("first"), at(70)).await.expect("renewed"), 2);
    assert_eq!(store.journal().renew(&owner("nobody"), at(99)).await.expect("renewed"), 0);
    for pen in [&first, &second] {
        let outcome = claim(&store, &pen.session.id, &owner("thief"), at(80)).await;
        assert_eq!(outcome, ClaimOutcome::Held { until: at(90) });
    }
    claimed(&store, &other.session.id, &owner("thief"), at(80)).await;
    assert_eq!(store.journal().renew(&owner("other"), at(200)).await.expect("renewed"), 0);
}

pub async fn releasing_needs_the_epoch(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![running(1)]).await;
    let id = &pen.session.id;
    store.journal().release(id, Epoch(7)).await.expect("nothing");
    assert!(matches!(claim(&store, id, &owner("second"), at(1)).await, ClaimOutcome::Held { .. }));
    store.journal().release(id, Epoch(1)).await.expect("released");
    let claim = claimed(&store, id, &owner("second"), at(1)).await;
    assert_eq!(claim.session.epoch, Epoch(2));
    store.journal().release(id, Epoch(1)).await.expect("nothing: it is another's now");
    assert!(matches!(self::claim(&store, id, &owner("third"), at(2)).await, ClaimOutcome::Held { .. }));
    store.journal().release(&session(at(0)).id, Epoch(1)).await.expect("nothing: no such session");
}

pub async fn a_clock_that_goes_back_lets_no_second_writer_in(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut first = Pen::create(&store, session(at(0)), vec![running(1)]).await;
    let id = first.session.id.clone();
    let second = claimed(&store, &id, &owner("second"), at(1_000)).await;
    // The first owner's clock is far behind: to it, its own lease still runs.
    assert_eq!(store.journal().renew(&owner("first"), at(70)).await.expect("renewed"), 0);
    assert!(matches!(claim(&store, &id, &owner("first"), at(5)).await, ClaimOutcome::Held { .. }));
    first.append(vec![message("b")]).await.expect_err("fenced");
    let mut second = Pen { store, session: second.session, hash: second.last_hash };
    second.append(vec![message("b")]).await.expect("the only writer");
}

pub async fn what_needs_an_owner_is_found_oldest_first(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pens = Vec::new();
    for n in 0..5 {
        pens.push(Pen::create(&store, session(at(n)), vec![running(1)]).await);
    }
    let resting = Pen::create(&store, session(at(9)), vec![message("a")]).await;
    let claimable = async |now, limit| store.journal().claimable(now, limit).await.expect("answered");
    let ids = |range: &[Pen]| range.iter().map(|p| p.session.id.clone()).collect::<Vec<_>>();
    assert_eq!(claimable(at(59), 10).await, []);
    assert_eq!(claimable(at(60), 10).await, ids(&pens));
    assert_eq!(claimable(at(60), 2).await, ids(&pens[..2]));

    claimed(&store, &pens[0].session.id, &owner("second"), at(60)).await;
    pens[1].append(vec![idle()]).await.expect("at rest");
    store.journal().release(&resting.session.id, Epoch(1)).await.expect("released");
    assert_eq!(claimable(at(61), 10).await, ids(&pens[2..]));
    store.journal().release(&pens[4].session.id, Epoch(1)).await.expect("released");
    assert_eq!(claimable(at(30), 10).await, ids(&pens[4..]));
    pens[1].append(vec![running(2)]).await.expect("running again");
    assert_eq!(claimable(at(61), 10).await, ids(&pens[1..]));
}

pub async fn a_claim_tells_a_hand_over_from_a_takeover(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![running(1)]).await;
    let id = &pen.session.id;
    assert!(!claimed(&store, id, &owner("second"), at(60)).await.handed_over, "its lease was over");
    assert!(!claimed(&store, id, &owner("second"), at(61)).await.handed_over, "its own, and never released");
    store.journal().release(id, Epoch(3)).await.expect("released");
    assert!(claimed(&store, id, &owner("third"), at(62)).await.handed_over);
    // A release by who has lost it hands nothing over.
    store.journal().release(id, Epoch(3)).await.expect("nothing");
    assert!(!claimed(&store, id, &owner("fourth"), at(999)).await.handed_over);

    let nobodys = session(at(0));
    let fresh = Pen { store: store.clone(), session: nobodys.clone(), hash: loopd_domain::chain::GENESIS };
    let entries = fresh.draft(vec![]).entries;
    store.journal().create(nobodys.clone(), entries, None, None).await.expect("created");
    assert!(claimed(&store, &nobodys.id, &owner("first"), at(1)).await.handed_over);
}

/// Stopped past its lease and continued: whatever it tries now, and however often.
pub async fn a_claim_that_a_zombie_missed_fences_all_it_does(backend: &dyn Backend) {
    let store = backend.open().await;
    let zombie = Pen::create(&store, session(at(0)), vec![message("a"), running(1)]).await;
    let id = zombie.session.id.clone();
    let claim = claimed(&store, &id, &owner("second"), at(60)).await;
    let drafts = [
        zombie.draft(vec![message("b")]),
        zombie.draft(vec![]),
        zombie.draft(vec![idle()]),
        crate::Append { once: Some(super::sample::record("k", at(0))), ..zombie.draft(vec![message("c")]) },
    ];
    for draft in drafts {
        let told = store.journal().append(draft).await.expect_err("fenced");
        assert!(matches!(told, AppendError::Fenced { current: Epoch(2) }), "{told:?}");
    }
    assert_eq!(store.once().find(&zombie.session.workspace, "k", at(0)).await.expect("readable"), None);
    assert_eq!(store.journal().renew(&owner("first"), at(500)).await.expect("renewed"), 0);
    store.journal().release(&id, Epoch(1)).await.expect("nothing");
    let outcome = self::claim(&store, &id, &owner("third"), at(61)).await;
    assert_eq!(outcome, ClaimOutcome::Held { until: at(70) });
    let mut second = Pen { store, session: claim.session, hash: claim.last_hash };
    assert_eq!(second.stored().await.as_ref(), Some(&second.session));
    second.append(vec![idle()]).await.expect("the owner");
}

pub async fn a_timer_is_due_when_its_time_comes(backend: &dyn Backend) {
    let store = backend.open().await;
    let claimable = async |now| store.journal().claimable(now, 10).await.expect("answered");
    let next_due = async |now| store.journal().next_due(now).await.expect("answered");
    assert_eq!(next_due(Timestamp(0)).await, None);
    let mut pens = Vec::new();
    for seconds in [900, 300] {
        let mut pen = Pen::create(&store, session(at(0)), vec![message("a"), running(1)]).await;
        pen.append(vec![rescheduled(at(seconds))]).await.expect("appended");
        store.journal().release(&pen.session.id, Epoch(1)).await.expect("released");
        pens.push(pen);
    }
    let [late, early] = [&pens[0].session.id, &pens[1].session.id];
    assert_eq!(next_due(at(0)).await, Some(at(300)));
    assert_eq!(next_due(at(300)).await, Some(at(900)));
    assert_eq!(next_due(at(900)).await, None);
    assert_eq!(claimable(Timestamp(at(300).micros() - 1)).await, []);
    assert_eq!(claimable(at(300)).await, std::slice::from_ref(early));
    assert_eq!(claimable(at(900)).await, [early.clone(), late.clone()]);
    let busy = Pen::create(&store, session(at(1)), vec![running(1)]).await.session.id;
    assert_eq!(claimable(at(900)).await, [busy, early.clone(), late.clone()], "what runs comes before what waited");

    // Held until its time and beyond: nobody else's business.
    let claim = claimed(&store, late, &owner("second"), at(895)).await;
    assert!(!claimable(at(904)).await.contains(late));
    assert!(claimable(at(905)).await.contains(late));
    let mut pen = Pen { store: store.clone(), session: claim.session, hash: claim.last_hash };
    pen.append(vec![running(1)]).await.expect("the next attempt");
    assert_eq!(next_due(at(300)).await, None);
    pen.append(vec![idle()]).await.expect("done");
    assert!(!claimable(at(9_999)).await.contains(late));
}

pub async fn a_timer_survives_reopening(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![running(1), rescheduled(at(300))]).await;
    let id = pen.session.id.clone();
    drop((store, pen));
    let store = backend.open().await;
    assert_eq!(store.journal().next_due(at(0)).await.expect("answered"), Some(at(300)));
    assert_eq!(store.journal().claimable(at(299), 9).await.expect("answered"), []);
    assert_eq!(store.journal().claimable(at(300), 9).await.expect("answered"), [id]);
}

/// Timers are moments of the wall: a clock that went back makes them wait longer; the same moment finds them still.
pub async fn a_clock_that_goes_back_makes_a_timer_wait_and_loses_none(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![running(1), rescheduled(at(300))]).await;
    store.journal().release(&pen.session.id, Epoch(1)).await.expect("released");
    for now in [at(299), at(-86_400), at(10)] {
        assert_eq!(store.journal().claimable(now, 9).await.expect("answered"), []);
        assert_eq!(store.journal().next_due(now).await.expect("answered"), Some(at(300)));
    }
    assert_eq!(store.journal().claimable(at(300), 9).await.expect("answered").len(), 1);
    // Whoever claims it with the clock back holds it against those whose clock is right, until its lease is over there too.
    claimed(&store, &pen.session.id, &owner("second"), at(-86_400)).await;
    assert_eq!(store.journal().claimable(at(300), 9).await.expect("answered").len(), 1);
    assert_eq!(store.journal().claimable(at(-86_395), 9).await.expect("answered"), []);
}

/// A session that brings its owners down is known by the count that each of them left.
pub async fn recoveries_are_counted_across_owners(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![message("a"), running(1)]).await;
    for n in 1..=5 {
        let claim = claimed(&store, &pen.session.id, &owner(&n.to_string()), at(100 * i64::from(n))).await;
        assert_eq!((claim.session.fold.recoveries, claim.handed_over), (n - 1, false));
        let mut next = Pen { store: store.clone(), session: claim.session, hash: claim.last_hash };
        let message = "its server ended".to_owned();
        next.append(vec![EventBody::SessionRecovered { message, recoveries: n }]).await.expect("appended");
    }
    assert_eq!(pen.stored().await.expect("there").fold.recoveries, 5);
    assert_eq!(pen.stored().await.expect("there").epoch, Epoch(6));
}
