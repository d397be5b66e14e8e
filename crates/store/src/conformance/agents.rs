//! Rules of agents: versions that never change, one update at a time.

use super::Backend;
use super::sample::{agent, at, other_workspace, record, spec, workspace};
use crate::{AppendError, ListFilter, Store, TimeRange, UpdateError};
use loopd_domain::AgentId;
use loopd_domain::agent::Agent;
use std::sync::Arc;

async fn get(store: &Arc<dyn Store>, id: &AgentId, version: Option<u64>) -> Option<Agent> {
    store.agents().get(&workspace(), id, version).await.expect("readable")
}

fn next(agent: &Agent, name: &str) -> Agent {
    let version = agent.version + 1;
    Agent { version, spec: spec(name), updated_at: at(version as i64), ..agent.clone() }
}

pub async fn versions_are_kept(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = agent(at(0));
    store.agents().create(first.clone(), None).await.expect("created");
    let second = next(&first, "two");
    store.agents().update(second.clone(), 1).await.expect("updated");
    assert_eq!(get(&store, &first.id, None).await, Some(second.clone()));
    assert_eq!(get(&store, &first.id, Some(1)).await, Some(first.clone()));
    assert_eq!(get(&store, &first.id, Some(2)).await, Some(second.clone()));
    assert_eq!(get(&store, &first.id, Some(3)).await, None);
    assert_eq!(store.agents().get(&other_workspace(), &first.id, None).await.expect("readable"), None);

    let stale = store.agents().update(next(&first, "late"), 1).await.expect_err("stale");
    assert!(matches!(stale, UpdateError::VersionMismatch { expected: 1, current: 2 }), "{stale:?}");
    let absent = store.agents().update(next(&agent(at(0)), "x"), 1).await.expect_err("absent");
    assert!(matches!(absent, UpdateError::Absent), "{absent:?}");
    let foreign = Agent { workspace: other_workspace(), ..next(&second, "x") };
    assert!(matches!(store.agents().update(foreign, 2).await, Err(UpdateError::Absent)));
    assert_eq!(get(&store, &first.id, None).await, Some(second));
}

pub async fn of_many_updates_one_wins(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = agent(at(0));
    store.agents().create(first.clone(), None).await.expect("created");
    let mut updates = tokio::task::JoinSet::new();
    for n in 0..32 {
        let (store, second) = (store.clone(), next(&first, &n.to_string()));
        updates.spawn(async move { store.agents().update(second.clone(), 1).await.map(|()| second) });
    }
    let outcomes = updates.join_all().await;
    let done: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().ok().cloned()).collect();
    assert_eq!(done.len(), 1);
    let mismatch = |o: &&Result<Agent, UpdateError>| matches!(o, Err(UpdateError::VersionMismatch { current: 2, .. }));
    assert_eq!(outcomes.iter().filter(mismatch).count(), 31);
    assert_eq!(get(&store, &first.id, None).await.as_ref(), done.first());
}

pub async fn archiving_keeps_the_first_time(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = agent(at(0));
    store.agents().create(first.clone(), None).await.expect("created");
    store.agents().update(next(&first, "two"), 1).await.expect("updated");
    for time in [at(5), at(6)] {
        let archived = store.agents().archive(&workspace(), &first.id, time).await.expect("archived");
        assert_eq!(archived, Some(Agent { archived_at: Some(at(5)), ..next(&first, "two") }));
    }
    assert_eq!(get(&store, &first.id, Some(1)).await, Some(Agent { archived_at: Some(at(5)), ..first.clone() }));
    assert_eq!(store.agents().archive(&other_workspace(), &first.id, at(7)).await.expect("answered"), None);
    assert_eq!(store.agents().archive(&workspace(), &agent(at(0)).id, at(7)).await.expect("answered"), None);
}

pub async fn agents_are_listed_in_pages(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut agents = Vec::new();
    for n in 0..9 {
        let agent = agent(at(n % 3));
        store.agents().create(agent.clone(), None).await.expect("created");
        agents.push(agent);
    }
    let archived = agents[4].id.clone();
    store.agents().archive(&workspace(), &archived, at(50)).await.expect("archived");
    agents.sort_by_key(|a| std::cmp::Reverse((a.created_at, a.id.clone())));
    for include_archived in [true, false] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let created = TimeRange { gte: Some(at(0)), lt: Some(at(3)), ..TimeRange::default() };
            let filter =
                ListFilter { workspace: workspace(), include_archived, created, after: after.clone(), limit: 2 };
            let page = store.agents().list(filter).await.expect("listed");
            let Some(last) = page.last() else { break };
            after = Some((last.created_at, last.id.as_str().to_owned()));
            seen.extend(page.into_iter().map(|a| a.id));
        }
        let wanted = agents.iter().map(|a| a.id.clone()).filter(|id| include_archived || *id != archived);
        assert_eq!(seen, wanted.collect::<Vec<_>>());
    }
}

pub async fn versions_are_listed_newest_first(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut agent = agent(at(0));
    store.agents().create(agent.clone(), None).await.expect("created");
    for expected in 1..5 {
        agent = next(&agent, "more");
        store.agents().update(agent.clone(), expected).await.expect("updated");
    }
    let versions = async |before, limit| {
        let listed = store.agents().versions(&workspace(), &agent.id, before, limit).await.expect("listed");
        listed.iter().map(|a| a.version).collect::<Vec<_>>()
    };
    assert_eq!(versions(None, 10).await, [5, 4, 3, 2, 1]);
    assert_eq!(versions(None, 2).await, [5, 4]);
    assert_eq!(versions(Some(4), 2).await, [3, 2]);
    assert_eq!(versions(Some(1), 2).await, [] as [u64; 0]);
    assert_eq!(store.agents().versions(&other_workspace(), &agent.id, None, 9).await.expect("listed"), []);
}

pub async fn agents_are_created_once(backend: &dyn Backend) {
    let store = backend.open().await;
    let (first, second) = (agent(at(0)), agent(at(1)));
    store.agents().create(first.clone(), Some(record("k", at(0)))).await.expect("created");
    let again = store.agents().create(second.clone(), Some(record("k", at(1)))).await;
    assert!(matches!(again, Err(AppendError::Repeated(_))), "{again:?}");
    assert_eq!(get(&store, &second.id, None).await, None);
    let twin = store.agents().create(Agent { spec: spec("twin"), ..first.clone() }, None).await;
    assert!(matches!(twin, Err(AppendError::Conflict { .. })), "{twin:?}");
    assert_eq!(get(&store, &first.id, None).await, Some(first));
}
