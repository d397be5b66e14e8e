//! Rules of the audit log.

use super::Backend;
use super::sample::{Ids, at, other_workspace, workspace};
use crate::{AuditFilter, Store, TimeRange};
use loopd_domain::audit::{Actor, AuditEntry, AuditRecord, AuditResult, CredentialUse};
use loopd_domain::{ApiKeyId, AuditId, CredentialId, EventId, RequestId, Timestamp, VaultId};
use std::sync::Arc;

fn record(time: Timestamp, actor: Actor, action: &str, resource: &str) -> AuditRecord {
    let use_of = CredentialUse {
        vault: VaultId::generate(&Ids),
        credential: CredentialId::generate(&Ids),
        host: "api.example.com".to_owned(),
        port: 443,
        calls: vec![EventId::generate(&Ids), EventId::generate(&Ids)],
    };
    let entry = AuditEntry {
        at: time,
        workspace: workspace(),
        actor,
        action: action.to_owned(),
        resource: resource.to_owned(),
        result: AuditResult::Refused { reason: "☂".to_owned() },
        credential_use: Some(use_of),
    };
    AuditRecord { id: AuditId::generate(&Ids), request: Some(RequestId::generate(&Ids)), entry }
}

fn filter() -> AuditFilter {
    let created = TimeRange::default();
    AuditFilter { workspace: workspace(), actor: None, action: None, resource: None, created, after: None, limit: 2 }
}

async fn all(store: &Arc<dyn Store>, mut filter: AuditFilter) -> Vec<AuditRecord> {
    let mut seen = Vec::new();
    loop {
        let page = store.audit().list(filter.clone()).await.expect("listed");
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { return seen };
        filter.after = Some((last.entry.at, last.id.to_string()));
        seen.extend(page);
    }
}

pub async fn entries_come_back_as_they_were_newest_first(backend: &dyn Backend) {
    let mut written: Vec<AuditRecord> =
        (0..5).map(|n| record(at(n / 2), Actor::Development, "agents.create", "agent_1")).collect();
    {
        let store = backend.open().await;
        store.audit().append(written[..3].to_vec()).await.expect("written");
        store.audit().append(written[3..].to_vec()).await.expect("written");
        store.audit().append(Vec::new()).await.expect("nothing to write");
    }
    let store = backend.open().await;
    written.reverse();
    assert_eq!(all(&store, filter()).await, written);
    assert_eq!(all(&store, AuditFilter { workspace: other_workspace(), ..filter() }).await, []);
}

pub async fn filters_narrow_the_log(backend: &dyn Backend) {
    let store = backend.open().await;
    let key = ApiKeyId::generate(&Ids);
    let by_key = Actor::ApiKey { id: key.clone() };
    let records = vec![
        record(at(0), by_key.clone(), "agents.create", "agent_1"),
        record(at(1), Actor::Operator, "agents.create", "agent_2"),
        record(at(2), by_key.clone(), "keys.revoke", "apikey_1"),
        record(at(3), by_key, "agents.create", "agent_1"),
    ];
    store.audit().append(records.clone()).await.expect("written");
    let places = |found: Vec<AuditRecord>| -> Vec<usize> {
        found.iter().map(|f| records.iter().position(|r| r == f).expect("one of them")).collect()
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(places(all(&store, AuditFilter { actor: text(key.as_str()), ..filter() }).await), [3, 2, 0]);
    assert_eq!(places(all(&store, AuditFilter { action: text("agents.create"), ..filter() }).await), [3, 1, 0]);
    assert_eq!(places(all(&store, AuditFilter { resource: text("agent_1"), ..filter() }).await), [3, 0]);
    let both = AuditFilter { actor: text("operator"), action: text("agents.create"), ..filter() };
    assert_eq!(places(all(&store, both).await), [1]);
    let created = TimeRange { gt: Some(at(0)), lte: Some(at(2)), ..TimeRange::default() };
    assert_eq!(places(all(&store, AuditFilter { created, ..filter() }).await), [2, 1]);
}

pub async fn the_oldest_leave_first_and_by_age_alone(backend: &dyn Backend) {
    let store = backend.open().await;
    let records: Vec<AuditRecord> = (0..5).map(|n| record(at(n), Actor::Unknown, "agents.create", "")).collect();
    store.audit().append(records.clone()).await.expect("written");
    assert_eq!(store.audit().expire(at(3), 2).await.expect("expired"), 2);
    assert_eq!(all(&store, filter()).await.len(), 3);
    assert_eq!(store.audit().expire(at(3), 2).await.expect("expired"), 1);
    assert_eq!(store.audit().expire(at(3), 2).await.expect("expired"), 0);
    assert_eq!(all(&store, filter()).await, [records[4].clone(), records[3].clone()]);
}

pub async fn a_batch_is_written_whole_or_not_at_all(backend: &dyn Backend) {
    let store = backend.open().await;
    let first = record(at(0), Actor::Operator, "agents.create", "agent_1");
    store.audit().append(vec![first.clone()]).await.expect("written");
    let changed = AuditRecord { id: first.id.clone(), ..record(at(1), Actor::Operator, "agents.create", "agent_2") };
    let fresh = record(at(2), Actor::Operator, "agents.create", "agent_3");
    store.audit().append(vec![fresh, changed]).await.expect_err("an entry is written once");
    assert_eq!(all(&store, filter()).await, [first]);
}
