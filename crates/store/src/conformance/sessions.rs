//! Rules of sessions as a resource: what comes back, what is listed, what a deletion takes along.

use super::Backend;
use super::sample::{Ids, Pen, at, idle, message, other_workspace, owner, running, session, spec, workspace};
use crate::{Append, AppendError, ClaimOutcome, SessionChange, SessionFilter, Store, TimeRange};
use loopd_domain::agent::Metadata;
use loopd_domain::session::{Session, SessionAgent, Status};
use loopd_domain::{AgentId, EnvironmentId, Epoch, SessionId, Timestamp, VaultId};
use std::sync::Arc;

fn all() -> SessionFilter {
    SessionFilter {
        workspace: workspace(),
        agent: None,
        agent_version: None,
        statuses: vec![],
        include_archived: false,
        created: TimeRange::default(),
        ascending: true,
        after: None,
        limit: 1_000,
    }
}

async fn list(store: &Arc<dyn Store>, filter: SessionFilter) -> Vec<SessionId> {
    store.sessions().list(filter).await.expect("listed").into_iter().map(|s| s.id).collect()
}

pub async fn comes_back_as_it_was(backend: &dyn Backend) {
    let store = backend.open().await;
    let bare = session(at(0));
    let full = Session {
        agent: SessionAgent { id: Some(AgentId::generate(&Ids)), version: 7, spec: spec("n ☂") },
        environment: Some(EnvironmentId::generate(&Ids)),
        vaults: vec![VaultId::generate(&Ids), VaultId::generate(&Ids)],
        title: None,
        archived_at: Some(at(4)),
        updated_at: at(3),
        ..session(at(1))
    };
    for session in [bare, full] {
        let pen = Pen::create(&store, session, vec![message("a"), running(1)]).await;
        assert_eq!(pen.stored().await.as_ref(), Some(&pen.session));
        let filter = SessionFilter { include_archived: true, ..all() };
        let listed = store.sessions().list(filter).await.expect("listed");
        assert_eq!(listed.iter().find(|s| s.id == pen.session.id), Some(&pen.session));
    }
}

pub async fn an_id_is_taken_once(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = Pen::create(&store, session(at(0)), vec![message("a"), message("b")]).await;
    let twin = Session { id: first.session.id.clone(), ..session(at(1)) };
    let outcome = Pen::try_create(&store, twin, vec![message("x")], &owner("o"), None).await;
    assert!(matches!(outcome.err(), Some(AppendError::Conflict { actual: 2 })));
    assert_eq!(first.stored().await.as_ref(), Some(&first.session));
    assert_eq!(first.events().await.len(), 2);
}

pub async fn workspaces_are_walls(backend: &dyn Backend) {
    let store = backend.open().await;
    let pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let id = &pen.session.id;
    assert_eq!(store.sessions().get(&other_workspace(), id).await.expect("readable"), None);
    assert!(!store.sessions().delete(&other_workspace(), id).await.expect("answered"));
    assert_eq!(list(&store, SessionFilter { workspace: other_workspace(), ..all() }).await, []);
    assert!(pen.stored().await.is_some());
}

pub async fn changes_what_a_caller_may_change(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let change = SessionChange {
        title: None,
        metadata: Metadata::from([("new".to_owned(), "☂".to_owned())]),
        agent: SessionAgent { id: Some(AgentId::generate(&Ids)), version: 2, spec: spec("two") },
        archived_at: Some(at(9)),
        updated_at: at(8),
    };
    let append = Append { change: Some(change.clone()), ..pen.draft(vec![message("b")]) };
    pen.write(append).await.expect("written");
    let wanted = Session {
        title: change.title.clone(),
        metadata: change.metadata.clone(),
        agent: change.agent.clone(),
        archived_at: change.archived_at,
        updated_at: change.updated_at,
        ..pen.session.clone()
    };
    assert_eq!(pen.stored().await, Some(wanted));
    assert_eq!(list(&store, all()).await, []);
    // Also without an entry.
    let append = Append { change: Some(SessionChange { archived_at: None, ..change }), ..pen.draft(vec![]) };
    pen.write(append).await.expect("written");
    assert_eq!(pen.stored().await.expect("there").archived_at, None);
    pen.append(vec![message("c")]).await.expect("an append without a change changes nothing");
    assert_eq!(list(&store, all()).await, [pen.session.id]);
}

pub async fn a_change_stands_or_falls_with_its_append(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let behind = pen.clone();
    pen.append(vec![message("b")]).await.expect("appended");
    let before = (pen.stored().await, pen.events().await);
    let change = SessionChange {
        title: Some("never".to_owned()),
        metadata: Metadata::new(),
        agent: pen.session.agent.clone(),
        archived_at: Some(at(9)),
        updated_at: at(9),
    };
    let late = Append { change: Some(change.clone()), ..behind.draft(vec![message("c")]) };
    let fault = store.journal().append(late).await.expect_err("behind");
    assert!(matches!(fault, AppendError::Conflict { actual: 2 }), "{fault:?}");
    let zombie = Append { epoch: Epoch(0), change: Some(change.clone()), ..pen.draft(vec![]) };
    let fault = store.journal().append(zombie).await.expect_err("fenced");
    assert!(matches!(fault, AppendError::Fenced { .. }), "{fault:?}");
    assert_eq!((pen.stored().await, pen.events().await), before);
}

pub async fn deleting_takes_the_journal_along(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a"), running(1)]).await;
    let neighbour = Pen::create(&store, session(at(0)), vec![message("a"), running(1)]).await;
    let id = pen.session.id.clone();
    assert!(store.sessions().delete(&workspace(), &id).await.expect("deleted"));
    assert!(!store.sessions().delete(&workspace(), &id).await.expect("answered"));
    assert_eq!((pen.stored().await, pen.events().await), (None, vec![]));
    assert_eq!(store.journal().sealed(&id, 0, 10).await.expect("readable"), []);
    let claim = store.journal().claim(&id, &owner("o"), at(99), at(100)).await.expect("answered");
    assert_eq!(claim, ClaimOutcome::Absent);
    assert!(matches!(pen.append(vec![message("b")]).await, Err(AppendError::Absent)));
    assert_eq!(
        store.journal().claimable(at(99), 10).await.expect("answered"),
        std::slice::from_ref(&neighbour.session.id)
    );
    assert_eq!(store.journal().renew(&owner("first"), at(99)).await.expect("renewed"), 1);
    assert_eq!(neighbour.events().await.len(), 2);

    // The same id again starts from nothing.
    let again = Pen::create(&store, Session { id, ..session(at(5)) }, vec![message("new")]).await;
    assert_eq!(again.events().await.len(), 1);
}

/// Ten sessions at three moments; every page size sees each once, in order, both ways.
pub async fn pages_in_both_orders_with_equal_times(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut rows: Vec<(Timestamp, SessionId)> = Vec::new();
    for n in 0..10 {
        let pen = Pen::create(&store, session(at(n % 3)), if n % 2 == 0 { vec![running(1)] } else { vec![] }).await;
        rows.push((pen.session.created_at, pen.session.id));
    }
    rows.sort();
    for ascending in [true, false] {
        let expected: Vec<SessionId> = rows.iter().map(|(_, id)| id.clone()).collect();
        for limit in [1, 3, 10, 11] {
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let filter = SessionFilter { ascending, after: after.clone(), limit, ..all() };
                let page = store.sessions().list(filter).await.expect("listed");
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some((last.created_at, last.id.clone()));
                seen.extend(page.into_iter().map(|s| s.id));
            }
            if !ascending {
                seen.reverse();
            }
            assert_eq!(seen, expected, "ascending: {ascending}, limit: {limit}");
        }
    }
}

pub async fn filters_narrow_a_list(backend: &dyn Backend) {
    let store = backend.open().await;
    let agent = AgentId::generate(&Ids);
    let of = |version| SessionAgent { id: Some(agent.clone()), version, spec: spec("one") };
    let mut ids = Vec::new();
    for n in 0..6 {
        let mut session = session(at(n));
        if n >= 2 {
            session.agent = of(n as u64 % 2);
        }
        session.archived_at = (n == 5).then(|| at(9));
        let bodies = if n == 2 { vec![running(1)] } else { vec![] };
        ids.push(Pen::create(&store, session, bodies).await.session.id);
    }
    let pick = |numbers: &[usize]| numbers.iter().map(|n| ids[*n].clone()).collect::<Vec<_>>();
    let by_agent = || SessionFilter { agent: Some(agent.clone()), ..all() };
    let created = |created| SessionFilter { created, ..all() };
    let none = TimeRange::default();
    let archived_too = || SessionFilter { include_archived: true, ..by_agent() };
    for (filter, wanted) in [
        (all(), &[0, 1, 2, 3, 4][..]),
        (by_agent(), &[2, 3, 4]),
        (archived_too(), &[2, 3, 4, 5]),
        (SessionFilter { agent_version: Some(1), ..archived_too() }, &[3, 5]),
        (SessionFilter { agent_version: Some(0), ..all() }, &[2, 4]),
        (SessionFilter { statuses: vec![Status::Running], ..by_agent() }, &[2]),
        (SessionFilter { statuses: vec![Status::Running, Status::Idle], ..all() }, &[0, 1, 2, 3, 4]),
        (SessionFilter { statuses: vec![Status::Terminated], ..all() }, &[]),
        (created(TimeRange { gt: Some(at(1)), ..none }), &[2, 3, 4]),
        (created(TimeRange { gte: Some(at(1)), ..none }), &[1, 2, 3, 4]),
        (created(TimeRange { lt: Some(at(1)), ..none }), &[0]),
        (created(TimeRange { lte: Some(at(1)), gt: Some(at(0)), ..none }), &[1]),
        (SessionFilter { limit: 0, ..all() }, &[]),
    ] {
        assert_eq!(list(&store, filter.clone()).await, pick(wanted), "{filter:?}");
        let mut backwards = list(&store, SessionFilter { ascending: false, ..filter.clone() }).await;
        backwards.reverse();
        assert_eq!(backwards, pick(wanted), "backwards: {filter:?}");
    }
}

pub async fn status_follows_the_fold(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut pen = Pen::create(&store, session(at(0)), vec![message("a")]).await;
    let with = async |status| list(&store, SessionFilter { statuses: vec![status], ..all() }).await.len();
    assert_eq!((with(Status::Idle).await, with(Status::Running).await), (1, 0));
    pen.append(vec![running(1)]).await.expect("appended");
    assert_eq!((with(Status::Idle).await, with(Status::Running).await), (0, 1));
    pen.append(vec![idle()]).await.expect("appended");
    assert_eq!((with(Status::Idle).await, with(Status::Running).await), (1, 0));
}
