//! Rules of environments: plain rows.

use super::Backend;
use super::sample::{at, environment, other_workspace, record, workspace};
use crate::{AppendError, ListFilter, TimeRange};
use loopd_domain::environment::{Environment, EnvironmentConfig, RoomLimits};

pub async fn are_created_read_changed_and_deleted(backend: &dyn Backend) {
    let store = backend.open().await;
    let environments = store.environments();
    let first = environment(at(0));
    environments.create(first.clone(), None).await.expect("created");
    assert_eq!(environments.get(&workspace(), &first.id).await.expect("readable"), Some(first.clone()));
    assert_eq!(environments.get(&other_workspace(), &first.id).await.expect("readable"), None);

    let limits = RoomLimits { pids: 7, ..RoomLimits::default() };
    let config = EnvironmentConfig { limits, ..EnvironmentConfig::default() };
    let changed =
        Environment { name: "☂".to_owned(), config, updated_at: at(3), archived_at: Some(at(3)), ..first.clone() };
    assert!(environments.update(changed.clone()).await.expect("changed"));
    assert!(
        !environments.update(Environment { workspace: other_workspace(), ..changed.clone() }).await.expect("answered")
    );
    assert_eq!(environments.get(&workspace(), &first.id).await.expect("readable"), Some(changed.clone()));

    assert!(!environments.delete(&other_workspace(), &first.id).await.expect("answered"));
    assert!(environments.delete(&workspace(), &first.id).await.expect("deleted"));
    assert!(!environments.delete(&workspace(), &first.id).await.expect("answered"));
    assert!(!environments.update(changed).await.expect("answered"));
    assert_eq!(environments.get(&workspace(), &first.id).await.expect("readable"), None);
}

pub async fn environments_are_listed_in_pages(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut ids = Vec::new();
    for n in 0..6 {
        let environment = Environment { archived_at: (n == 3).then(|| at(9)), ..environment(at(n / 2)) };
        store.environments().create(environment.clone(), None).await.expect("created");
        ids.push(environment.id);
    }
    ids.reverse();
    for include_archived in [true, false] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let created = TimeRange { lte: Some(at(9)), ..TimeRange::default() };
            let filter =
                ListFilter { workspace: workspace(), include_archived, created, after: after.clone(), limit: 2 };
            let page = store.environments().list(filter).await.expect("listed");
            let Some(last) = page.last() else { break };
            after = Some((last.created_at, last.id.as_str().to_owned()));
            seen.extend(page.into_iter().map(|e| e.id));
        }
        // Number 3 is third from the end.
        let wanted =
            ids.iter().enumerate().filter(|(place, _)| include_archived || *place != 2).map(|(_, id)| id.clone());
        assert_eq!(seen, wanted.collect::<Vec<_>>());
    }
}

pub async fn environments_are_created_once(backend: &dyn Backend) {
    let store = backend.open().await;
    let (first, second) = (environment(at(0)), environment(at(1)));
    store.environments().create(first.clone(), Some(record("k", at(0)))).await.expect("created");
    let again = store.environments().create(second.clone(), Some(record("k", at(1)))).await;
    assert!(matches!(again, Err(AppendError::Repeated(_))), "{again:?}");
    assert_eq!(store.environments().get(&workspace(), &second.id).await.expect("readable"), None);
    let twin = store.environments().create(Environment { name: "twin".to_owned(), ..first.clone() }, None).await;
    assert!(matches!(twin, Err(AppendError::Conflict { .. })), "{twin:?}");
    assert_eq!(store.environments().get(&workspace(), &first.id).await.expect("readable"), Some(first));
}
