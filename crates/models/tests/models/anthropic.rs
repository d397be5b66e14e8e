//! The Messages wire: bodies as they are sent, answers as they are read, and a conversation of two turns.

use crate::setup::{ANTHROPIC_KEY, Setup, assistant, fixture, request, result, text, thinking, tool_use, tools, user};
use loopd_domain::agent::Effort;
use loopd_domain::content::{ContentBlock, Source};
use loopd_domain::conversation::Block;
use loopd_domain::event::AnswerStop;
use loopd_domain::session::StopDetails;
use loopd_domain::usage::Usage;
use loopd_models::testing::Reply;
use loopd_models::{Delta, ErrorClass, ModelRequest};
use serde_json::{Value, json};

const MODEL: &str = "anthropic/claude-opus-5-5";

/// The body that a request becomes, without sending it.
async fn body(request: &ModelRequest) -> Value {
    let setup = Setup::new().await;
    let provider = setup.registry.resolve(&request.model).expect("resolves").provider;
    serde_json::from_slice(&provider.body(request).expect("a body")).expect("JSON")
}

fn mark() -> Value {
    json!({"type": "ephemeral"})
}

#[tokio::test]
async fn a_whole_body() {
    let image = ContentBlock::Image { source: Source::Base64 { media_type: "image/png".into(), data: "iVBO".into() } };
    let linked = ContentBlock::Image { source: Source::Url { url: "https://x.example/a.png".into() } };
    let pdf = ContentBlock::Document {
        source: Source::Base64 { media_type: "application/pdf".into(), data: "JVBE".into() },
        title: Some("T".into()),
        context: None,
    };
    let note = ContentBlock::Document {
        source: Source::Base64 { media_type: "text/csv".into(), data: "YSxi".into() },
        title: None,
        context: None,
    };
    let mut request = request(MODEL);
    request.system = Some("Be brief.".into());
    request.tools = tools();
    request.model.temperature = Some(0.5);
    request.messages = vec![
        user(vec![
            text("look"),
            Block::Content(image.clone()),
            Block::Content(linked),
            Block::Content(pdf),
            Block::Content(note),
        ]),
        assistant(vec![
            thinking("anthropic", json!({"type": "thinking", "thinking": "hm", "signature": "s1"})),
            thinking("openai", json!({"reasoning": "foreign"})),
            thinking("anthropic", json!({"type": "redacted_thinking", "data": "d"})),
            text("  "),
            text("I will."),
            tool_use("toolu_1", "bash", json!({"z": 1, "a": [2]})),
            Block::ToolUse {
                provider_call_id: "toolu_2".into(),
                name: "read".into(),
                input: json!({}),
                raw_arguments: Some("{\"fi".into()),
                native: None,
            },
        ]),
        user(vec![
            result("toolu_1", vec![ContentBlock::text("out"), image], false),
            result("toolu_2", vec![ContentBlock::text("")], true),
            Block::System("Mind the time.".into()),
        ]),
    ];
    let expected = json!({
        "model": "claude-opus-5-5", "stream": true, "max_tokens": 4096, "temperature": 0.5,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": mark()}],
        "tools": [
            {"name": "read", "description": "the read tool", "input_schema": {"type": "object", "properties": {"b": {}, "a": {}}}},
            {"name": "bash", "description": "the bash tool", "input_schema": {"type": "object", "properties": {"b": {}, "a": {}}}, "cache_control": mark()},
        ],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}, "title": "T"},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a,b"}, "cache_control": mark()},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s1"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "text", "text": "I will."},
                {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"z": 1, "a": [2]}},
                {"type": "tool_use", "id": "toolu_2", "name": "read", "input": {"malformed_arguments": "{\"fi"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [
                    {"type": "text", "text": "out"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                ]},
                {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": true},
                {"type": "text", "text": "<system-message>\nMind the time.\n</system-message>", "cache_control": mark()},
            ]},
        ],
    });
    // As text: the order of fields is part of what a prompt cache compares.
    assert_eq!(body(&request).await.to_string(), expected.to_string());
}

#[tokio::test]
async fn at_most_four_marks_however_long_the_history() {
    let mut request = request(MODEL);
    request.system = Some("s".into());
    request.tools = tools();
    request.messages = (0..9).flat_map(|_| [user(vec![text("q")]), assistant(vec![text("a")])]).collect();
    let body = body(&request).await.to_string();
    assert_eq!(body.matches("cache_control").count(), 4);
}

#[tokio::test]
async fn effort_in_the_models_own_words() {
    let mut new = request(MODEL);
    new.model.effort = Some(Effort::Xhigh);
    let sent = body(&new).await;
    assert_eq!(
        (&sent["thinking"], &sent["output_config"]),
        (&json!({"type": "adaptive"}), &json!({"effort": "xhigh"}))
    );
    let mut old = request("anthropic/claude-haiku-4-5");
    old.model.effort = Some(Effort::High);
    let sent = body(&old).await;
    assert_eq!(
        (&sent["thinking"], sent.get("output_config")),
        (&json!({"type": "enabled", "budget_tokens": 2048}), None)
    );
}

#[tokio::test]
async fn extra_fields_stand_above_ours_but_not_above_what_loopd_relies_on() {
    let mut request = request(MODEL);
    request.model.effort = Some(Effort::Low);
    request.model.extra = json!({"max_tokens": 7, "output_config": {"effort": "max"}, "top_k": 3}).as_object().cloned();
    let sent = body(&request).await;
    assert_eq!(
        (&sent["max_tokens"], &sent["output_config"]["effort"], &sent["top_k"]),
        (&json!(7), &json!("max"), &json!(3))
    );
    for field in ["stream", "messages", "model"] {
        request.model.extra = json!({field: false}).as_object().cloned();
        let fault = Setup::new().await.call(&request).await.expect_err("reserved");
        assert_eq!(fault.class, ErrorClass::BadRequest);
        assert!(fault.message.contains(&format!("`model.extra.{field}`")), "{fault}");
    }
}

#[tokio::test]
async fn files_are_refused_with_their_name_and_nothing_is_sent() {
    let setup = Setup::new().await;
    let mut request = request(MODEL);
    let file = ContentBlock::Document { source: Source::File { file_id: "file_9".into() }, title: None, context: None };
    request.messages = vec![user(vec![result("toolu_1", vec![file], false)])];
    let fault = setup.call(&request).await.expect_err("no files yet");
    assert_eq!(fault.class, ErrorClass::BadRequest);
    assert!(fault.message.contains("`file_9`") && fault.message.contains("accepted"), "{fault}");
    assert!(setup.fake.requests().is_empty());
}

#[tokio::test]
async fn thinking_tools_and_unknown_blocks_are_read_in_order() {
    let setup = Setup::new().await;
    setup.fake.plan(Reply::stream(fixture("anthropic_thinking_tools.sse")));
    let (answer, deltas) = setup.call_with_deltas(&request(MODEL)).await;
    let answer = answer.expect("an answer");
    let expected = vec![
        thinking(
            "anthropic",
            json!({"type": "thinking", "thinking": "Let me look — twice. 🔎", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds+/="}),
        ),
        thinking(
            "anthropic",
            json!({"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpP"}),
        ),
        text("Ich prüfe beides."),
        thinking(
            "anthropic",
            json!({"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "weather"}}),
        ),
        thinking(
            "anthropic",
            json!({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01", "content": [{"type": "web_search_result", "title": "W", "url": "https://w.example", "encrypted_content": "abc", "page_age": null}]}),
        ),
        tool_use("toolu_01T1x", "bash", json!({"command": "ls -l"})),
        Block::ToolUse {
            provider_call_id: "toolu_02".into(),
            name: "read".into(),
            input: json!({"file_path": "a"}),
            raw_arguments: None,
            native: Some(loopd_domain::event::NativeBlock {
                dialect: "anthropic".into(),
                block: json!({"caller": {"type": "code_execution_20260120", "tool_id": "srvtoolu_9"}}),
            }),
        },
    ];
    assert_eq!(answer.blocks, expected);
    assert_eq!(answer.stop, AnswerStop::ToolUse);
    assert_eq!(answer.model.as_deref(), Some("claude-opus-4-6"));
    assert_eq!(answer.request_id.as_deref(), Some("req_fake"));
    let usage = Usage {
        input_tokens: 12,
        output_tokens: 89,
        cache_read_input_tokens: 4_000,
        cache_creation_input_tokens: 300,
        cache_creation_1h_input_tokens: 100,
        reasoning_tokens: 40,
    };
    assert_eq!(answer.usage, usage);
    let thinking_at = |index| Delta::ThinkingStart { index };
    let said = |index, text: &str| Delta::Text { index, text: text.to_owned() };
    let tool = |index, name: &str| Delta::ToolStart { index, name: name.to_owned() };
    let expected = [
        thinking_at(0),
        thinking_at(1),
        Delta::TextStart { index: 2 },
        said(2, "Ich prüfe "),
        said(2, "beides."),
        thinking_at(3),
        thinking_at(4),
        tool(5, "bash"),
        tool(6, "read"),
    ];
    assert_eq!(deltas, expected);
}

#[tokio::test]
async fn the_second_turn_sends_every_block_back_untouched() {
    let setup = Setup::new().await;
    let first = setup
        .exchange(&request(MODEL), Reply::stream(fixture("anthropic_thinking_tools.sse")))
        .await
        .expect("an answer");
    let mut second = request(MODEL);
    second.messages.push(assistant(first.blocks));
    second.messages.push(user(vec![
        result("toolu_01T1x", vec![ContentBlock::text("total 0")], false),
        result("toolu_02", vec![ContentBlock::text("no such file")], true),
    ]));
    setup.exchange(&second, Reply::stream(fixture("anthropic_refusal.sse"))).await.expect("an answer");
    let sent = setup.sent();
    let expected = [
        r#"{"type":"thinking","thinking":"Let me look — twice. 🔎","signature":"EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds+/="}"#,
        r#"{"type":"redacted_thinking","data":"EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIwxtE3rAFBa8cr3qpP"}"#,
        r#"{"type":"text","text":"Ich prüfe beides."}"#,
        r#"{"type":"server_tool_use","id":"srvtoolu_01","name":"web_search","input":{"query":"weather"}}"#,
        r#"{"type":"web_search_tool_result","tool_use_id":"srvtoolu_01","content":[{"type":"web_search_result","title":"W","url":"https://w.example","encrypted_content":"abc","page_age":null}]}"#,
        r#"{"type":"tool_use","id":"toolu_01T1x","name":"bash","input":{"command":"ls -l"}}"#,
        r#"{"type":"tool_use","id":"toolu_02","name":"read","input":{"file_path":"a"},"caller":{"type":"code_execution_20260120","tool_id":"srvtoolu_9"}}"#,
    ];
    let blocks: Vec<String> =
        sent["messages"][1]["content"].as_array().expect("blocks").iter().map(Value::to_string).collect();
    assert_eq!(blocks, expected);
    let requests = setup.fake.requests();
    assert_eq!(requests[1].header("x-api-key"), Some(ANTHROPIC_KEY));
    assert_eq!(requests[1].header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(requests[1].path, "/v1/messages");
}

#[tokio::test]
async fn a_refusal_has_its_details_and_no_empty_text() {
    let setup = Setup::new().await;
    let answer =
        setup.exchange(&request(MODEL), Reply::stream(fixture("anthropic_refusal.sse"))).await.expect("an answer");
    assert_eq!((answer.blocks, answer.stop), (vec![], AnswerStop::Refusal));
    let details = StopDetails::Refusal { category: Some("cyber".into()), explanation: Some("It could harm.".into()) };
    assert_eq!(answer.stop_details, Some(details));
}

#[tokio::test]
async fn a_call_that_was_cut_keeps_what_was_written() {
    let setup = Setup::new().await;
    let answer =
        setup.exchange(&request(MODEL), Reply::stream(fixture("anthropic_cut_tool.sse"))).await.expect("an answer");
    assert_eq!(answer.stop, AnswerStop::MaxTokens);
    let Block::ToolUse { input, raw_arguments, .. } = &answer.blocks[0] else { panic!("{:?}", answer.blocks) };
    assert_eq!((input, raw_arguments.as_deref()), (&json!({}), Some(r#"{"file_path": "a.txt", "content": "half of"#)));
}

#[tokio::test]
async fn an_error_in_mid_stream_has_class_usage_and_request_id() {
    let setup = Setup::new().await;
    let fault = setup
        .exchange(&request(MODEL), Reply::stream(fixture("anthropic_overloaded.sse")))
        .await
        .expect_err("broken off");
    assert_eq!((fault.class, fault.request_id.as_deref()), (ErrorClass::Overloaded, Some("req_fake")));
    assert_eq!((fault.usage.input_tokens, fault.usage.output_tokens), (25, 2));
}

#[tokio::test]
async fn every_stop_reason() {
    let setup = Setup::new().await;
    let reasons = [
        ("end_turn", AnswerStop::EndTurn),
        ("stop_sequence", AnswerStop::EndTurn),
        ("max_tokens", AnswerStop::MaxTokens),
        ("model_context_window_exceeded", AnswerStop::MaxTokens),
        ("pause_turn", AnswerStop::Pause),
        ("refusal", AnswerStop::Refusal),
        ("something_new", AnswerStop::EndTurn),
    ];
    for (reason, expected) in reasons {
        let document = json!({"type": "message", "role": "assistant", "model": "m", "stop_reason": reason,
            "content": [{"type": "text", "text": "x"}], "usage": {"input_tokens": 3, "output_tokens": 1}});
        let answer =
            setup.exchange(&request(MODEL), Reply::json(200, &document)).await.expect("one document is an answer too");
        assert_eq!((answer.stop, answer.blocks, answer.usage.input_tokens), (expected, vec![text("x")], 3), "{reason}");
    }
}

#[tokio::test]
async fn events_out_of_order_are_garbage() {
    let setup = Setup::new().await;
    for stream in [
        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{}}\n\n",
        "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "data: {\"type\":\"message_stop\"}\n\n",
        "data: nonsense\n\n",
        "event: x\ndata: {\"type\":\"content_block_start\",\"index\":0}\n\n",
    ] {
        let fault = setup.exchange(&request(MODEL), Reply::stream(stream)).await.expect_err("garbage");
        assert_eq!(fault.class, ErrorClass::Garbage, "{stream}");
    }
}
