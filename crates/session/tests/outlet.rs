//! A room's way out: for whom it is served, what the journal says of it, and when it ends.

mod support;

use loopd_domain::SessionId;
use loopd_domain::agent::ToolConfig;
use loopd_domain::environment::{EnvironmentConfig, Networking, Ports};
use loopd_domain::event::{Event, EventBody, RetryStatus};
use loopd_domain::limits::OUTLET_CONNECTIONS_MAX;
use loopd_domain::network::{Connection, ConnectionOutcome};
use loopd_domain::session::{Status, StopReason, TurnSettings};
use loopd_session::StopMode;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::*;
use tokio::io::AsyncReadExt;

/// Turns in which one tool is used that the client runs: a room that lives while nothing happens.
fn waits() -> Value {
    let step = json!({"tools": [{"name": "look", "input": {}}]});
    json!({"steps": [step, {"text": "done"}, {"text": "again"}]})
}

async fn waiting_in(house: &House, room: EnvironmentConfig) -> SessionId {
    let spec = agent(waits(), vec![custom("look")]);
    let made = house.try_create_in(room, spec, "go", TurnSettings::default()).await.expect("created");
    let events = house.until_idle(&made.session.id, 0).await;
    assert!(matches!(stop_reason(&events), StopReason::RequiresAction { .. }));
    made.session.id
}

async fn waiting(house: &House) -> SessionId {
    waiting_in(house, EnvironmentConfig::default()).await
}

/// What a program of the room reads to the end of its connection.
async fn visit(house: &House, session: &SessionId, host: &str) -> String {
    let mut program = house.mishaps.connect(session, host).await.expect("a way out");
    let mut said = String::new();
    program.read_to_string(&mut said).await.expect("an end");
    said
}

fn told(events: &[Event]) -> Vec<Connection> {
    let one = |e: &Event| match &e.body {
        EventBody::NetworkConnection { connection } => Some(connection.clone()),
        _ => None,
    };
    events.iter().filter_map(one).collect()
}

async fn until_told(house: &House, session: &SessionId, host: &str) -> Vec<Event> {
    let is_it =
        |body: &EventBody| matches!(body, EventBody::NetworkConnection { connection } if connection.host == host);
    house.until(session, 0, is_it).await
}

#[tokio::test]
async fn connections_are_served_for_their_session_and_told_by_themselves() {
    let house = House::open(echo()).await;
    let networking = Networking::Limited {
        allowed_hosts: vec!["open.a".to_owned()],
        allow_mcp_servers: false,
        allow_package_managers: false,
    };
    let room = EnvironmentConfig { networking: networking.clone(), ports: Ports(vec![443]), ..Default::default() };
    let (limited, free) = (waiting_in(&house, room).await, waiting(&house).await);
    assert_eq!(visit(&house, &limited, "open.a").await, "welcome");
    assert_eq!(visit(&house, &free, "shut.b").await, "");
    let clients = house.gate.clients.lock().clone();
    assert_eq!((&clients[0].session, &clients[0].networking, &clients[0].ports), (&limited, &networking, &vec![443]));
    assert_eq!((&clients[1].session, &clients[1].networking), (&free, &Networking::Unrestricted));
    assert_eq!(clients[1].ports, [80, 443]);
    // Nothing else is written meanwhile.
    let events = until_told(&house, &limited, "open.a").await;
    assert_eq!(told(&events)[0].outcome, ConnectionOutcome::Done);
    let events = until_told(&house, &free, "shut.b").await;
    assert_eq!(told(&events)[0].outcome.reason(), Some("`shut.b` is not allowed"));
    for session in [&limited, &free] {
        assert_eq!(told(&house.assert_legal(session).await).len(), 1);
    }
}

#[tokio::test]
async fn a_room_without_networking_has_no_way_out() {
    let house = House::open(echo()).await;
    let room = EnvironmentConfig { networking: Networking::None, ..Default::default() };
    let session = waiting_in(&house, room).await;
    assert!(house.mishaps.connect(&session, "open.a").await.is_none());
}

#[tokio::test]
async fn a_connection_is_written_with_what_is_written_anyway() {
    let house = House::open(echo()).await;
    let session = waiting(&house).await;
    assert_eq!(visit(&house, &session, "open.a").await, "welcome");
    let waits = house.session(&session).await.fold.waiting();
    let answer = EventBody::UserCustomToolResult {
        custom_tool_use_id: waits[0].clone(),
        content: Vec::new(),
        is_error: false,
        arguments_digest: None,
    };
    let sent = house.send(&session, vec![answer]).await.expect("accepted");
    let events = house.until_idle(&session, sent.seq).await;
    // In the same entry group as the answer, before it.
    assert_eq!(kinds(&events)[..2], ["loopd.network_connection", "user.custom_tool_result"]);
    assert_eq!(told(&house.assert_legal(&session).await).len(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_down_takes_nothing_along() {
    let house = House::open(echo()).await;
    let session = waiting(&house).await;
    assert_eq!(visit(&house, &session, "panic.a").await, "");
    assert_eq!(visit(&house, &session, "open.b").await, "welcome");
    let events = until_told(&house, &session, "open.b").await;
    assert_eq!(told(&events).iter().map(|c| c.host.as_str()).collect::<Vec<_>>(), ["panic.a", "open.b"]);
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_one_waits() {
    let house = House::open(echo()).await;
    let session = waiting(&house).await;
    let mut held = Vec::new();
    for _ in 0..OUTLET_CONNECTIONS_MAX {
        let mut program = house.mishaps.connect(&session, "hang.a").await.expect("a way out");
        let mut said = [0; 4];
        program.read_exact(&mut said).await.expect("served");
        held.push(program);
    }
    let mut next = house.mishaps.connect(&session, "open.b").await.expect("it waits");
    let mut said = String::new();
    assert!(tokio::time::timeout(Duration::from_millis(50), next.read_to_string(&mut said)).await.is_err());
    assert_eq!(house.gate.open.load(Ordering::Relaxed), OUTLET_CONNECTIONS_MAX);
    // Those that hang do not notice that their program has gone; the room's end ends them.
    drop(held);
    house.mishaps.kill_rooms();
    until_told(&house, &session, "hang.a").await;
    next.read_to_string(&mut said).await.expect("an end");
    assert_eq!((said.as_str(), house.gate.open.load(Ordering::Relaxed)), ("", 0));
}

#[tokio::test]
async fn what_is_cut_because_the_server_goes_is_in_the_journal() {
    for mode in [StopMode::HandOver, StopMode::End] {
        let house = House::open(echo()).await;
        let session = waiting(&house).await;
        let mut program = house.mishaps.connect(&session, "hang.a").await.expect("a way out");
        let mut said = [0; 4];
        program.read_exact(&mut said).await.expect("served");
        house.service.stop(mode).await;
        assert_eq!(program.read(&mut said).await.expect("an end"), 0);
        let events = house.assert_legal(&session).await;
        assert_eq!(told(&events)[0].outcome.reason(), Some("cut"));
    }
}

#[tokio::test]
async fn whoever_was_replaced_serves_nothing_more() {
    let house = House::open(echo()).await;
    let session = waiting(&house).await;
    let mut old = house.mishaps.connect(&session, "hang.a").await.expect("a way out");
    old.read_exact(&mut [0; 4]).await.expect("served");
    // Another process takes the session; this one does not know.
    let next = house.reopen(echo()).await;
    let sent = next.send(&session, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.expect("accepted");
    next.until_idle(&session, sent.seq).await;
    let clients = house.gate.clients.lock().len();
    assert_eq!(visit(&house, &session, "open.a").await, "");
    assert_eq!(house.gate.clients.lock().len(), clients, "egress was not asked");
    // With the first word from its room it learns that it has none, and what it had open is cut.
    house.mishaps.kill_rooms();
    assert_eq!(old.read(&mut [0; 4]).await.expect("an end"), 0);
    assert_eq!(told(&next.assert_legal(&session).await), []);
}

#[tokio::test]
async fn a_session_whose_room_cannot_be_had_ends_its_turn_and_says_why() {
    let house = House::open(echo()).await;
    house.mishaps.no_rooms.store(true, Ordering::Relaxed);
    let script = json!({"steps": [{"text": "hello"}, {"text": "hello"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::RetriesExhausted);
    let told = events.iter().filter_map(|e| match &e.body {
        EventBody::SessionError { error } => Some((error.message.clone(), error.retry_status)),
        _ => None,
    });
    let text = "the environment cannot give a room: package `nosuch` does not install".to_owned();
    assert_eq!(told.collect::<Vec<_>>(), [(text, RetryStatus::Exhausted)]);
    assert_eq!(house.rooms_started.load(Ordering::Relaxed), 1, "it was tried once");
    house.assert_legal(&made.session.id).await;
    // Once it can be had, the session goes on.
    house.mishaps.no_rooms.store(false, Ordering::Relaxed);
    let sent = house.send(&made.session.id, vec![message("again")]).await.expect("accepted");
    assert_eq!(stop_reason(&house.until_idle(&made.session.id, sent.seq).await), StopReason::EndTurn);
    house.assert_legal(&made.session.id).await;
}

#[tokio::test]
async fn a_room_that_cannot_be_had_again_ends_the_turn_that_had_one() {
    let house = House::open(std::sync::Arc::new(|_| Act::Hang)).await;
    let script = json!({"steps": [{"tools": [{"name": "bash", "input": {"command": "x"}}]}, {"text": "done"}]});
    let made = house.create(script, toolset(ToolConfig::default()), "go").await;
    house.until(&made.session.id, 0, |body| matches!(body, EventBody::ModelRequestEnd { .. })).await;
    house.mishaps.no_rooms.store(true, Ordering::Relaxed);
    house.mishaps.kill_rooms();
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::RetriesExhausted);
    assert_eq!(house.session(&made.session.id).await.fold.status, Status::Idle);
    house.assert_legal(&made.session.id).await;
}
