//! The Chat Completions wire: bodies for OpenAI and for the others, answers as the field sends them, two turns.

use crate::setup::{
    FixedClock, OPENAI_KEY, Setup, assistant, fixture, request, result, text, thinking, tool_use, tools, user,
};
use loopd_domain::agent::Effort;
use loopd_domain::content::{ContentBlock, Source};
use loopd_domain::conversation::Block;
use loopd_domain::event::{AnswerStop, NativeBlock};
use loopd_domain::session::StopDetails;
use loopd_domain::usage::Usage;
use loopd_models::testing::Reply;
use loopd_models::{Answer, Delta, ErrorClass, ModelRequest, ModelsConfig, Registry};
use serde_json::{Value, json};
use std::sync::Arc;

const MODEL: &str = "openai/gpt-5";

/// The body for api.openai.com.
fn openai_body(request: &ModelRequest) -> Value {
    let env = |name: &str| (name == "OPENAI_API_KEY").then(|| OPENAI_KEY.to_owned());
    let registry = Registry::from_config(ModelsConfig::default(), &env, Arc::new(FixedClock)).expect("a registry");
    let provider = registry.resolve(&request.model).expect("resolves").provider;
    serde_json::from_slice(&provider.body(request).expect("a body")).expect("JSON")
}

/// The body for any other server.
async fn compatible_body(request: &ModelRequest) -> Value {
    let setup = Setup::new().await;
    let provider = setup.registry.resolve(&request.model).expect("resolves").provider;
    serde_json::from_slice(&provider.body(request).expect("a body")).expect("JSON")
}

async fn read(name: &str) -> Answer {
    let setup = Setup::new().await;
    setup.exchange(&request(MODEL), Reply::stream(fixture(name))).await.expect("an answer")
}

/// The answer to a stream of these chunks' deltas, then a finish reason and the end of the body, without `[DONE]`.
async fn read_deltas(deltas: &[Value]) -> Answer {
    let setup = Setup::new().await;
    let mut stream = String::new();
    for delta in deltas {
        stream += &format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}));
    }
    stream += &format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    setup.exchange(&request(MODEL), Reply::stream(stream)).await.expect("an answer")
}

fn calls(answer: &Answer) -> Vec<(String, String, Value)> {
    let calls = answer.blocks.iter().filter_map(|block| match block {
        Block::ToolUse { provider_call_id, name, input, raw_arguments: None, .. } => {
            Some((provider_call_id.clone(), name.clone(), input.clone()))
        }
        _ => None,
    });
    calls.collect()
}

fn history() -> ModelRequest {
    let image = ContentBlock::Image { source: Source::Base64 { media_type: "image/png".into(), data: "iVBO".into() } };
    let pdf = ContentBlock::Document {
        source: Source::Base64 { media_type: "application/pdf".into(), data: "JVBE".into() },
        title: Some("a.pdf".into()),
        context: None,
    };
    let mut request = request(MODEL);
    request.system = Some("Be brief.".into());
    request.tools = tools();
    request.model.effort = Some(Effort::High);
    request.messages = vec![
        user(vec![text("look"), Block::Content(image.clone()), Block::Content(pdf)]),
        assistant(vec![
            thinking("openai", json!({"reasoning_content": "hm"})),
            thinking("anthropic", json!({"type": "thinking", "thinking": "foreign"})),
            tool_use("call_1", "bash", json!({"z": 1, "a": 2})),
            Block::ToolUse {
                provider_call_id: "call_2".into(),
                name: "read".into(),
                input: json!({}),
                raw_arguments: Some("{\"fi".into()),
                native: Some(NativeBlock { dialect: "openai".into(), block: json!({"extra_content": {"s": 1}}) }),
            },
        ]),
        user(vec![
            result("call_1", vec![ContentBlock::text("out"), image], false),
            result("call_2", vec![], true),
            Block::System("Mind the time.".into()),
        ]),
    ];
    request
}

fn expected_messages() -> Value {
    json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
        ]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "bash", "arguments": "{\"z\":1,\"a\":2}"}},
            {"id": "call_2", "type": "function", "function": {"name": "read", "arguments": "{\"malformed_arguments\":\"{\\\"fi\"}"}},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "out\n(attached in the next message)"},
        {"role": "tool", "tool_call_id": "call_2", "content": "[error] (no output)"},
        {"role": "user", "content": [
            {"type": "text", "text": "From the result of tool call call_1:"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
            {"type": "text", "text": "<system-message>\nMind the time.\n</system-message>"},
        ]},
    ])
}

#[tokio::test]
async fn a_whole_body_for_openai() {
    let expected = json!({
        "model": "gpt-5", "stream": true, "stream_options": {"include_usage": true}, "max_completion_tokens": 4096,
        "reasoning_effort": "high", "prompt_cache_key": "sesn_1",
        "tools": [
            {"type": "function", "function": {"name": "read", "description": "the read tool", "parameters": {"type": "object", "properties": {"b": {}, "a": {}}}}},
            {"type": "function", "function": {"name": "bash", "description": "the bash tool", "parameters": {"type": "object", "properties": {"b": {}, "a": {}}}}},
        ],
        "messages": expected_messages(),
    });
    assert_eq!(openai_body(&history()).to_string(), expected.to_string());
}

#[tokio::test]
async fn other_servers_get_the_old_names_and_their_own_fields_back() {
    let sent = compatible_body(&history()).await;
    assert_eq!(
        (&sent["max_tokens"], sent.get("max_completion_tokens"), sent.get("prompt_cache_key")),
        (&json!(4096), None, None)
    );
    let mut expected = expected_messages();
    expected[2]["tool_calls"][1]["extra_content"] = json!({"s": 1});
    expected[2]["reasoning_content"] = json!("hm");
    assert_eq!(sent["messages"].to_string(), expected.to_string());
}

#[tokio::test]
async fn documents_are_text_where_they_can_be() {
    let document = |source, title: Option<&str>| {
        Block::Content(ContentBlock::Document { source, title: title.map(str::to_owned), context: None })
    };
    let mut request = request(MODEL);
    let data = |media_type: &str, data: &str| Source::Base64 { media_type: media_type.into(), data: data.into() };
    request.messages = vec![user(vec![document(data("text/csv", "YSxi"), Some("t.csv"))])];
    assert_eq!(openai_body(&request)["messages"][0]["content"], "Document: t.csv\na,b");
    request.messages = vec![user(vec![document(Source::Url { url: "https://x.example/d".into() }, None)])];
    assert_eq!(openai_body(&request)["messages"][0]["content"], "Document at https://x.example/d");
    request.messages = vec![user(vec![document(data("application/zip", "//8="), None)])];
    let fault = Setup::new().await.call(&request).await.expect_err("no text");
    assert_eq!(fault.class, ErrorClass::BadRequest);
    assert!(fault.message.contains("`application/zip`"), "{fault}");
}

#[tokio::test]
async fn interleaved_calls_text_and_usage() {
    let setup = Setup::new().await;
    setup.fake.plan(Reply::stream(fixture("openai_tools.sse")));
    let (answer, deltas) = setup.call_with_deltas(&request(MODEL)).await;
    let answer = answer.expect("an answer");
    let expected = vec![
        text("Ich prüfe beides. 🔎"),
        tool_use("call_A", "bash", json!({"command": "ls -l"})),
        tool_use("call_B", "read", json!({"file_path": "a"})),
    ];
    assert_eq!(answer.blocks, expected);
    assert_eq!((answer.stop, answer.model.as_deref()), (AnswerStop::ToolUse, Some("gpt-5-2025-08-07")));
    let usage = Usage {
        input_tokens: 12,
        output_tokens: 89,
        cache_read_input_tokens: 4_000,
        cache_creation_input_tokens: 300,
        reasoning_tokens: 40,
        ..Usage::default()
    };
    assert_eq!(answer.usage, usage);
    assert_eq!(deltas.first(), Some(&Delta::TextStart { index: 0 }));
    assert_eq!(deltas.last(), Some(&Delta::ToolStart { index: 2, name: "read".into() }));
    let requests = setup.fake.requests();
    assert_eq!(requests[0].header("authorization"), Some(format!("Bearer {OPENAI_KEY}").as_str()));
    assert_eq!(requests[0].path, "/v1/chat/completions");
}

#[tokio::test]
async fn reasoning_goes_back_as_it_came() {
    let setup = Setup::new().await;
    for (name, field, expected) in [
        ("openai_deepseek.sse", "reasoning_content", json!("First think.")),
        (
            "openai_openrouter.sse",
            "reasoning_details",
            json!([
                {"type": "reasoning.text", "text": "Let me think", "format": "anthropic-claude-v1", "index": 0, "signature": "sig=="},
                {"type": "reasoning.encrypted", "data": "enc", "id": "r1", "format": "anthropic-claude-v1", "index": 1},
            ]),
        ),
    ] {
        let first = setup.exchange(&request(MODEL), Reply::stream(fixture(name))).await.expect("an answer");
        assert!(matches!(first.blocks[0], Block::Thinking(_)), "{:?}", first.blocks);
        let mut second = request(MODEL);
        second.messages.extend([assistant(first.blocks), user(vec![text("go on")])]);
        setup.call(&second).await.expect("an answer");
        let message = &setup.sent()["messages"][1];
        assert_eq!(message[field], expected, "{name}");
        let others =
            ["reasoning", "reasoning_content", "reasoning_details"].into_iter().filter(|other| *other != field);
        assert!(others.into_iter().all(|other| message.get(other).is_none()), "{message}");
        assert!(openai_body(&second)["messages"][1].get(field).is_none(), "api.openai.com does not take it");
    }
    let usage = read("openai_deepseek.sse").await.usage;
    assert_eq!((usage.input_tokens, usage.cache_read_input_tokens, usage.reasoning_tokens), (36, 64, 5));
}

#[tokio::test]
async fn thought_signatures_of_calls_go_back() {
    let setup = Setup::new().await;
    let first = setup.exchange(&request(MODEL), Reply::stream(fixture("openai_gemini.sse"))).await.expect("an answer");
    assert_eq!(first.stop, AnswerStop::ToolUse, "calls speak for themselves");
    let made: Vec<String> = calls(&first).into_iter().map(|(id, _, _)| id).collect();
    assert_eq!(made, ["call_1_0", "call_1_1"], "ids are made where the server gives none");
    let mut second = request(MODEL);
    second.messages.push(assistant(first.blocks));
    setup.call(&second).await.expect("an answer");
    let sent = &setup.sent()["messages"][1]["tool_calls"];
    assert_eq!(sent[0]["extra_content"], json!({"google": {"thought_signature": "c2ln"}}));
    assert!(sent[1].get("extra_content").is_none());
}

#[tokio::test]
async fn calls_as_servers_really_send_them() {
    let ls = json!({"command": "ls"});
    let whole = |id: Option<&str>, index: Option<u64>, arguments: Value| {
        let mut call = json!({"type": "function", "function": {"name": "bash", "arguments": arguments}});
        if let Some(id) = id {
            call["id"] = json!(id);
        }
        if let Some(index) = index {
            call["index"] = json!(index);
        }
        json!({"tool_calls": [call]})
    };
    let arguments = || json!(ls.to_string());
    let cases: Vec<(&str, Vec<Value>, Vec<&str>)> = vec![
        (
            "whole, no index",
            vec![whole(Some("a"), None, arguments()), whole(Some("b"), None, arguments())],
            vec!["a", "b"],
        ),
        (
            "index 0 for all",
            vec![whole(Some("a"), Some(0), arguments()), whole(Some("b"), Some(0), arguments())],
            vec!["a", "b"],
        ),
        (
            "neither id nor index",
            vec![whole(None, None, arguments()), whole(None, None, arguments())],
            vec!["call_1_0", "call_1_1"],
        ),
        ("arguments as an object", vec![whole(Some("a"), Some(0), ls.clone())], vec!["a"]),
        (
            "name and id on every piece",
            vec![whole(Some("a"), Some(0), json!("{\"command\":")), whole(Some("a"), Some(0), json!("\"ls\"}"))],
            vec!["a"],
        ),
        (
            "name on every piece, no id, no index",
            vec![whole(None, None, json!("{\"command\":")), whole(None, None, json!("\"ls\"}"))],
            vec!["call_1_0"],
        ),
        (
            "the old function_call",
            vec![json!({"function_call": {"name": "bash", "arguments": ls.to_string()}})],
            vec!["call_1_0"],
        ),
        (
            "several calls in one piece",
            vec![json!({"tool_calls": [
                {"index": 0, "id": "a", "function": {"name": "bash", "arguments": ls.to_string()}},
                {"index": 1, "id": "b", "function": {"name": "bash", "arguments": ls.to_string()}},
            ]})],
            vec!["a", "b"],
        ),
    ];
    for (case, deltas, ids) in cases {
        let answer = read_deltas(&deltas).await;
        let expected: Vec<_> = ids.iter().map(|id| ((*id).to_owned(), "bash".to_owned(), ls.clone())).collect();
        assert_eq!(calls(&answer), expected, "{case}");
        assert_eq!(answer.stop, AnswerStop::ToolUse, "{case}");
    }
    let answer = read_deltas(&[whole(Some("a"), Some(0), Value::Null)]).await;
    assert_eq!(calls(&answer), [("a".to_owned(), "bash".to_owned(), json!({}))]);
}

#[tokio::test]
async fn malformed_arguments_are_kept_as_written() {
    let call = json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "bash", "arguments": "{\"command\": ls}"}}]});
    let answer = read_deltas(&[call]).await;
    let Block::ToolUse { input, raw_arguments, .. } = &answer.blocks[0] else { panic!("{:?}", answer.blocks) };
    assert_eq!((input, raw_arguments.as_deref()), (&json!({}), Some("{\"command\": ls}")));
}

#[tokio::test]
async fn refusals_and_filters() {
    let answer = read("openai_refusal.sse").await;
    assert_eq!((answer.stop, answer.blocks), (AnswerStop::Refusal, vec![text("I cannot help.")]));
    let details = StopDetails::Refusal { category: None, explanation: Some("I cannot help.".into()) };
    assert_eq!(answer.stop_details, Some(details));
    let setup = Setup::new().await;
    for (reason, expected) in [
        ("content_filter", AnswerStop::Refusal),
        ("length", AnswerStop::MaxTokens),
        ("stop", AnswerStop::EndTurn),
        ("odd", AnswerStop::EndTurn),
    ] {
        let document = json!({"object": "chat.completion", "model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 1},
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": reason}]});
        let answer =
            setup.exchange(&request(MODEL), Reply::json(200, &document)).await.expect("one document is an answer too");
        assert_eq!((answer.stop, answer.blocks, answer.usage.input_tokens), (expected, vec![text("x")], 3), "{reason}");
    }
}

#[tokio::test]
async fn a_document_with_calls_and_content_parts() {
    let setup = Setup::new().await;
    let message = json!({"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "reasoning": "why",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}]});
    let document = json!({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]});
    let answer = setup.exchange(&request(MODEL), Reply::json(200, &document)).await.expect("an answer");
    let expected = vec![thinking("openai", json!({"reasoning": "why"})), text("ab"), tool_use("c1", "bash", json!({}))];
    assert_eq!(answer.blocks, expected);
}
