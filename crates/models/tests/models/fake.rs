//! The fake provider plays the same script over both wires as `builtin/script` plays without any.

use crate::setup::{Setup, request, result, text, user};
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::Block;
use loopd_models::ErrorClass;
use loopd_models::testing::{Delivery, FakeProvider, Options, Reply, Script, Step};

const PLAY: &str = r#"{"steps":[
    {"thinking":"hm","text":"Ich prüfe.","tools":[{"name":"bash","input":{"command":"ls ä"}},{"name":"x","raw_input":"{oops"}]},
    {"text":"got {{last_result}}","usage":{"input_tokens":5,"output_tokens":6,"cache_read_input_tokens":7,"cache_creation_input_tokens":8,"reasoning_tokens":2}},
    {"text":"late","fault":{"class":"rate_limited","retry_after_ms":30,"times":1}}]}"#;

/// Blocks without what each provider names in its own way.
fn plain(blocks: &[Block]) -> Vec<String> {
    let shown = blocks.iter().map(|block| match block {
        Block::Thinking(_) => "thinking".to_owned(),
        Block::ToolUse { name, input, raw_arguments, .. } => format!("{name} {input} {raw_arguments:?}"),
        other => format!("{other:?}"),
    });
    shown.collect()
}

#[tokio::test]
async fn one_script_three_providers() {
    let setup = Setup::new().await;
    let mut played = Vec::new();
    for model in ["builtin/script", "anthropic/claude-opus-5-5", "openai/gpt-5"] {
        let mut turn = request(model);
        turn.system = Some(PLAY.to_owned());
        let first = setup.call(&turn).await.expect("an answer");
        let ids: Vec<String> = first
            .blocks
            .iter()
            .filter_map(|block| match block {
                Block::ToolUse { provider_call_id, .. } => Some(provider_call_id.clone()),
                _ => None,
            })
            .collect();
        turn.messages.push(crate::setup::assistant(first.blocks.clone()));
        turn.messages.push(user(ids.iter().map(|id| result(id, vec![ContentBlock::text("x.txt")], false)).collect()));
        let second = setup.call(&turn).await.expect("an answer");
        turn.messages.push(crate::setup::assistant(second.blocks.clone()));
        turn.messages.push(user(vec![text("go on")]));
        let fault = setup.call(&turn).await.expect_err("the first attempt fails");
        assert_eq!((fault.class, fault.retry_after_ms), (ErrorClass::RateLimited, Some(30)), "{model}: {fault}");
        let third = setup.call(&turn).await.expect("the second attempt does not");
        let stops = (first.stop, second.stop, third.stop);
        played.push((plain(&first.blocks), plain(&second.blocks), plain(&third.blocks), stops, second.usage));
    }
    assert_eq!(played[0], played[1]);
    assert_eq!(played[0], played[2]);
}

#[tokio::test]
async fn a_script_of_its_own_stands_above_the_prompt() {
    let script = Script::parse(r#"{"steps":[{"text":"mine"}]}"#).expect("a script");
    let fake =
        FakeProvider::start_with(Options { script: Some(script), ..Options::default() }).await.expect("a free port");
    let mut request = request("openai/gpt-5");
    request.model.base_url = Some(fake.openai_url());
    request.system = Some(PLAY.to_owned());
    let answer = Setup::new().await.call(&request).await.expect("an answer");
    assert_eq!(answer.blocks, vec![text("mine")]);
}

#[tokio::test]
async fn pieces_inside_characters_and_connections_that_are_kept() {
    let setup = Setup::new().await;
    for model in ["anthropic/claude-opus-5-5", "openai/gpt-5"] {
        let step = Step { text: Some("ä€😀".repeat(40)), ..Step::default() };
        let delivery = Delivery { piece_bytes: Some(3), ..Delivery::default() };
        let planned = Reply::Step(Box::new(step)).delivered(delivery);
        let answer = setup.exchange(&request(model), planned).await.expect("an answer");
        assert_eq!(answer.blocks, vec![text(&"ä€😀".repeat(40))]);
    }
}
