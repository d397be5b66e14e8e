//! What becomes of the room of a session that rests, and which rooms a workspace allows.

mod support;

use loopd_domain::SessionId;
use loopd_domain::agent::ToolConfig;
use loopd_domain::environment::{Accelerator, EnvironmentConfig, Hibernation, Isolation};
use loopd_domain::event::{Event, EventBody};
use loopd_domain::session::{StopReason, TurnSettings};
use loopd_session::{Fork, ServiceError, SessionEdit, StopMode};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use support::{House, agent, echo, kinds, message, stop_reason, toolset, workspace};

fn machine(hibernation: Hibernation) -> EnvironmentConfig {
    EnvironmentConfig { isolation: Isolation::Microvm, hibernation, ..EnvironmentConfig::default() }
}

fn script() -> Value {
    let call = json!([{"name": "bash", "input": {"command": "python3 -i"}}]);
    json!({"steps": [{"tools": call}, {"text": "one"}, {"text": "two"}, {"text": "three"}]})
}

/// A session that has used its shell and rests.
async fn rested(house: &House, room: EnvironmentConfig) -> (SessionId, Vec<Event>) {
    let spec = agent(script(), toolset(ToolConfig::default()));
    let made = house.try_create_in(room, spec, "go", TurnSettings::default()).await.expect("created");
    let id = made.session.id;
    let events = house.until_idle(&id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    (id, events)
}

fn is_asleep(house: &House, id: &SessionId) -> bool {
    house.directory.path().join("sessions").join(id.as_str()).join("asleep").exists()
}

/// What the journal is told of rooms.
fn rooms(events: &[Event]) -> Vec<(Isolation, Option<Accelerator>, bool)> {
    let told = |event: &Event| match event.body {
        EventBody::RoomStarted { isolation, accelerator, woken, .. } => Some((isolation, accelerator, woken)),
        _ => None,
    };
    events.iter().filter_map(told).collect()
}

fn restarts(events: &[Event]) -> usize {
    kinds(events).iter().filter(|kind| **kind == "loopd.room_restarted").count()
}

async fn next_turn(house: &House, id: &SessionId) -> Vec<Event> {
    let sent = house.send(id, vec![message("go on")]).await.expect("taken");
    house.until_idle(id, sent.seq).await
}

#[tokio::test]
async fn a_machine_sleeps_through_a_restart_and_goes_on() {
    for mode in [StopMode::HandOver, StopMode::End] {
        let house = House::open(echo()).await;
        let (id, events) = rested(&house, machine(Hibernation::Memory)).await;
        assert_eq!(rooms(&events), [(Isolation::Microvm, Some(Accelerator::Emulation), false)]);
        assert!(!is_asleep(&house, &id));
        house.service.stop(mode).await;
        assert!(is_asleep(&house, &id), "{mode:?}");
        let house = house.reopen(echo()).await;
        let title = SessionEdit { title: Some(Some("new".to_owned())), ..SessionEdit::default() };
        house.service.edit(&workspace(), &id, title).await.expect("edited");
        assert!(is_asleep(&house, &id), "who asks for no work does not wake it");
        let events = next_turn(&house, &id).await;
        assert_eq!(house.rooms_started.load(Ordering::Relaxed), 0);
        assert_eq!(rooms(&events), [(Isolation::Microvm, Some(Accelerator::Emulation), true)]);
        assert_eq!(restarts(&events), 0, "its shell is the one that it was");
        assert!(!is_asleep(&house, &id));
        // The room is told of once.
        assert_eq!(rooms(&next_turn(&house, &id).await), []);
        house.assert_legal(&id).await;
    }
}

#[tokio::test]
async fn without_memory_kept_the_room_ends_and_the_model_is_told() {
    let house = House::open(echo()).await;
    let (id, _) = rested(&house, machine(Hibernation::Workspace)).await;
    house.service.stop(StopMode::End).await;
    assert!(!is_asleep(&house, &id));
    let house = house.reopen(echo()).await;
    let events = next_turn(&house, &id).await;
    assert_eq!((rooms(&events).len(), restarts(&events)), (1, 1));
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn a_room_that_cannot_be_suspended_costs_its_processes_and_nothing_else() {
    let house = House::open(echo()).await;
    let (id, _) = rested(&house, machine(Hibernation::Memory)).await;
    house.mishaps.failing_suspensions.store(1, Ordering::Relaxed);
    house.service.stop(StopMode::End).await;
    assert_eq!((is_asleep(&house, &id), house.mishaps.alive.load(Ordering::Relaxed)), (false, 0));
    let house = house.reopen(echo()).await;
    let events = next_turn(&house, &id).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    assert_eq!((restarts(&events), house.rooms_started.load(Ordering::Relaxed)), (1, 1));
    house.assert_legal(&id).await;
}

#[tokio::test]
async fn nothing_sleeps_for_a_session_that_has_ended() {
    let house = House::open(echo()).await;
    let (archived, _) = rested(&house, machine(Hibernation::Memory)).await;
    let (deleted, _) = rested(&house, machine(Hibernation::Memory)).await;
    house.service.stop(StopMode::End).await;
    assert!(is_asleep(&house, &archived) && is_asleep(&house, &deleted));
    let house = house.reopen(echo()).await;
    house.service.archive(&workspace(), &archived).await.expect("archived");
    house.service.delete(&workspace(), &deleted).await.expect("deleted");
    house.service.stop(StopMode::End).await;
    assert!(!is_asleep(&house, &archived) && !is_asleep(&house, &deleted));
    assert_eq!(house.mishaps.alive.load(Ordering::Relaxed), 0);
}

async fn require(house: &House, isolation: Isolation) {
    house.store.workspaces().require(&workspace(), isolation).await.expect("written").expect("there");
}

fn refusal<T>(outcome: Result<T, ServiceError>) -> String {
    match outcome {
        Err(ServiceError::Refused(told)) => told,
        Err(other) => panic!("not a refusal but {other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn a_workspace_lets_no_weaker_room_come_to_use() {
    let house = House::open(echo()).await;
    let (weak, _) = rested(&house, EnvironmentConfig::default()).await;
    require(&house, Isolation::Microvm).await;
    let spec = || agent(script(), toolset(ToolConfig::default()));
    let settings = TurnSettings::default;
    let fork = Fork { event_id: None, title: None, metadata: None, workspace: true };
    let told = [
        refusal(house.try_create_in(EnvironmentConfig::default(), spec(), "go", settings()).await),
        refusal(house.try_create_in(EnvironmentConfig::default(), spec(), "", settings()).await),
        // Its room lives, and is not used any more.
        refusal(house.send(&weak, vec![message("go on")]).await),
        refusal(house.service.fork(&workspace(), &weak, fork, None).await),
    ];
    for told in told {
        assert_eq!(
            told,
            "`environment.isolation` is `namespaces`; accepted: `microvm`, as workspace `default` requires"
        );
    }
    let interrupt = EventBody::UserInterrupt { session_thread_id: None };
    house.send(&weak, vec![interrupt]).await.expect("what starts nothing is taken");
    let (strong, events) = rested(&house, machine(Hibernation::Workspace)).await;
    assert_eq!(rooms(&events).len(), 1);
    house.assert_legal(&strong).await;
    require(&house, Isolation::Namespaces).await;
    assert_eq!(stop_reason(&next_turn(&house, &weak).await), StopReason::EndTurn);
}

#[tokio::test]
async fn a_turn_that_was_under_way_gets_no_weaker_room_either() {
    let house = House::open(echo()).await;
    let slow = json!({"steps": [{"text": "one", "delay_ms": 30_000}]});
    let spec = agent(slow, toolset(ToolConfig::default()));
    let room = EnvironmentConfig::default();
    let made = house.try_create_in(room, spec, "go", TurnSettings::default()).await.expect("created");
    let id = made.session.id;
    house.until(&id, 0, |body| matches!(body, EventBody::ModelRequestStart { .. })).await;
    require(&house, Isolation::Microvm).await;
    let house = house.reopen(echo()).await;
    let events = house.until_idle(&id, 0).await;
    let refused = events.iter().any(|event| match &event.body {
        EventBody::SessionError { error } => error.message.contains("accepted: `microvm`"),
        _ => false,
    });
    assert!(refused, "{:?}", kinds(&events));
    assert_eq!(house.rooms_started.load(Ordering::Relaxed), 0);
    house.assert_legal(&id).await;
}
