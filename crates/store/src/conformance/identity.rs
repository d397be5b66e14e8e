//! Rules of workspaces and API keys.

use super::Backend;
use super::sample::{Ids, at, other_workspace, workspace};
use crate::{ListFilter, MakeError, Store, TimeRange};
use loopd_domain::audit::Actor;
use loopd_domain::environment::Isolation;
use loopd_domain::identity::{ApiKey, NewKey, Scopes, Workspace};
use loopd_domain::{ApiKeyId, IdSource, Timestamp, WorkspaceId};
use std::sync::Arc;

fn team(name: &str) -> Workspace {
    let (id, require_isolation) = (WorkspaceId::generate(&Ids), Isolation::Namespaces);
    Workspace { id, name: name.to_owned(), require_isolation, created_at: at(0) }
}

fn key(workspace: WorkspaceId, created: Timestamp) -> ApiKey {
    let mut random = [7u8; 32];
    random[..16].copy_from_slice(&Ids.ulid().to_be_bytes());
    let new = NewKey::from_random(random);
    ApiKey {
        id: ApiKeyId::generate(&Ids),
        workspace,
        name: "build ☂".to_owned(),
        hint: new.hint(),
        digest: new.digest(),
        scopes: Scopes::parse("scopes", ["*", "workspaces:read"]).expect("scopes"),
        created_at: created,
        created_by: Actor::Operator,
        expires_at: Some(at(100)),
        revoked_at: None,
        last_used_at: None,
    }
}

pub async fn workspaces_have_names_of_their_own(backend: &dyn Backend) {
    let store = backend.open().await;
    let default = store.workspaces().named("default").await.expect("readable").expect("there from the start");
    assert_eq!(default.id, workspace());
    let (b, a) = (team("b"), team("a"));
    store.workspaces().create(b.clone()).await.expect("made");
    store.workspaces().create(a.clone()).await.expect("made");
    for twin in [team("a"), Workspace { name: "c".to_owned(), ..a.clone() }] {
        assert!(matches!(store.workspaces().create(twin).await, Err(MakeError::Exists)));
    }
    assert_eq!(store.workspaces().get(&a.id).await.expect("readable"), Some(a.clone()));
    assert_eq!(store.workspaces().get(&other_workspace()).await.expect("readable"), None);
    let first = store.workspaces().list(None, 2).await.expect("listed");
    assert_eq!(first, [a, b]);
    assert_eq!(store.workspaces().list(Some("b".to_owned()), 2).await.expect("listed"), [default]);
}

pub async fn what_a_workspace_requires_outlives_its_store(backend: &dyn Backend) {
    let (a, strict) = (team("a"), Workspace { require_isolation: Isolation::Microvm, ..team("b") });
    {
        let store = backend.open().await;
        store.workspaces().create(a.clone()).await.expect("made");
        store.workspaces().create(strict.clone()).await.expect("made");
        let raised = store.workspaces().require(&a.id, Isolation::Microvm).await.expect("written");
        assert_eq!(raised, Some(Workspace { require_isolation: Isolation::Microvm, ..a.clone() }));
        assert_eq!(store.workspaces().require(&other_workspace(), Isolation::Microvm).await.expect("answered"), None);
    }
    let store = backend.open().await;
    assert_eq!(store.workspaces().named("b").await.expect("readable"), Some(strict));
    let found = store.workspaces().get(&a.id).await.expect("readable").expect("there");
    assert_eq!(found.require_isolation, Isolation::Microvm);
    let lowered = store.workspaces().require(&a.id, Isolation::Namespaces).await.expect("written");
    assert_eq!(lowered, Some(a));
    let untouched = store.workspaces().named("default").await.expect("readable").expect("there");
    assert_eq!(untouched.require_isolation, Isolation::Namespaces);
}

pub async fn a_key_is_found_by_its_digest(backend: &dyn Backend) {
    let first = key(workspace(), at(0));
    {
        let store = backend.open().await;
        assert!(!store.api_keys().any().await.expect("readable"));
        store.api_keys().create(first.clone()).await.expect("made");
        let twin = ApiKey { id: ApiKeyId::generate(&Ids), ..first.clone() };
        assert!(matches!(store.api_keys().create(twin).await, Err(MakeError::Exists)));
        let namesake = ApiKey { id: first.id.clone(), ..key(workspace(), at(0)) };
        assert!(matches!(store.api_keys().create(namesake).await, Err(MakeError::Exists)));
        let homeless = store.api_keys().create(key(other_workspace(), at(0))).await;
        assert!(matches!(homeless, Err(MakeError::NoWorkspace)), "{homeless:?}");
    }
    let store = backend.open().await;
    assert!(store.api_keys().any().await.expect("readable"));
    assert_eq!(store.api_keys().find(&first.digest).await.expect("readable"), Some(first.clone()));
    assert_eq!(store.api_keys().find(&key(workspace(), at(0)).digest).await.expect("readable"), None);
    assert_eq!(store.api_keys().get(&workspace(), &first.id).await.expect("readable"), Some(first.clone()));
    assert_eq!(store.api_keys().get(&other_workspace(), &first.id).await.expect("readable"), None);
}

pub async fn revoking_is_for_good_and_keeps_the_first_time(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = key(workspace(), at(0));
    store.api_keys().create(first.clone()).await.expect("made");
    assert!(first.is_valid(at(99)) && !first.is_valid(at(100)));
    assert_eq!(store.api_keys().revoke(&other_workspace(), &first.id, at(1)).await.expect("answered"), None);
    for time in [1, 2] {
        let revoked = store.api_keys().revoke(&workspace(), &first.id, at(time)).await.expect("revoked");
        assert_eq!(revoked.expect("there").revoked_at, Some(at(1)));
    }
    let found = store.api_keys().find(&first.digest).await.expect("readable").expect("it stays on record");
    assert!(!found.is_valid(at(1)));
    assert!(store.api_keys().any().await.expect("readable"), "a house that had keys is not open again");
}

pub async fn the_last_use_never_goes_back(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = key(workspace(), at(0));
    store.api_keys().create(first.clone()).await.expect("made");
    for time in [5, 9, 7] {
        store.api_keys().used(&first.id, at(time)).await.expect("noted");
    }
    let found = store.api_keys().find(&first.digest).await.expect("readable").expect("there");
    assert_eq!(found, ApiKey { last_used_at: Some(at(9)), ..first });
}

pub async fn keys_are_listed_in_pages_of_their_workspace(backend: &dyn Backend) {
    let store = backend.open().await;
    let other = team("other");
    store.workspaces().create(other.clone()).await.expect("made");
    let foreign = key(other.id.clone(), at(1));
    store.api_keys().create(foreign.clone()).await.expect("made");
    let mut ids = Vec::new();
    for n in 0..5 {
        let key = key(workspace(), at(n / 2));
        store.api_keys().create(key.clone()).await.expect("made");
        ids.insert(0, key.id);
    }
    store.api_keys().revoke(&workspace(), &ids[1], at(9)).await.expect("revoked");
    assert_eq!(listed(&store, &workspace(), true).await, ids);
    ids.remove(1);
    assert_eq!(listed(&store, &workspace(), false).await, ids);
    assert_eq!(listed(&store, &other.id, true).await, [foreign.id]);
}

async fn listed(store: &Arc<dyn Store>, workspace: &WorkspaceId, include_archived: bool) -> Vec<ApiKeyId> {
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let created = TimeRange::default();
        let filter = ListFilter { workspace: workspace.clone(), include_archived, created, after, limit: 2 };
        let page = store.api_keys().list(filter).await.expect("listed");
        let Some(last) = page.last() else { return seen };
        after = Some((last.created_at, last.id.to_string()));
        seen.extend(page.into_iter().map(|key| key.id));
    }
}
