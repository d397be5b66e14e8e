//! MCP servers over real sockets: what is listed, what a call carries, and what it comes to.

#[path = "service/mcp.rs"]
mod mcp;

use loopd_domain::agent::HostTarget;
use loopd_domain::content::{ContentBlock, Source};
use loopd_domain::event::{EffectClass, Outcome};
use loopd_domain::limits::{KEYED_ATTEMPTS_MAX, MCP_TOOLS_MAX, TOOL_RESULT_BYTES_MAX, TOOL_SCHEMA_BYTES_MAX};
use loopd_domain::mcp::McpServer;
use loopd_host_tools::{
    AllowHosts, HostCall, HostResult, HostTools, NoToken, NoTokens, RemoteTools, SessionTools, Token, Tokens,
};
use mcp::{Deed, McpService, tool};
use serde_json::json;
use std::sync::Arc;

fn tools() -> Arc<dyn SessionTools> {
    RemoteTools::new(AllowHosts::Any).expect("a client").for_session(Arc::new(NoTokens))
}

fn server(url: &str) -> McpServer {
    McpServer { name: "shop".to_owned(), url: url.to_owned() }
}

fn call(url: &str, effect: EffectClass) -> HostCall {
    HostCall {
        target: HostTarget::Mcp { server: server(url), tool: "buy".to_owned() },
        effect,
        input: json!({"seat": 7}),
        key: "loopd_abc".to_owned(),
        traceparent: None,
    }
}

fn text(result: &HostResult) -> &str {
    match result.content.as_slice() {
        [ContentBlock::Text { text }] => text,
        other => panic!("not one text: {other:?}"),
    }
}

#[tokio::test]
async fn tools_are_listed_page_by_page() {
    let hints = json!({"readOnlyHint": true});
    let service =
        McpService::start(vec![tool("find", hints.clone()), tool("buy", json!({})), tool("pay", json!({}))]).await;
    let listed = tools().list(&server(&service.url)).await.expect("listed");
    let names: Vec<&str> = listed.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["find", "buy", "pay"]);
    assert_eq!((listed[0].description.as_deref(), &listed[0].annotations), (Some("to find"), &Some(hints)));
    assert_eq!(listed[0].input_schema, json!({"type": "object"}));
}

#[tokio::test]
async fn a_listing_is_bounded() {
    let mut many: Vec<_> = (0..MCP_TOOLS_MAX + 10).map(|n| tool(&format!("t{n}"), json!({}))).collect();
    many[0]["inputSchema"] = json!({"type": "object", "description": "x".repeat(TOOL_SCHEMA_BYTES_MAX)});
    many[1] = many[2].clone();
    let service = McpService::start(many).await;
    let listed = tools().list(&server(&service.url)).await.expect("listed");
    assert_eq!((listed.len(), listed[0].name.as_str(), listed[1].name.as_str()), (MCP_TOOLS_MAX, "t2", "t3"));
}

#[tokio::test]
async fn a_server_that_cannot_be_asked_says_why() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nobody = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    drop(listener);
    let fault = tools().list(&server(&nobody)).await.expect_err("nobody is there");
    assert!(!fault.wants_authentication && fault.message.contains("refused"), "{fault:?}");
    let service = McpService::start(Vec::new()).await;
    service.turns_away(Some(401));
    let fault = tools().list(&server(&service.url)).await.expect_err("turned away");
    assert!(fault.wants_authentication, "{fault:?}");
    // It is tried anew.
    let tools = tools();
    service.turns_away(Some(503));
    assert!(tools.list(&server(&service.url)).await.is_err());
    service.turns_away(None);
    assert!(tools.list(&server(&service.url)).await.is_ok());
}

#[tokio::test]
async fn a_call_carries_its_key_and_calls_share_a_connection() {
    let service = McpService::start(Vec::new()).await;
    let tools = tools();
    for _ in 0..3 {
        let result = tools.call(call(&service.url, EffectClass::Once)).await;
        assert_eq!((text(&result), result.is_error, result.outcome), ("done", false, Outcome::Completed));
    }
    assert_eq!((service.keys(), service.connections()), (vec!["loopd_abc".to_owned(); 3], 1));
    let called = &service.called()[0];
    assert_eq!((called.name.as_str(), &called.arguments), ("buy", &json!({"seat": 7})));
}

#[tokio::test]
async fn results_of_all_kinds_become_content() {
    let service = McpService::start(Vec::new()).await;
    let png = json!({"type": "image", "data": "aGk=", "mimeType": "image/png"});
    let audio = json!({"type": "audio", "data": "aGk=", "mimeType": "audio/wav"});
    let (a, b) = (json!({"type": "text", "text": "a"}), json!({"type": "text", "text": "b"}));
    service.then([
        Deed::Answer(json!({"content": [a, png, audio, b]})),
        Deed::Answer(json!({"content": [], "structuredContent": {"n": 1}})),
        Deed::Answer(json!({"content": [{"type": "text", "text": "x".repeat(2 * TOOL_RESULT_BYTES_MAX)}]})),
        Deed::Answer(json!({"content": [a], "isError": true})),
        Deed::RpcError(-32602, "no seat of that number"),
    ]);
    let tools = tools();
    let result = tools.call(call(&service.url, EffectClass::Once)).await;
    let source = Source::Base64 { media_type: "image/png".to_owned(), data: "aGk=".to_owned() };
    let said = ContentBlock::text("a\n[audio of type `audio/wav`, not shown]\nb");
    assert_eq!(result.content, [said, ContentBlock::Image { source }]);
    let result = tools.call(call(&service.url, EffectClass::Once)).await;
    assert_eq!(text(&result), "{\"n\":1}");
    let result = tools.call(call(&service.url, EffectClass::Once)).await;
    assert!(text(&result).len() <= TOOL_RESULT_BYTES_MAX && text(&result).ends_with("bytes were cut off here]"));
    for told in ["a", "the server answered error -32602: no seat of that number"] {
        let result = tools.call(call(&service.url, EffectClass::Once)).await;
        assert_eq!((text(&result), result.is_error, result.outcome), (told, true, Outcome::Completed));
    }
}

#[tokio::test]
async fn a_lost_answer_means_what_the_class_says() {
    for (effect, outcome, sent) in [
        (EffectClass::Pure, Outcome::Completed, 1),
        (EffectClass::Once, Outcome::Unknown, 1),
        (EffectClass::Keyed, Outcome::Unknown, KEYED_ATTEMPTS_MAX as usize),
    ] {
        let service = McpService::start(Vec::new()).await;
        service.then(vec![Deed::HangUp; KEYED_ATTEMPTS_MAX as usize]);
        let result = tools().call(call(&service.url, effect)).await;
        assert_eq!((result.is_error, result.outcome), (true, outcome), "{effect:?}: {result:?}");
        assert_eq!(service.keys(), vec!["loopd_abc".to_owned(); sent], "{effect:?}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_early_is_noticed_at_once() {
    let service = McpService::start(Vec::new()).await;
    service.then([Deed::EmptyStream]);
    let tools = tools();
    let lost = tools.call(call(&service.url, EffectClass::Once));
    let result = tokio::time::timeout(std::time::Duration::from_secs(10), lost).await.expect("at once");
    assert_eq!(result.outcome, Outcome::Unknown, "{result:?}");
}

#[tokio::test]
async fn a_keyed_call_is_sent_again_until_it_is_answered() {
    let service = McpService::start(Vec::new()).await;
    service.then([Deed::HangUp, Deed::Status(503)]);
    let result = tools().call(call(&service.url, EffectClass::Keyed)).await;
    assert_eq!((text(&result), service.keys().len()), ("done", 3));
    service.then([Deed::Status(503)]);
    let result = tools().call(call(&service.url, EffectClass::Once)).await;
    assert_eq!((result.is_error, result.outcome), (true, Outcome::Completed), "{result:?}");
    assert_eq!(service.keys().len(), 4, "an undeclared call is sent once");
}

#[tokio::test]
async fn what_could_not_be_sent_did_not_happen() {
    let service = McpService::start(Vec::new()).await;
    service.turns_away(Some(401));
    let result = tools().call(call(&service.url, EffectClass::Once)).await;
    assert_eq!((result.is_error, result.outcome), (true, Outcome::NotRun), "{result:?}");
    let tools = RemoteTools::new(AllowHosts::Only(Vec::new())).expect("a client").for_session(Arc::new(NoTokens));
    let result = tools.call(call(&service.url, EffectClass::Once)).await;
    assert!(text(&result).contains("is not among those"), "{result:?}");
    assert!(service.called().is_empty());
}

/// A token that a test changes, or takes away.
struct Hand(std::sync::Mutex<Result<Option<&'static str>, NoToken>>);

#[async_trait::async_trait]
impl Tokens for Hand {
    async fn of(&self, url: &url::Url) -> Result<Option<Token>, NoToken> {
        assert_eq!(url.path(), "/mcp");
        let text = self.0.lock().expect("nobody panics with it").clone()?;
        let token = |text: &str| Token { mark: text.len().to_string(), text: Arc::new(text.to_owned().into()) };
        Ok(text.map(token))
    }
}

#[tokio::test]
async fn a_server_is_shown_the_token_as_it_is_now() {
    let service = McpService::start(vec![tool("buy", json!({}))]).await;
    let hand = Arc::new(Hand(std::sync::Mutex::new(Ok(Some("first")))));
    let has = |token| *hand.0.lock().expect("nobody panics with it") = token;
    let tools = RemoteTools::new(AllowHosts::Any).expect("a client").for_session(hand.clone());
    let all_since = |from: usize| {
        let shown: std::collections::BTreeSet<_> = service.shown()[from..].iter().cloned().collect();
        shown.into_iter().collect::<Vec<_>>()
    };
    tools.list(&server(&service.url)).await.expect("listed");
    let result = tools.call(call(&service.url, EffectClass::Once)).await;
    assert_eq!((text(&result), service.connections()), ("done", 1));
    assert_eq!(all_since(0), [Some("Bearer first".to_owned())]);

    let before = service.shown().len();
    has(Ok(Some("second one")));
    tools.call(call(&service.url, EffectClass::Once)).await;
    assert_eq!(service.connections(), 2, "made anew");
    let calls: Vec<_> = all_since(before);
    assert!(calls.contains(&Some("Bearer second one".to_owned())), "{calls:?}");

    has(Ok(None));
    tools.call(call(&service.url, EffectClass::Once)).await;
    assert_eq!((service.connections(), service.shown().last()), (3, Some(&None)));

    let before = service.called().len();
    has(Err(NoToken("the vault is away".to_owned())));
    let result = tools.call(call(&service.url, EffectClass::Once)).await;
    assert!(result.outcome == Outcome::NotRun && text(&result).contains("the vault is away"), "{result:?}");
    let fault = tools.list(&server(&service.url)).await.expect_err("not asked");
    assert!(fault.message.contains("the vault is away"), "{fault}");
    assert_eq!(service.called().len(), before, "nothing was sent without it");
    assert_eq!(
        format!("{:?}", Token { mark: "m".to_owned(), text: Arc::new("hunter2".to_owned().into()) }),
        "Token(m)"
    );
}
