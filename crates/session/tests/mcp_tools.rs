//! MCP tools in a session: listed when a turn begins, pinned for the turn, called under their own events.

mod support;

use loopd_domain::agent::{AgentSpec, PermissionPolicy, Tool};
use loopd_domain::event::{EffectClass, Event, EventBody, Outcome, Verdict};
use loopd_domain::limits::RECOVERIES_MAX;
use loopd_domain::mcp::{McpServer, McpTool, McpToolConfig, McpToolset};
use loopd_domain::session::{SessionAgent, StopReason};
use loopd_domain::{EventId, SessionId};
use loopd_host_tools::ListFault;
use loopd_session::NewSession;
use serde_json::{Value, json};
use support::errands::Errand;
use support::*;

const CALLED: &str = "mcp__shop__buy";

fn spec(script: Value, permission_policy: PermissionPolicy) -> AgentSpec {
    let default_config = McpToolConfig { permission_policy, ..McpToolConfig::default() };
    let toolset = McpToolset { mcp_server_name: "shop".to_owned(), default_config, configs: Vec::new() };
    let server = McpServer { name: "shop".to_owned(), url: "http://127.0.0.1:1/mcp".to_owned() };
    AgentSpec { mcp_servers: vec![server], ..agent(script, vec![Tool::Mcp(toolset)]) }
}

fn buy(description: &str) -> McpTool {
    McpTool {
        name: "buy".to_owned(),
        description: Some(description.to_owned()),
        input_schema: json!({"type": "object"}),
        annotations: None,
    }
}

/// Asks for the tool, then says something; as often as it is played.
fn script() -> Value {
    json!({"steps": [{"tools": [{"name": CALLED, "input": {"seat": 7}}]}, {"text": "bought"}], "repeat": 3})
}

async fn start(house: &House, permission_policy: PermissionPolicy) -> SessionId {
    let new = NewSession {
        workspace: workspace(),
        agent: SessionAgent { id: None, version: 0, spec: spec(script(), permission_policy) },
        environment: None,
        room: Default::default(),
        vaults: Vec::new(),
        title: None,
        metadata: Default::default(),
        inputs: vec![message("go")],
        settings: Default::default(),
    };
    house.service.create(new, None).await.expect("created").session.id
}

async fn journal(house: &House, id: &SessionId) -> Vec<Event> {
    house.assert_legal(id).await
}

fn listings(events: &[Event]) -> Vec<Option<usize>> {
    let one = |e: &Event| match &e.body {
        EventBody::McpToolsListed { tools, .. } => Some(tools.as_ref().map(Vec::len)),
        _ => None,
    };
    events.iter().filter_map(one).collect()
}

fn call_of(events: &[Event]) -> EventId {
    events.iter().find(|e| e.body.kind() == "agent.mcp_tool_use").expect("a call").id.clone()
}

fn outcomes(events: &[Event]) -> Vec<(EventId, Outcome)> {
    let one = |e: &Event| match &e.body {
        EventBody::AgentMcpToolResult { mcp_tool_use_id, outcome, .. } => Some((mcp_tool_use_id.clone(), *outcome)),
        _ => None,
    };
    events.iter().filter_map(one).collect()
}

#[tokio::test]
async fn tools_are_listed_before_the_model_is_asked_and_called_under_their_own_events() {
    let house = House::open(echo()).await;
    house.errands.lists(Ok(vec![buy("v1")]));
    let id = start(&house, PermissionPolicy::AlwaysAllow).await;
    assert_eq!(stop_reason(&house.until_idle(&id, 0).await), StopReason::EndTurn);
    let events = journal(&house, &id).await;
    let place = |kind: &str| events.iter().position(|e| e.body.kind() == kind).expect("there");
    assert!(place("session.status_running") < place("loopd.mcp_tools_listed"));
    assert!(place("loopd.mcp_tools_listed") < place("span.model_request_start"));
    let EventBody::AgentMcpToolUse { mcp_server_name, name, input, called_as, call, .. } =
        &events[place("agent.mcp_tool_use")].body
    else {
        panic!("no call")
    };
    assert_eq!((mcp_server_name.as_str(), name.as_str(), called_as.as_str()), ("shop", "buy", CALLED));
    assert_eq!((input, call.effect), (&json!({"seat": 7}), EffectClass::Once));
    assert_eq!(outcomes(&events), [(call_of(&events), Outcome::Completed)]);
    assert_eq!(house.errands.sent().len(), 1);
}

#[tokio::test]
async fn each_turn_asks_again_and_writes_down_only_what_is_new() {
    let house = House::open(echo()).await;
    house.errands.lists(Ok(vec![buy("v1")]));
    let id = start(&house, PermissionPolicy::AlwaysAllow).await;
    house.until_idle(&id, 0).await;
    for listed in [vec![buy("v1")], vec![buy("v2"), McpTool { name: "sell".to_owned(), ..buy("") }]] {
        house.errands.lists(Ok(listed));
        let accepted = house.send(&id, vec![message("again")]).await.expect("accepted");
        house.until_idle(&id, accepted.seq).await;
    }
    assert_eq!(listings(&journal(&house, &id).await), [Some(1), None, Some(2)]);
    assert_eq!(house.errands.sent().len(), 3);
}

#[tokio::test]
async fn a_server_that_is_away_costs_the_turn_its_tools_and_is_asked_again() {
    let house = House::open(echo()).await;
    house.errands.lists(Err(ListFault::connection("nobody is there")));
    let id = start(&house, PermissionPolicy::AlwaysAllow).await;
    let events = house.until_idle(&id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::EndTurn);
    let error = events.iter().find_map(|e| match &e.body {
        EventBody::SessionError { error } => Some(error.clone()),
        _ => None,
    });
    let error = error.expect("an error");
    assert_eq!((error.kind.as_str(), error.mcp_server_name.as_deref()), ("mcp_connection_failed_error", Some("shop")));
    assert!(error.message.contains("nobody is there"), "{}", error.message);
    assert!(results(&events)[0].0.contains("there is no tool"), "the model called it all the same");
    house.errands.lists(Ok(vec![buy("v1")]));
    let accepted = house.send(&id, vec![message("again")]).await.expect("accepted");
    house.until_idle(&id, accepted.seq).await;
    assert_eq!((house.errands.sent().len(), listings(&journal(&house, &id).await)), (1, vec![Some(0), Some(1)]));
}

#[tokio::test]
async fn a_call_that_asks_waits_for_its_confirmation() {
    let house = House::open(echo()).await;
    house.errands.lists(Ok(vec![buy("v1")]));
    let id = start(&house, PermissionPolicy::AlwaysAsk).await;
    let events = house.until_idle(&id, 0).await;
    let tool_use_id = call_of(&events);
    assert_eq!(stop_reason(&events), StopReason::RequiresAction { event_ids: vec![tool_use_id.clone()] });
    let allow = EventBody::UserToolConfirmation {
        tool_use_id,
        result: Verdict::Allow,
        deny_message: None,
        arguments_digest: None,
    };
    // The definition is pinned: what the server says by now is the next turn's.
    house.errands.lists(Ok(Vec::new()));
    let accepted = house.send(&id, vec![allow]).await.expect("accepted");
    house.until_idle(&id, accepted.seq).await;
    assert_eq!((house.errands.sent().len(), house.errands.asked().len()), (1, 1));
    assert_eq!(outcomes(&journal(&house, &id).await)[0].1, Outcome::Completed);
}

#[tokio::test]
async fn an_interrupt_does_not_wait_for_a_listing() {
    let house = House::open(echo()).await;
    house.errands.hangs_listing();
    let id = start(&house, PermissionPolicy::AlwaysAllow).await;
    house.until(&id, 0, |body| matches!(body, EventBody::StatusRunning { .. })).await;
    house.send(&id, vec![EventBody::UserInterrupt { session_thread_id: None }]).await.expect("accepted");
    assert_eq!(stop_reason(&house.until_idle(&id, 0).await), StopReason::EndTurn);
}

#[tokio::test]
async fn a_new_owner_knows_what_was_listed_and_settles_by_class() {
    let house = House::open(echo()).await;
    house.errands.lists(Ok(vec![buy("v1")]));
    house.errands.does(Errand::Hang);
    let id = start(&house, PermissionPolicy::AlwaysAllow).await;
    house.errands.until_sent(1).await;
    house.errands.does(Errand::Answer);
    let next = house.reopen(echo()).await;
    next.until_idle(&id, 0).await;
    let events = journal(&next, &id).await;
    assert_eq!(outcomes(&events), [(call_of(&events), Outcome::Unknown)]);
    assert_eq!((next.errands.sent().len(), next.errands.asked().len()), (1, 1));
    // The tools are there in the next turn's requests, too, without being written down again.
    let accepted = next.send(&id, vec![message("again")]).await.expect("accepted");
    next.until_idle(&id, accepted.seq).await;
    assert_eq!(listings(&journal(&next, &id).await), [Some(1), None]);
    assert_eq!(next.errands.sent().len(), 2);
}

#[tokio::test]
async fn a_session_that_its_driver_breaks_on_is_parked() {
    let house = House::open(echo()).await;
    let mut spec = spec(script(), PermissionPolicy::AlwaysAllow);
    // Nobody lets two servers of one name in: it stands for any mistake of ours that a session brings about again and again.
    spec.mcp_servers.push(spec.mcp_servers[0].clone());
    let id = house.try_create_with(spec, "go", Default::default()).await.expect("created").session.id;
    for _ in 0..=RECOVERIES_MAX + 1 {
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        // Whoever speaks to the session does not wait for the keeper to take it up again.
        let _ = house.send(&id, vec![message("are you there?")]).await;
    }
    let events = house.until_idle(&id, 0).await;
    assert_eq!(stop_reason(&events), StopReason::RetriesExhausted);
}
