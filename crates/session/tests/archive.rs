//! Sessions copied, carried away and back, proved, and with something taken out of them.

mod support;

use loopd_domain::agent::{PermissionPolicy, ToolConfig};
use loopd_domain::event::{Event, EventBody, Verdict};
use loopd_domain::session::StopReason;
use loopd_domain::{EventId, SessionId};
use loopd_session::archive::Compression;
use loopd_session::{Fork, Forked, ServiceError, Verification};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use support::*;

fn talk() -> Value {
    json!({"steps": [{"text": "looking", "tools": [{"name": "bash", "input": {"command": "ls"}}]}, {"text": "done"}], "repeat": 9})
}

fn as_it_is() -> Fork {
    Fork { event_id: None, title: None, metadata: None, workspace: true }
}

fn workspace_of(house: &House, id: &SessionId) -> PathBuf {
    house.directory.path().join("sessions").join(id.as_str()).join("workspace")
}

/// A session that has done a turn, with a file.
async fn settled(house: &House) -> SessionId {
    let made = house.create(talk(), toolset(ToolConfig::default()), "a secret").await;
    house.until_idle(&made.session.id, 0).await;
    let files = workspace_of(house, &made.session.id);
    std::fs::create_dir_all(&files).expect("it works");
    std::fs::write(files.join("note"), "kept").expect("it works");
    made.session.id
}

async fn fork(house: &House, id: &SessionId, fork: Fork) -> Result<Forked, ServiceError> {
    house.service.fork(&workspace(), id, fork, None).await
}

async fn verified(house: &House, id: &SessionId) -> Verification {
    house.service.verify(&workspace(), id).await.expect("it works")
}

async fn archive(house: &House, id: &SessionId, compression: Compression) -> Vec<u8> {
    let mut chunks = house.service.export(&workspace(), id, compression).await.expect("it works");
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        bytes.extend_from_slice(&chunk.expect("whole"));
    }
    bytes
}

async fn import(house: &House, bytes: &[u8]) -> Result<SessionId, ServiceError> {
    let (sender, imported) = house.service.import(workspace(), |_| Ok(()));
    let imported = tokio::spawn(imported);
    for chunk in bytes.chunks(10_000) {
        // A refused archive is not read to its end.
        let _ = sender.send(Ok(chunk.to_vec().into())).await;
    }
    drop(sender);
    imported.await.expect("it works").map(|session| session.id)
}

/// Every model request is what the journal says, and the loop decides again what it did.
async fn assert_replays(house: &House, id: &SessionId) {
    let report = house.service.replay(&workspace(), id).await.expect("it works");
    assert_eq!((report.replay.divergence, report.replay.unannounced_takeovers), (None, 0));
    let digests = report.request_digests;
    assert!(digests.requests > 0 && digests.equal + digests.not_comparable == digests.requests, "{digests:?}");
}

#[tokio::test]
async fn a_fork_goes_its_own_way_with_files_of_its_own() {
    let house = House::open(echo()).await;
    let id = settled(&house).await;
    let source = house.assert_legal(&id).await;
    let forked = fork(&house, &id, as_it_is()).await.unwrap();
    let new = &forked.session.id;
    assert_eq!((forked.at.as_ref(), forked.later_events), (source.last().map(|e| &e.id), 0));
    assert_eq!(std::fs::read_to_string(workspace_of(&house, new).join("note")).unwrap(), "kept");
    let events = house.assert_legal(new).await;
    assert_eq!(kinds(&events[..source.len()]), kinds(&source));
    let EventBody::SessionForked { from_session_id, source_hash, .. } = &events[source.len()].body else {
        panic!("{events:?}")
    };
    assert_eq!((from_session_id, source_hash), (&id, &verified(&house, &id).await.head));
    let text = serde_json::to_string(&events).unwrap();
    assert!(
        !text.contains(&id.as_str()[5..]) || text.matches(id.as_str()).count() == 1,
        "only the fork names its source"
    );
    assert!(verified(&house, new).await.valid);

    let sent = house.send(new, vec![message("and now?")]).await.unwrap();
    house.until_idle(new, sent.seq).await;
    assert_replays(&house, new).await;
    assert_eq!(house.assert_legal(&id).await.len(), source.len(), "the source is as it was");
    std::fs::write(workspace_of(&house, new).join("note"), "changed").unwrap();
    assert_eq!(std::fs::read_to_string(workspace_of(&house, &id).join("note")).unwrap(), "kept");
    let again = fork(&house, new, Fork { workspace: false, ..as_it_is() }).await.unwrap();
    assert!(!workspace_of(&house, &again.session.id).exists() && again.files.is_none());
    assert_replays(&house, &again.session.id).await;
}

#[tokio::test]
async fn a_fork_whose_files_are_being_copied_is_no_orphan() {
    let house = House::open(echo()).await;
    let id = settled(&house).await;
    let sessions = house.directory.path().join("sessions");
    house.mishaps.files_wait.store(true, Ordering::Relaxed);
    let service = house.service.clone();
    let forking = tokio::spawn(async move { service.fork(&workspace(), &id, as_it_is(), None).await });
    while std::fs::read_dir(&sessions).expect("it works").count() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let report = house.service.sweep().await.expect("it works");
    house.mishaps.files_wait.store(false, Ordering::Relaxed);
    let forked = forking.await.expect("no panic").expect("forked").session;
    assert_eq!((report.seen, report.directories_removed), (2, 0));
    assert_eq!(std::fs::read_to_string(workspace_of(&house, &forked.id).join("note")).expect("copied"), "kept");
}

#[tokio::test]
async fn a_fork_of_what_is_deleted_meanwhile_is_refused() {
    let house = House::open(echo()).await;
    let id = settled(&house).await;
    let sessions = house.directory.path().join("sessions");
    house.mishaps.files_wait.store(true, Ordering::Relaxed);
    let (service, source) = (house.service.clone(), id.clone());
    let forking = tokio::spawn(async move { service.fork(&workspace(), &source, as_it_is(), None).await });
    while std::fs::read_dir(&sessions).expect("it works").count() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    house.service.delete(&workspace(), &id).await.expect("deleted");
    house.mishaps.files_wait.store(false, Ordering::Relaxed);
    let told = forking.await.expect("no panic").expect_err("its files are gone");
    assert!(matches!(told, ServiceError::Absent(_) | ServiceError::Files(_)), "{told}");
    assert_eq!(std::fs::read_dir(&sessions).expect("it works").count(), 0, "nothing is left of it");
}

#[tokio::test]
async fn an_archive_of_what_is_deleted_meanwhile_is_not_whole() {
    let house = House::open(echo()).await;
    let id = settled(&house).await;
    house.mishaps.files_wait.store(true, Ordering::Relaxed);
    let mut chunks = house.service.export(&workspace(), &id, Compression::None).await.expect("it works");
    // The journal is read by then, and the files are waited for.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    house.service.delete(&workspace(), &id).await.expect("deleted");
    house.mishaps.files_wait.store(false, Ordering::Relaxed);
    let mut fault = None;
    while let Some(chunk) = chunks.recv().await {
        fault = chunk.err();
    }
    assert!(fault.expect("it is cut off").to_string().contains("deleted"));
}

#[tokio::test]
async fn a_fork_begins_where_the_session_rested() {
    let house = House::open(echo()).await;
    let id = settled(&house).await;
    let first = house.assert_legal(&id).await;
    let sent = house.send(&id, vec![message("more")]).await.unwrap();
    house.until_idle(&id, sent.seq).await;
    let at = |event: &Event| Fork { event_id: Some(event.id.clone()), ..as_it_is() };
    let rest = first.last().unwrap();
    let forked = fork(&house, &id, at(rest)).await.unwrap();
    assert_eq!((forked.at, forked.later_events > 0), (Some(rest.id.clone()), true));
    assert_eq!(house.assert_legal(&forked.session.id).await.len(), first.len() + 1);
    let all = house.assert_legal(&id).await;
    let middle = all.iter().rfind(|e| matches!(e.body, EventBody::AgentToolUse { .. })).unwrap();
    let told = fork(&house, &id, at(middle)).await.unwrap_err().to_string();
    assert!(told.contains(middle.id.as_str()) && told.contains(rest.id.as_str()), "{told}");
    let nowhere = Fork { event_id: Some(EventId::parse("id", "sevt_nowhere").unwrap()), ..as_it_is() };
    assert!(fork(&house, &id, nowhere).await.unwrap_err().to_string().contains("sevt_nowhere"));
}

#[tokio::test]
async fn a_fork_of_a_running_session_is_of_its_last_rest() {
    let house = House::open(std::sync::Arc::new(|_| Act::Hang)).await;
    let made = house.create(talk(), toolset(ToolConfig::default()), "").await;
    let id = &made.session.id;
    house.send(id, vec![message("go")]).await.unwrap();
    house.until(id, 0, |body| matches!(body, EventBody::AgentToolUse { .. })).await;
    let forked = fork(&house, id, as_it_is()).await.unwrap();
    assert!(forked.at.is_none() && forked.later_events > 0);
    assert_eq!(kinds(&house.assert_legal(&forked.session.id).await), ["loopd.session_forked"]);
}

#[tokio::test]
async fn a_fork_keeps_what_waits_for_the_client() {
    let house = House::open(echo()).await;
    let asks = ToolConfig { permission_policy: PermissionPolicy::AlwaysAsk, ..ToolConfig::default() };
    let made = house.create(talk(), toolset(asks), "go").await;
    let id = &made.session.id;
    house.until_idle(id, 0).await;
    let forked = fork(&house, id, as_it_is()).await.unwrap().session;
    for (session, verdict) in [(id, Verdict::Allow), (&forked.id, Verdict::Deny)] {
        let call = house.session(session).await.fold.waiting().remove(0);
        let answer = EventBody::UserToolConfirmation {
            tool_use_id: call,
            result: verdict,
            deny_message: None,
            arguments_digest: None,
        };
        let sent = house.send(session, vec![answer]).await.unwrap();
        assert_eq!(stop_reason(&house.until_idle(session, sent.seq).await), StopReason::EndTurn);
        assert_replays(&house, session).await;
    }
}

#[tokio::test]
async fn a_session_comes_back_from_its_archive() {
    let house = House::open(echo()).await;
    let id = settled(&house).await;
    let (before, proof) = (house.session(&id).await, verified(&house, &id).await);
    for compression in [Compression::None, Compression::Gzip] {
        let bytes = archive(&house, &id, compression).await;
        assert!(matches!(import(&house, &bytes).await, Err(ServiceError::Exists(_))));
        house.service.delete(&workspace(), &id).await.unwrap();
        assert!(!workspace_of(&house, &id).exists());
        assert_eq!(import(&house, &bytes).await.unwrap(), id);
        assert_eq!((house.session(&id).await.fold, verified(&house, &id).await), (before.fold.clone(), proof.clone()));
        assert_eq!(std::fs::read_to_string(workspace_of(&house, &id).join("note")).unwrap(), "kept");
    }
    let sent = house.send(&id, vec![message("still there?")]).await.unwrap();
    house.until_idle(&id, sent.seq).await;
    assert_replays(&house, &id).await;
}

#[tokio::test]
async fn a_turn_in_an_archive_goes_on() {
    let hanging = House::open(std::sync::Arc::new(|_| Act::Hang)).await;
    let made = hanging.create(talk(), toolset(ToolConfig::default()), "go").await;
    let id = &made.session.id;
    hanging.until(id, 0, |body| matches!(body, EventBody::AgentToolUse { .. })).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let bytes = archive(&hanging, id, Compression::None).await;
    let other = House::open(echo()).await;
    assert_eq!(import(&other, &bytes).await.unwrap(), *id);
    let events = other.until_idle(id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert!(kinds(&events).contains(&"loopd.session_recovered"));
    other.assert_legal(id).await;
}

#[tokio::test]
async fn what_is_no_archive_makes_no_session() {
    let house = House::open(echo()).await;
    let id = settled(&house).await;
    let bytes = archive(&house, &id, Compression::None).await;
    house.service.delete(&workspace(), &id).await.unwrap();
    let refusal = async |bytes: &[u8]| match import(&house, bytes).await {
        Err(ServiceError::Refused(told)) => told,
        other => panic!("{other:?}"),
    };
    for cut in [0, 100, 600, bytes.len() / 2, bytes.len() - 2_000] {
        let told = refusal(&bytes[..cut]).await;
        assert!(told.contains("not whole") || told.contains("cannot be taken"), "{cut}: {told}");
    }
    // Another word of the same length: the chain does not hold.
    let mut forged = bytes.clone();
    let at = forged.windows(8).position(|w| w == b"a secret").expect("it was said");
    forged[at..at + 8].copy_from_slice(b"no crime");
    let told = refusal(&forged).await;
    assert!(told.contains("is not what was written"), "{told}");
    assert!(house.service.get(&workspace(), &id).await.is_err() && !workspace_of(&house, &id).exists());
    for (path, kind, told) in [
        ("../../escape", tar::EntryType::Regular, "leads out"),
        ("/etc/escape", tar::EntryType::Regular, "leads out"),
        ("secrets/key", tar::EntryType::Regular, "in no part"),
        ("workspace/device", tar::EntryType::Char, "accepted: files"),
        ("workspace/hard", tar::EntryType::Link, "accepted: files"),
        ("workspace/note", tar::EntryType::Regular, "twice"),
    ] {
        let refused = refusal(&with_entry(&bytes, path, kind)).await;
        assert!(refused.contains(told), "{path}: {refused}");
    }
    assert_eq!(import(&house, &bytes).await.expect("an archive"), id, "nothing is left in the way");
}

/// The archive with one more file before its end.
fn with_entry(archive: &[u8], path: &str, kind: tar::EntryType) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(archive).entries().expect("an archive") {
        let entry = entry.expect("an archive");
        let header = entry.header().clone();
        if header.path().expect("an archive").as_os_str() == "end.json" {
            let mut odd = tar::Header::new_gnu();
            odd.set_entry_type(kind);
            odd.set_size(0);
            odd.set_mode(0o644);
            odd.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            odd.set_cksum();
            out.append(&odd, std::io::empty()).expect("an archive");
        }
        out.append(&header, entry).expect("an archive");
    }
    out.into_inner().expect("an archive")
}

#[tokio::test]
async fn what_was_redacted_is_gone_and_the_proof_stays() {
    let house = House::open(echo()).await;
    let id = settled(&house).await;
    let head = verified(&house, &id).await;
    let events = house.assert_legal(&id).await;
    let said = |events: &[Event], kind| events.iter().find(|e| e.body.kind() == kind).expect("it is there").id.clone();
    let redact =
        async |event: EventId| house.service.redact(&workspace(), &id, event, Some("asked to".to_owned())).await;
    for kind in ["user.message", "agent.tool_use", "agent.tool_result"] {
        redact(said(&events, kind)).await.expect("an archive");
    }
    let again = redact(said(&events, "user.message")).await.unwrap();
    assert_eq!(again.entries, 1);
    let proof = verified(&house, &id).await;
    assert!(proof.valid && proof.redacted.len() == 3, "{proof:?}");
    assert_eq!(proof.entries, head.entries + 3, "each redaction is told once");
    let text = serde_json::to_string(&house.assert_legal(&id).await).unwrap();
    assert!(!text.contains("a secret") && text.contains("[redacted]"));
    for (event, told) in [("session.status_idle", "nothing that somebody said"), ("span.model_request_end", "nothing")]
    {
        let refused = redact(said(&events, event)).await.unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
    }
    // The driver that has lived through it does not send the old text either.
    let sent = house.send(&id, vec![message("what did I say?")]).await.unwrap();
    house.until_idle(&id, sent.seq).await;
    assert_replays(&house, &id).await;
    // And it is as gone from an archive and a fork.
    let bytes = archive(&house, &id, Compression::None).await;
    assert!(!bytes.windows(8).any(|w| w == b"a secret"));
    house.service.delete(&workspace(), &id).await.unwrap();
    import(&house, &bytes).await.unwrap();
    assert_eq!(verified(&house, &id).await.redacted.len(), 3);
    assert!(verified(&house, &fork(&house, &id, as_it_is()).await.unwrap().session.id).await.valid);
}

#[tokio::test]
async fn an_input_that_waited_is_redacted_in_both_places_and_an_open_turn_in_none() {
    let house = House::open(echo()).await;
    let asks = ToolConfig { permission_policy: PermissionPolicy::AlwaysAsk, ..ToolConfig::default() };
    let made = house.create(talk(), toolset(asks), "go").await;
    let id = &made.session.id;
    let events = house.until_idle(id, 0).await;
    let queued = house.send(id, vec![message("the waiting secret")]).await.unwrap().inputs.remove(0).id;
    let redact = async |event: &EventId| house.service.redact(&workspace(), id, event.clone(), None).await;
    let call = events.iter().find(|e| matches!(e.body, EventBody::AgentToolUse { .. })).unwrap();
    assert!(redact(&call.id).await.unwrap_err().to_string().contains("open"));
    let call = call.id.clone();
    let allow = EventBody::UserToolConfirmation {
        tool_use_id: call,
        result: Verdict::Allow,
        deny_message: None,
        arguments_digest: None,
    };
    let sent = house.send(id, vec![allow]).await.unwrap();
    house.until(id, sent.seq, |body| matches!(body, EventBody::StatusIdle { .. })).await;
    while house.session(id).await.fold.turn.is_some() {
        house.send(id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let redacted = redact(&queued).await.unwrap();
    assert_eq!(redacted.entries, 2);
    let text = serde_json::to_string(&house.assert_legal(id).await).unwrap();
    assert!(!text.contains("the waiting secret"));
    house.service.archive(&workspace(), id).await.unwrap();
    let first = events.iter().find(|e| e.body.kind() == "user.message").unwrap();
    redact(&first.id).await.unwrap();
    assert!(verified(&house, id).await.valid, "also of a session that has ended");
}
