//! Secrets of a session's credentials: what its programs get instead, and that they come back into nothing that is kept or
//! shown.

mod support;

use loopd_domain::SessionId;
use loopd_domain::agent::{PermissionPolicy, ToolConfig};
use loopd_domain::event::{EffectClass, EventBody};
use loopd_session::{FollowFrom, Followed};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use support::errands::errand;
use support::*;

const SECRET: &str = "s3cret-token-of-twenty";
const PLACE: &str = "PLACEHOLDEROFTHETOKEN1";

async fn house(tools: Tools) -> House {
    let house = House::open(tools).await;
    house.secrets.pairs.lock().push((SECRET, PLACE));
    house
}

fn bash_then_done() -> serde_json::Value {
    json!({"steps": [{"tools": [{"name": "bash", "input": {"command": "x"}}]}, {"text": "done"}]})
}

fn output_of_a_tool(item: &Followed) -> Option<&str> {
    match item {
        Followed::ToolOutput { text, .. } => Some(text),
        _ => None,
    }
}

fn text_of_a_message(item: &Followed) -> Option<&str> {
    match item {
        Followed::MessageText { text, .. } => Some(text),
        _ => None,
    }
}

/// Of what somebody who follows a turn is shown, the texts that are picked, joined.
async fn shown_of_a_turn(house: &House, id: &SessionId, pick: fn(&Followed) -> Option<&str>) -> String {
    let mut follower = house.service.follow(&workspace(), id, FollowFrom::After(0)).await.expect("a follower");
    house.send(id, vec![message("go")]).await.expect("accepted");
    let mut shown = String::new();
    let watch = async {
        while let Some(item) = follower.next().await {
            let item = item.expect("an item");
            shown.push_str(pick(&item).unwrap_or_default());
            if matches!(&item, Followed::Event(event) if matches!(event.body, EventBody::StatusIdle { .. })) {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(15), watch).await.expect("the turn ends");
    shown
}

#[tokio::test]
async fn a_result_of_the_room_is_masked_before_anybody_sees_it() {
    let pieces = [&format!("token {}", &SECRET[..7]), &SECRET[7..9], &SECRET[9..], " and more\n"].map(str::to_owned);
    let whole = pieces.concat();
    let house = house(Arc::new(move |_| Act::Show(pieces.to_vec()))).await;
    let made = house.create(bash_then_done(), toolset(ToolConfig::default()), "").await;
    let id = made.session.id;
    let shown = shown_of_a_turn(&house, &id, output_of_a_tool).await;
    let masked = whole.replace(SECRET, PLACE);
    assert!(!shown.is_empty() && masked.starts_with(&shown), "{shown:?}");
    let events = house.assert_legal(&id).await;
    assert_eq!(results(&events)[0].0, masked);
    assert!(!serde_json::to_string(&events).expect("serialises").contains(SECRET));
}

#[tokio::test]
async fn a_result_of_the_hosts_is_masked() {
    let house = house(echo()).await;
    let script = json!({"steps": [{"tools": [{"name": "ask", "input": {"q": 1}}]}, {"text": "done"}]});
    house.secrets.pairs.lock().push(("\"q\"", "XXX"));
    let tools = vec![errand("ask", EffectClass::Once, PermissionPolicy::AlwaysAllow)];
    let made = house.create(script, tools, "go").await;
    let events = house.until_idle(&made.session.id, 0).await;
    assert_eq!(results(&events)[0].0, "{XXX:1}");
}

#[tokio::test]
async fn a_models_answer_is_masked_with_its_arguments_and_its_previews() {
    let house = house(echo()).await;
    let step = json!({"text": format!("it is {SECRET}!"), "tools": [{"name": "bash", "input": {"command": SECRET}}]});
    let made = house.create(json!({"steps": [step, {"text": "done"}]}), toolset(ToolConfig::default()), "").await;
    let id = made.session.id;
    let shown = shown_of_a_turn(&house, &id, text_of_a_message).await;
    assert_eq!(shown, format!("it is {PLACE}!done"));
    let events = house.assert_legal(&id).await;
    assert_eq!(results(&events)[0].0, json!({"command": PLACE}).to_string());
    assert!(!serde_json::to_string(&events).expect("serialises").contains(SECRET));
}

#[tokio::test]
async fn without_a_mask_results_are_withheld_and_the_turn_goes_on() {
    let house = house(Arc::new(|_| Act::Show(vec![SECRET.to_owned()]))).await;
    house.secrets.away.store(true, Ordering::Relaxed);
    let made = house.create(bash_then_done(), toolset(ToolConfig::default()), "go").await;
    house.until_idle(&made.session.id, 0).await;
    let events = house.assert_legal(&made.session.id).await;
    let (text, _) = &results(&events)[0];
    assert!(text.contains("withheld") && text.contains("the vault is away"), "{text}");
    assert!(!serde_json::to_string(&events).expect("serialises").contains(SECRET));
    let is_told = |e: &loopd_domain::event::Event| matches!(&e.body, EventBody::SessionError { error } if error.message.contains("no credentials in their environment"));
    assert!(events.iter().any(is_told), "{:?}", kinds(&events));
}

#[tokio::test]
async fn programs_get_placeholders_and_no_name_that_would_change_them() {
    let house = house(echo()).await;
    *house.secrets.variables.lock() =
        vec![("GITHUB_TOKEN", PLACE), ("PATH", "/tmp"), ("LD_PRELOAD", "x"), ("https_proxy", "y")];
    let made = house.create(bash_then_done(), toolset(ToolConfig::default()), "go").await;
    house.until_idle(&made.session.id, 0).await;
    let given = house.mishaps.variables.lock().clone();
    assert_eq!(given, [[("GITHUB_TOKEN".to_owned(), PLACE.to_owned())]]);
}
