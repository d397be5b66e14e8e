//! Rules of vaults: whose they are, what they hold, and what is left of a secret that was taken away.

use super::Backend;
use super::sample::{Ids, at, other_workspace, record, workspace};
use crate::{
    AppendError, CredentialError, KeyOwner, ListFilter, SealedCredential, SealedSecret, Store, TimeRange, WrappedKey,
};
use loopd_domain::agent::Metadata;
use loopd_domain::limits::CREDENTIALS_MAX;
use loopd_domain::vault::{Credential, CredentialAuth, CredentialNetworking, InjectionPlace, Vault};
use loopd_domain::{CredentialId, VaultId, WorkspaceId};
use std::sync::Arc;

fn vault(seconds: i64) -> Vault {
    Vault {
        id: VaultId::generate(&Ids),
        workspace: workspace(),
        display_name: "søren's ☂".to_owned(),
        metadata: Metadata::from([("team".to_owned(), "a".to_owned())]),
        created_at: at(seconds),
        updated_at: at(seconds),
        archived_at: None,
    }
}

fn key(master: &str, byte: u8) -> WrappedKey {
    WrappedKey { master: master.to_owned(), bytes: vec![byte; 60] }
}

fn owner(vault: &Vault) -> KeyOwner {
    KeyOwner::Vault { workspace: vault.workspace.clone(), vault: vault.id.clone() }
}

fn credential(vault: &Vault, name: &str, seconds: i64) -> SealedCredential {
    let networking = CredentialNetworking::Limited { allowed_hosts: vec!["api.example.com".to_owned()] };
    let place = InjectionPlace::Anywhere { header: true, body: false };
    SealedCredential {
        credential: Credential {
            id: CredentialId::generate(&Ids),
            vault: vault.id.clone(),
            workspace: vault.workspace.clone(),
            display_name: None,
            auth: CredentialAuth::EnvironmentVariable { secret_name: name.to_owned(), networking, place },
            metadata: Metadata::new(),
            created_at: at(seconds),
            updated_at: at(seconds),
            archived_at: None,
        },
        secret: SealedSecret { version: 1, placeholder_chars: 40, bytes: vec![7; 33] },
    }
}

async fn made(store: &Arc<dyn Store>, seconds: i64) -> Vault {
    let vault = vault(seconds);
    store.vaults().create(vault.clone(), key("mk_a", 1), None).await.expect("created");
    vault
}

async fn added(store: &Arc<dyn Store>, vault: &Vault, name: &str, seconds: i64) -> SealedCredential {
    let new = credential(vault, name, seconds);
    store.vaults().add(new.clone(), None).await.expect("added");
    new
}

async fn stored(store: &Arc<dyn Store>, of: &SealedCredential) -> Option<SealedCredential> {
    let Credential { workspace, vault, id, .. } = &of.credential;
    store.vaults().sealed(workspace, vault, id).await.expect("readable")
}

pub async fn vaults_come_back_as_they_were(backend: &dyn Backend) {
    let first = {
        let store = backend.open().await;
        let first = made(&store, 0).await;
        added(&store, &first, "A", 1).await;
        first
    };
    let store = backend.open().await;
    let vaults = store.vaults();
    assert_eq!(vaults.get(&workspace(), &first.id).await.expect("readable"), Some(first.clone()));
    assert_eq!(vaults.key(&owner(&first)).await.expect("readable"), Some(key("mk_a", 1)));
    let second = added(&store, &first, "B", 2).await;
    let open = vaults.open(&workspace(), &first.id).await.expect("readable").expect("there");
    assert_eq!(open.key, key("mk_a", 1));
    assert_eq!(open.credentials.len(), 2);
    assert_eq!(open.credentials[1], second);
    assert_eq!(stored(&store, &second).await, Some(second));

    let renamed = Vault { display_name: "other".to_owned(), updated_at: at(3), ..first };
    assert!(vaults.update(renamed.clone()).await.expect("changed"));
    assert_eq!(vaults.get(&workspace(), &renamed.id).await.expect("readable"), Some(renamed));
}

pub async fn workspaces_are_walls_of_vaults(backend: &dyn Backend) {
    let store = backend.open().await;
    let own = made(&store, 0).await;
    let secret = added(&store, &own, "A", 1).await;
    let id = &secret.credential.id;
    let (vaults, other) = (store.vaults(), other_workspace());
    assert_eq!(vaults.get(&other, &own.id).await.expect("readable"), None);
    assert_eq!(vaults.open(&other, &own.id).await.expect("readable"), None);
    assert_eq!(vaults.sealed(&other, &own.id, id).await.expect("readable"), None);
    assert_eq!(vaults.credential(&other, &own.id, id).await.expect("readable"), None);
    let foreign = KeyOwner::Vault { workspace: other.clone(), vault: own.id.clone() };
    assert_eq!(vaults.key(&foreign).await.expect("readable"), None);
    assert_eq!(vaults.archive(&other, &own.id, at(2)).await.expect("answered"), None);
    assert_eq!(vaults.archive_credential(&other, &own.id, id, at(2)).await.expect("answered"), None);
    assert!(!vaults.delete(&other, &own.id).await.expect("answered"));
    assert!(!vaults.delete_credential(&other, &own.id, id).await.expect("answered"));
    assert!(!vaults.update(Vault { workspace: other.clone(), ..own.clone() }).await.expect("answered"));
    let mut smuggled = credential(&own, "B", 2);
    smuggled.credential.workspace = other.clone();
    assert!(matches!(vaults.add(smuggled, None).await, Err(CredentialError::Absent)));
    let all = |workspace: &WorkspaceId| filter(workspace, None, 10);
    assert_eq!(vaults.list(all(&other)).await.expect("listed"), []);
    assert_eq!(vaults.credentials(&own.id, all(&other)).await.expect("listed"), []);
    // Another vault of the same workspace is no way to a credential either.
    let neighbour = made(&store, 3).await;
    assert_eq!(vaults.credential(&workspace(), &neighbour.id, id).await.expect("readable"), None);
    assert!(!vaults.delete_credential(&workspace(), &neighbour.id, id).await.expect("answered"));
    assert_eq!(stored(&store, &secret).await, Some(secret));
}

pub async fn a_vault_holds_so_many_active_credentials(backend: &dyn Backend) {
    let store = backend.open().await;
    let vault = made(&store, 0).await;
    let mut last = None;
    for n in 0..CREDENTIALS_MAX {
        last = Some(added(&store, &vault, &format!("N{n}"), 1).await.credential.id);
    }
    let more = store.vaults().add(credential(&vault, "MORE", 2), None).await;
    assert!(matches!(more, Err(CredentialError::Full { max: CREDENTIALS_MAX })), "{more:?}");
    let last = last.expect("some");
    store.vaults().archive_credential(&workspace(), &vault.id, &last, at(3)).await.expect("archived");
    added(&store, &vault, "MORE", 4).await;
}

pub async fn an_active_key_is_taken_once(backend: &dyn Backend) {
    let store = backend.open().await;
    let vault = made(&store, 0).await;
    let first = added(&store, &vault, "A", 1).await;
    let twin = store.vaults().add(credential(&vault, "A", 2), None).await;
    assert!(matches!(twin, Err(CredentialError::KeyTaken)), "{twin:?}");
    let other = made(&store, 1).await;
    added(&store, &other, "A", 2).await;
    store.vaults().archive_credential(&workspace(), &vault.id, &first.credential.id, at(3)).await.expect("archived");
    let second = added(&store, &vault, "A", 4).await;
    assert!(store.vaults().delete_credential(&workspace(), &vault.id, &second.credential.id).await.expect("deleted"));
    added(&store, &vault, "A", 5).await;
}

pub async fn an_archived_credential_has_no_secret(backend: &dyn Backend) {
    let store = backend.open().await;
    let vault = made(&store, 0).await;
    let first = added(&store, &vault, "A", 1).await;
    let id = &first.credential.id;
    for later in [3, 4] {
        let archived = store.vaults().archive_credential(&workspace(), &vault.id, id, at(later)).await;
        let archived = archived.expect("archived").expect("there");
        assert_eq!((archived.archived_at, &archived.auth), (Some(at(3)), &first.credential.auth));
    }
    assert_eq!(stored(&store, &first).await, None);
    let seen = store.vaults().credential(&workspace(), &vault.id, id).await.expect("readable").expect("there");
    assert_eq!(seen.archived_at, Some(at(3)));
    let open = store.vaults().open(&workspace(), &vault.id).await.expect("readable").expect("there");
    assert_eq!(open.credentials, []);
    let late = store.vaults().change(first, 1).await;
    assert!(matches!(late, Err(CredentialError::Archived)), "{late:?}");
}

pub async fn archiving_a_vault_takes_all_secrets_along(backend: &dyn Backend) {
    let store = backend.open().await;
    let vault = made(&store, 0).await;
    let first = added(&store, &vault, "A", 1).await;
    for later in [3, 4] {
        let archived = store.vaults().archive(&workspace(), &vault.id, at(later)).await.expect("archived");
        assert_eq!(archived.expect("there").archived_at, Some(at(3)));
    }
    assert_eq!(stored(&store, &first).await, None);
    assert_eq!(store.vaults().open(&workspace(), &vault.id).await.expect("readable"), None);
    assert_eq!(store.vaults().key(&owner(&vault)).await.expect("readable"), None);
    let id = &first.credential.id;
    let seen = store.vaults().credential(&workspace(), &vault.id, id).await.expect("readable").expect("there");
    assert_eq!(seen.archived_at, Some(at(3)));
    let late = store.vaults().add(credential(&vault, "B", 5), None).await;
    assert!(matches!(late, Err(CredentialError::Archived)), "{late:?}");
    assert!(!store.vaults().update(vault).await.expect("answered"));
}

pub async fn deleting_a_vault_takes_all_along(backend: &dyn Backend) {
    let store = backend.open().await;
    let vault = made(&store, 0).await;
    let first = added(&store, &vault, "A", 1).await;
    assert!(store.vaults().delete(&workspace(), &vault.id).await.expect("deleted"));
    assert!(!store.vaults().delete(&workspace(), &vault.id).await.expect("answered"));
    assert_eq!(stored(&store, &first).await, None);
    assert_eq!(store.vaults().masters().await.expect("readable"), []);
    let late = store.vaults().add(credential(&vault, "B", 5), None).await;
    assert!(matches!(late, Err(CredentialError::Absent)), "{late:?}");
}

pub async fn of_two_rotations_one_is_refused(backend: &dyn Backend) {
    let store = backend.open().await;
    let vault = made(&store, 0).await;
    let first = added(&store, &vault, "A", 1).await;
    let next = |byte| {
        let secret = SealedSecret { version: 2, bytes: vec![byte; 33], ..first.secret.clone() };
        SealedCredential { secret, ..first.clone() }
    };
    store.vaults().change(next(8), 1).await.expect("changed");
    let late = store.vaults().change(next(9), 1).await;
    assert!(matches!(late, Err(CredentialError::Moved { current: 2 })), "{late:?}");
    assert_eq!(stored(&store, &first).await, Some(next(8)));
}

pub async fn vaults_and_credentials_are_made_once(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = vault(0);
    store.vaults().create(first.clone(), key("mk_a", 1), Some(record("k", at(0)))).await.expect("created");
    let second = vault(1);
    let again = store.vaults().create(second.clone(), key("mk_a", 2), Some(record("k", at(1)))).await;
    assert!(matches!(again, Err(AppendError::Repeated(_))), "{again:?}");
    assert_eq!(store.vaults().get(&workspace(), &second.id).await.expect("readable"), None);
    assert_eq!(store.vaults().masters().await.expect("readable"), [("mk_a".to_owned(), 1)]);

    let new = credential(&first, "A", 1);
    store.vaults().add(new.clone(), Some(record("c", at(1)))).await.expect("added");
    let again = store.vaults().add(credential(&first, "B", 1), Some(record("c", at(2)))).await;
    assert!(matches!(again, Err(CredentialError::Append(AppendError::Repeated(_)))), "{again:?}");
    // What is refused leaves no record of itself.
    let refused = store.vaults().add(credential(&first, "A", 2), Some(record("d", at(2)))).await;
    assert!(matches!(refused, Err(CredentialError::KeyTaken)), "{refused:?}");
    store.vaults().add(credential(&first, "B", 2), Some(record("d", at(3)))).await.expect("added");
}

fn filter(workspace: &WorkspaceId, after: Option<(loopd_domain::Timestamp, String)>, limit: usize) -> ListFilter {
    ListFilter { workspace: workspace.clone(), include_archived: true, created: TimeRange::default(), after, limit }
}

pub async fn vaults_and_credentials_are_listed_in_pages(backend: &dyn Backend) {
    let store = backend.open().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(made(&store, n / 2).await.id);
    }
    ids.reverse();
    store.vaults().archive(&workspace(), &ids[2], at(9)).await.expect("archived");
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.vaults().list(filter(&workspace(), after.clone(), 2)).await.expect("listed");
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id.as_str().to_owned()));
        seen.extend(page.into_iter().map(|v| v.id));
    }
    assert_eq!(seen, ids);
    let active = ListFilter { include_archived: false, ..filter(&workspace(), None, 9) };
    let active = store.vaults().list(active).await.expect("listed");
    assert_eq!(active.len(), 4);

    let vault = &active[0];
    let mut names = Vec::new();
    for n in 0..5 {
        names.push(added(&store, vault, &format!("N{n}"), n / 2).await.credential.id);
    }
    names.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.vaults().credentials(&vault.id, filter(&workspace(), after.clone(), 2)).await.expect("listed");
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.id.as_str().to_owned()));
        seen.extend(page.into_iter().map(|c| c.id));
    }
    assert_eq!(seen, names);
}

pub async fn there_is_one_key_of_the_house(backend: &dyn Backend) {
    let store = backend.open().await;
    assert_eq!(store.vaults().key(&KeyOwner::House).await.expect("readable"), None);
    assert!(store.vaults().found(key("mk_a", 1)).await.expect("written"));
    assert!(!store.vaults().found(key("mk_b", 2)).await.expect("answered"));
    assert_eq!(store.vaults().key(&KeyOwner::House).await.expect("readable"), Some(key("mk_a", 1)));
}

pub async fn keys_are_wrapped_anew_one_by_one(backend: &dyn Backend) {
    let store = backend.open().await;
    let vaults = store.vaults();
    vaults.found(key("mk_a", 1)).await.expect("written");
    for n in 0..3 {
        made(&store, n).await;
    }
    let mut first = vaults.keys_not_under("mk_b", 2).await.expect("listed");
    assert_eq!(first.len(), 2);
    let (owner, old) = first.remove(0);
    assert!(!vaults.rewrap(&owner, key("mk_a", 9), key("mk_b", 3)).await.expect("answered"), "not what stands there");
    assert!(vaults.rewrap(&owner, old.clone(), key("mk_b", 3)).await.expect("written"));
    assert!(!vaults.rewrap(&owner, old, key("mk_b", 4)).await.expect("answered"), "no longer");
    let masters = vaults.masters().await.expect("readable");
    assert_eq!(masters, [("mk_a".to_owned(), 3), ("mk_b".to_owned(), 1)]);
    loop {
        let left = vaults.keys_not_under("mk_b", 2).await.expect("listed");
        if left.is_empty() {
            break;
        }
        for (owner, old) in left {
            assert!(vaults.rewrap(&owner, old, key("mk_b", 5)).await.expect("written"));
        }
    }
    assert_eq!(vaults.masters().await.expect("readable"), [("mk_b".to_owned(), 4)]);
}
