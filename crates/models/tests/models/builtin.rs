//! The scripted models, through the same port as all others.

use crate::setup::{Setup, assistant, request, result, text, thinking, tool_use, tools, user};
use loopd_domain::agent::Builtin;
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::Block;
use loopd_domain::event::AnswerStop;
use loopd_models::{Delta, ErrorClass, ModelRequest};
use serde_json::json;
use std::sync::Arc;

const FENCES: &str = "Please run\n```sh\nls -l\n```\nand\n```\necho hi\ndate\n```";

fn script(text: &str, messages: usize) -> ModelRequest {
    let mut request = request("builtin/script");
    request.system = Some(text.to_owned());
    request.messages = (0..messages)
        .map(|n| if n % 2 == 0 { user(vec![crate::setup::text("q")]) } else { assistant(vec![]) })
        .collect();
    request
}

#[tokio::test]
async fn shell_runs_every_fence_then_quotes_the_results() {
    let setup = Setup::new().await;
    let mut turn = request("builtin/shell");
    turn.tools = Arc::new(vec![Builtin::Bash.spec()]);
    turn.messages = vec![user(vec![text(FENCES)])];
    let (answer, deltas) = setup.call_with_deltas(&turn).await;
    let answer = answer.expect("an answer");
    let said = "I will run 2 blocks of commands; the first one starts with `ls -l`.";
    let expected = vec![
        text(said),
        tool_use("call_1_0", "bash", json!({"command": "ls -l"})),
        tool_use("call_1_1", "bash", json!({"command": "echo hi\ndate"})),
    ];
    assert_eq!((&answer.blocks, answer.stop), (&expected, AnswerStop::ToolUse));
    assert_eq!(deltas[1], Delta::Text { index: 0, text: said.into() });
    assert_eq!(deltas.len(), 4);
    turn.messages.push(assistant(answer.blocks));
    turn.messages.push(user(vec![
        result("call_1_0", vec![ContentBlock::text("total 0\n")], false),
        result("call_1_1", vec![ContentBlock::text("not found")], true),
    ]));
    let answer = setup.call(&turn).await.expect("an answer");
    let expected = "`ls -l` printed:\n\n```\ntotal 0\n```\n\n`echo hi` failed:\n\n```\nnot found\n```\n\n";
    assert_eq!((answer.blocks, answer.stop), (vec![text(expected)], AnswerStop::EndTurn));
}

#[tokio::test]
async fn shell_says_what_it_is_and_what_it_lacks() {
    let setup = Setup::new().await;
    let said = async |messages: &str, tools| {
        let request = ModelRequest { tools, messages: vec![user(vec![text(messages)])], ..request("builtin/shell") };
        let answer = setup.call(&request).await.expect("an answer");
        assert_eq!(answer.stop, AnswerStop::EndTurn);
        format!("{:?}", answer.blocks)
    };
    assert!(said("hello", tools()).await.contains("scripted model"));
    assert!(said(FENCES, Arc::new(vec![])).await.contains("no `bash` tool"));
}

#[tokio::test]
async fn script_plays_its_steps_and_ends() {
    let setup = Setup::new().await;
    let play = r#"{"steps":[
        {"thinking":"hm","text":"a","tools":[{"name":"bash","input":{"command":"ls"}},{"name":"x","raw_input":"{oops"}],"usage":{"input_tokens":7}},
        {"text":"got {{last_result}}","stop":"max_tokens"}],"then":"end"}"#;
    let first = setup.call(&script(play, 1)).await.expect("an answer");
    let expected = vec![
        thinking("builtin", json!({"type": "thinking", "thinking": "hm"})),
        text("a"),
        tool_use("call_0_0", "bash", json!({"command": "ls"})),
        Block::ToolUse {
            provider_call_id: "call_0_1".into(),
            name: "x".into(),
            input: json!({}),
            raw_arguments: Some("{oops".into()),
            native: None,
        },
    ];
    assert_eq!((&first.blocks, first.stop, first.usage.input_tokens), (&expected, AnswerStop::ToolUse, 7));
    let mut second = script(play, 2);
    second.messages.push(user(vec![result("call_0_0", vec![ContentBlock::text("x.txt")], false)]));
    let second = setup.call(&second).await.expect("an answer");
    assert_eq!((second.blocks, second.stop), (vec![text("got x.txt")], AnswerStop::MaxTokens));
    let last = setup.call(&script(play, 5)).await.expect("an answer");
    assert_eq!((last.blocks, last.stop), (vec![text("end")], AnswerStop::EndTurn));
    assert!(last.usage.input_tokens > 0 && last.usage.output_tokens == 1, "{:?}", last.usage);
}

#[tokio::test]
async fn script_fails_as_told_then_answers() {
    let setup = Setup::new().await;
    let play = r#"{"steps":[{"text":"ok","fault":{"class":"overloaded","status":529,"retry_after_ms":10,"message":"busy","after_text":"We","times":2}}]}"#;
    for _ in 0..2 {
        let (answer, deltas) = setup.call_with_deltas(&script(play, 1)).await;
        let fault = answer.expect_err("a fault");
        assert_eq!((fault.class, fault.status, fault.retry_after_ms), (ErrorClass::Overloaded, Some(529), Some(10)));
        assert_eq!((fault.message.as_str(), deltas.len()), ("busy", 2));
    }
    assert_eq!(setup.call(&script(play, 1)).await.expect("an answer").blocks, vec![text("ok")]);
}

#[tokio::test]
async fn script_takes_its_time() {
    let setup = Setup::new().await;
    let start = tokio::time::Instant::now();
    let play = r#"{"steps":[{"text":"one two three","delay_ms":40,"chunk_delay_ms":20}]}"#;
    let (answer, deltas) = setup.call_with_deltas(&script(play, 1)).await;
    answer.expect("an answer");
    assert!(start.elapsed().as_millis() >= 100, "{:?}", start.elapsed());
    assert_eq!(deltas.len(), 4);
}

#[tokio::test]
async fn a_prompt_that_is_no_script_is_a_bad_request() {
    let setup = Setup::new().await;
    let fault = setup.call(&script(r#"{"steps":[{"text":1}]}"#, 1)).await.expect_err("no script");
    assert_eq!(fault.class, ErrorClass::BadRequest);
    assert!(fault.message.contains("line 1 column 19") && fault.message.contains("accepted"), "{fault}");
}

#[tokio::test]
async fn a_digest_covers_what_was_asked() {
    let setup = Setup::new().await;
    let provider = setup.registry.resolve(&crate::setup::model("builtin/script")).expect("resolves").provider;
    let base = script("{}", 5);
    let body = |request: &ModelRequest| provider.body(request).expect("a body");
    let mut bodies = vec![body(&base), body(&script("[]", 5)), body(&script("{}", 7))];
    let mut longer = base.clone();
    longer.messages[0] = user(vec![text("a longer question")]);
    bodies.push(body(&longer));
    let mut other = base.clone();
    *other.messages.last_mut().expect("some") = user(vec![text("Q")]);
    bodies.push(body(&other));
    assert_eq!(body(&base), bodies[0]);
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 5);
}
